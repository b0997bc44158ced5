"""Weights in fewer bits: the file shrinks, and what onnxruntime computes with stays float32."""

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from idc.exporting.graph import NETWORK, copied, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    Parts = tuple[list[TensorProto], list[NodeProto]]  # what is stored, and the nodes that make a weight of it

Array = np.ndarray[Any, np.dtype[np.float32]]
Weights = Literal["fp32", "fp16", "int8"]
_SMALL = 1024  # weights of fewer numbers stay float32: they are no part of the file's size


def store(proto: "ModelProto", weights: Weights) -> None:
    """Store the network's larger weights as ``weights`` says, with nodes that make float32 of them.

    onnxruntime runs these nodes once, when it opens the file. It could also compute with int8: docs/serving.md has what
    that gains and costs.
    """
    from onnx import numpy_helper

    if weights == "fp32":
        return
    reduced = _half if weights == "fp16" else _int8
    tensors: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for tensor in map(copied, proto.graph.initializer):
        large = _is_large(tensor)
        stored, made = reduced(tensor.name, numpy_helper.to_array(tensor)) if large else ([tensor], [])
        tensors += stored
        nodes += made
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    replace_nodes(proto, [*nodes, *proto.graph.node])


def _is_large(tensor: "TensorProto") -> bool:
    """Whether it is a weight of the network (the labels are none) that is worth fewer bits."""
    floating = tensor.data_type == 1  # TensorProto.FLOAT
    return tensor.name.startswith(NETWORK) and floating and len(tensor.dims) > 1 and math.prod(tensor.dims) >= _SMALL


def _half(name: str, values: Array) -> "Parts":
    from onnx import helper, numpy_helper

    stored = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=1)]


def _int8(name: str, values: Array) -> "Parts":
    """A scale for each index of the first dimension, which is the output channel of a convolution."""
    from onnx import helper, numpy_helper

    scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    stored = numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}.int8")
    scales = numpy_helper.from_array(scale, f"{name}.scale")
    return [stored, scales], [
        helper.make_node("Cast", [stored.name], [f"{name}.whole"], to=1),
        helper.make_node("Mul", [f"{name}.whole", scales.name], [name]),
    ]
