"""Image-to-Image Diffusion Classifier (Mei, Dong and Xu, AAAI 2025): train it, attack it, find out what holds.

The public names load on first use, so that ``import idc`` and ``idc --help`` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idc.commands.from_python import Outcome, evaluate
    from idc.errors import IDCError
    from idc.method.bridge import Bridge, BridgeSample, BridgeSpec
    from idc.method.classifier import IDC
    from idc.method.config import IDCConfig
    from idc.method.labels import orthogonal_labels
    from idc.method.prediction import Prediction
    from idc.method.presets import PRESETS
    from idc.method.unet import UNetSpec

__version__ = "0.1.0"
_HOME = {
    "IDC": "method.classifier",
    "IDCConfig": "method.config",
    "Prediction": "method.prediction",
    "IDCError": "errors",
    "Bridge": "method.bridge",
    "BridgeSample": "method.bridge",
    "BridgeSpec": "method.bridge",
    "PRESETS": "method.presets",
    "UNetSpec": "method.unet",
    "orthogonal_labels": "method.labels",
    "Outcome": "commands.from_python",
    "evaluate": "commands.from_python",
}
__all__ = [
    "IDC",
    "PRESETS",
    "Bridge",
    "BridgeSample",
    "BridgeSpec",
    "IDCConfig",
    "IDCError",
    "Outcome",
    "Prediction",
    "UNetSpec",
    "__version__",
    "evaluate",
    "orthogonal_labels",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"idc.{_HOME[name]}"), name)
    raise AttributeError(f"module 'idc' has no attribute {name!r}")
