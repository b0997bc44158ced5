"""What the pages share: their templates' environment, pictures as data."""

import base64
import io
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from idc.report import figures
from idc.report.figures import Array
from idc.report.rows import outcome, passed_checks
from idc.storage.fields import written
from idc.text import flops_text, gflops_text, percent, seconds_text, share


def environment() -> Environment:
    """Templates of this package; everything is escaped, an unknown name is an error."""
    found = Environment(loader=PackageLoader("idc.report"), autoescape=True, undefined=StrictUndefined)
    found.filters.update(percent=percent, share=share, seconds=seconds_text, flops=flops_text, gflops=gflops_text)
    found.filters.update(attack=attack_text, outcome=outcome, passed_checks=passed_checks)
    return found


def attack_text(attack: dict[str, Any]) -> str:
    """The settings of a recorded attack in words, but for its threat, and for what is off or not set: "GradientAttack:
    objective Margin, surrogate answer, steps 20"."""
    own = {name.replace("_", " "): value for name, value in attack.items() if name not in ("kind", "threat")}
    said = [
        name if value is True else f"{name} {_worded(value)}"
        for name, value in own.items()
        if not (value is None or value is False or value == [])
    ]
    return ": ".join(filter(None, (attack.get("kind"), ", ".join(said))))


def _worded(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_worded, value))
    return str(value.get("kind", value)) if isinstance(value, dict) else written(value)


def data_uri(image: Array) -> str:
    """(C, H, W) in [0, 1] -> a PNG as a data URI, pixel for pixel."""
    buffer = io.BytesIO()
    Image.fromarray((figures.to_rgb(image) * 255).round().astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def difference(image: Array, attacked: Array) -> str:
    """What an attack changed, ten times enlarged around grey, as a data URI."""
    return data_uri(np.clip(0.5 + 10 * (attacked - image) / 2, 0, 1))
