"""The bar on a terminal: rate and time left only where one step is like another."""

import io
import re

import pytest
from rich.console import Console

from idc.progress import Bar


@pytest.mark.parametrize("alike", [True, False])
def test_time_left_is_told_of_steps_that_are_alike(alike):
    bar = Bar("images", total=8, done=3, alike=alike)
    screen = io.StringIO()
    Console(file=screen, width=120).print(bar.progress.get_renderable())
    shown = screen.getvalue()
    assert re.search(r"images .* 3/8 ", shown)
    assert ("-:--:--" in shown.replace("0:00:00", "", 1)) is alike
