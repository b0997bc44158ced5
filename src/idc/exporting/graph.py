"""The graph of an answer: the reverse process, and the network in every place where it is called."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from idc.method.classifier import IDC

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

NETWORK = "unet/"  # how the names of the network's weights begin
P = TypeVar("P", bound="ModelProto | NodeProto | TensorProto")
_DOMAIN, _CALL = "idc", "unet"  # one pass of the network, before it is filled in
_BLOCK = 2**15  # numbers an image that the distances to one block of labels may take


class _Call(nn.Module):
    """Stands for the network while the chain is exported: one node that ``_fill`` replaces."""

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(f"{_DOMAIN}::{_CALL}", (x_t, t, y), dtype=x_t.dtype, shape=x_t.shape, version=1)


class _Answer(nn.Module):
    """``IDC.forward`` with noise by position and a distance that ONNX knows."""

    def __init__(self, model: IDC) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        x0_hat = self.model.translate(images, noise=noise).flatten(1)
        labels = self.model.labels.flatten(1)
        # ONNX has no L1 cdist. The difference to every label at once would be (B, K, D); to a block of labels at a time
        # it takes what a feature map of a small network does, whatever K is.
        blocks = labels.split(max(1, _BLOCK // labels.shape[1]))
        distances = torch.cat([(x0_hat[:, None] - block).abs().mean(2) for block in blocks], dim=1)
        return -distances / self.model.config.temperature


def answer_graph(model: IDC, steps: int) -> "ModelProto":
    """The answer of ``model``: images (B, C, H, W), and noise (steps, B, C, H, W) if steps > 0, to logits (B, K).

    Chain and network are exported apart, the network once: the exporter takes seconds for it, and would for each visit.
    """
    x = torch.rand(3, *model.input_shape, device=model.labels.device)  # not 1: a batch of one might be taken for fixed
    t = torch.zeros((), dtype=torch.int64, device=x.device)
    noise = {"noise": (x.expand(steps, *x.shape).clone(), 1)} if steps else {}
    with _quiet():
        network = _exported(model.unet, {"x_t": (x, 0), "t": (t, None), "y": (x.clone(), 0)}, "moved")
        chain = _exported(_Answer(model.with_network(_Call())), {"images": (x, 0)} | noise, "logits")
    _fill(chain, network)
    return chain


def _exported(module: nn.Module, inputs: Mapping[str, tuple[Tensor, int | None]], output: str) -> "ModelProto":
    """A module as ONNX. ``inputs`` maps names, in order, to an example and the dimension that is the batch."""
    program = torch.onnx.export(
        module,
        tuple(example for example, _ in inputs.values()),
        dynamic_shapes=tuple(None if batch is None else {batch: "batch"} for _, batch in inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # mypy: None is the old exporter's answer
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not installed and on its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _fill(chain: "ModelProto", network: "ModelProto") -> None:
    """Put the nodes of ``network`` where ``chain`` calls it. The weights are there once, however often that is."""
    own = {w.name: NETWORK + w.name for w in network.graph.initializer}
    nodes: list[NodeProto] = []
    calls = 0
    for call in chain.graph.node:
        if call.domain != _DOMAIN:
            nodes.append(call)
            continue
        outer = dict(zip((i.name for i in network.graph.input), call.input, strict=True))
        outer[network.graph.output[0].name] = call.output[0]
        nodes += [_renamed(node, own | outer, f"pass{calls}/") for node in network.graph.node]
        calls += 1
    for weight in network.graph.initializer:
        chain.graph.initializer.add().CopyFrom(weight)
        chain.graph.initializer[-1].name = own[weight.name]
    replace_nodes(chain, nodes)
    kept = [o for o in chain.opset_import if o.domain != _DOMAIN]
    del chain.opset_import[:]
    chain.opset_import.extend(kept)


def copied(part: P) -> P:
    copy = type(part)()
    copy.CopyFrom(part)
    return copy


def _renamed(node: "NodeProto", names: Mapping[str, str], prefix: str) -> "NodeProto":
    """A copy whose values have other names; "" is an optional input left out."""
    copy = copied(node)
    copy.name = prefix + node.name
    for values in (copy.input, copy.output):
        values[:] = [names.get(v, prefix + v) if v else v for v in values]
    return copy


def replace_nodes(proto: "ModelProto", nodes: "list[NodeProto]") -> None:
    copies = [copied(node) for node in nodes]  # deleting takes those that are the graph's own
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
