"""Image-to-Image Diffusion Classifier (Mei, Dong and Xu, AAAI 2025): train it, attack it, find out what holds.

The public names load on first use, so that ``import idc`` and ``idc --help`` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idc.bridge import Bridge, BridgeSample, BridgeSpec
    from idc.classifier import IDC
    from idc.config import IDCConfig
    from idc.errors import IDCError
    from idc.labels import orthogonal_labels
    from idc.prediction import Prediction
    from idc.unet import PRESETS, UNetSpec

__version__ = "0.1.0"
_HOME = {
    "IDC": "classifier",
    "IDCConfig": "config",
    "Prediction": "prediction",
    "IDCError": "errors",
    "Bridge": "bridge",
    "BridgeSample": "bridge",
    "BridgeSpec": "bridge",
    "PRESETS": "unet",
    "UNetSpec": "unet",
    "orthogonal_labels": "labels",
}
__all__ = [
    "IDC",
    "PRESETS",
    "Bridge",
    "BridgeSample",
    "BridgeSpec",
    "IDCConfig",
    "IDCError",
    "Prediction",
    "UNetSpec",
    "__version__",
    "orthogonal_labels",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"idc.{_HOME[name]}"), name)
    raise AttributeError(f"module 'idc' has no attribute {name!r}")
