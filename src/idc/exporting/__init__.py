"""An IDC's answer as one .onnx file, for onnxruntime without PyTorch.

``answer`` exports and checks it, ``graph`` has PyTorch's exporter make the graph, ``weights`` stores it in fewer bits.
"""

from idc.exporting.answer import Export, export, export_saved

__all__ = ["Export", "export", "export_saved"]
