"""The settings of load."""

from typing import Any

import pytest

from idc.data import load
from idc.errors import IDCError


@pytest.mark.parametrize(
    "settings",
    [
        {"split": "dev"},
        {"split": "train", "image_size": 0},
        {"split": "train", "channels": 2},
        {"split": "train", "validation_fraction": 1.0},
        {"split": "validation", "validation_fraction": 0.0},
        {"split": "train", "limit": 0},
        {"split": "train", "limit": 5.5},
        {"split": "train", "image_size": (32, 32)},
        {"split": "train", "channels": [1]},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(IDCError):
        load("digits", **settings)
