"""Peers by name, as the command line and a comparison's YAML write them.

``pyautoattack-resnet18``; the folder of a CNN; ``diffpure:ddpm=FOLDER,classifier=MODEL,depth=0.1,steps=10,eta=1``;
``zdc:ddpm=FOLDER,timesteps=125``; ``rdc:ddpm=FOLDER,timesteps=125,maximise=5,budget=8/255``.
"""

from pathlib import Path

from torch import nn

from idc.errors import IDCError
from idc.peers.cnn import CNN, PackagedResNet18
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import Diffusion
from idc.peers.diffusion_classifier import DiffusionClassifier
from idc.storage.fields import Rule, unknown

PACKAGED = "pyautoattack-resnet18"
_SETTINGS: dict[str, dict[str, type]] = {
    "diffpure": {"depth": float, "steps": int, "eta": float},
    "zdc": {"timesteps": int, "weights": str, "temperature": float, "rows": int},
}
_SETTINGS["rdc"] = _SETTINGS["zdc"] | {"maximise": int, "budget": float, "rate": float}


def is_named(name: str) -> bool:
    """Whether ``name`` is that of a peer, rather than a folder."""
    kind, colon, _ = name.partition(":")
    return name == PACKAGED or (kind in _SETTINGS and (bool(colon) or not Path(name).exists()))


def open_peer(name: str) -> nn.Module:
    """A peer by its name, or a CNN by its folder; in evaluation mode.

    Raises:
        IDCError: for an unknown setting, or a part that cannot be opened.
    """
    kind, _, text = name.partition(":")
    if name == PACKAGED:
        return PackagedResNet18().eval()
    if not is_named(name):
        return CNN.from_pretrained(name)
    given = _parse(name, text)
    parts = ("ddpm", "classifier") if kind == "diffpure" else ("ddpm",)
    for key in given:
        if key not in (*parts, *_SETTINGS[kind]):
            raise unknown(f"{key} in {name}", key, (*parts, *_SETTINGS[kind]))
    if "ddpm" not in given or (kind == "diffpure") != ("classifier" in given):
        needs = "ddpm=FOLDER,classifier=MODEL" if kind == "diffpure" else "ddpm=FOLDER"
        raise IDCError(name, f"{kind}:{needs}", "name its parts")
    diffusion = Diffusion.from_pretrained(given.pop("ddpm"))
    classifier = open_peer(given.pop("classifier")) if kind == "diffpure" else None
    settings = {key: Rule(_SETTINGS[kind][key]).read(key, value, where=f" in {name}") for key, value in given.items()}
    if classifier is not None:
        return DiffPure(diffusion, classifier, **settings).eval()
    if kind == "rdc":
        settings.setdefault("maximise", 5)
    return DiffusionClassifier(diffusion, **settings).eval()


def _parse(name: str, text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if any(not equals or not value for _, equals, value in pairs) or len({k.strip() for k, _, _ in pairs}) < len(pairs):
        raise IDCError(
            name, "KEY=VALUE pairs with commas between, each key once", "write for example ddpm=runs/ddpm,steps=10"
        )
    return {key.strip(): value.strip() for key, _, value in pairs}
