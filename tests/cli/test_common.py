"""What the commands print."""

import pytest
import typer

from idc.cli.common import end_unless, table


def test_each_cell_of_a_table_stands_under_its_own_heading(capsys):
    """A sweep over visits: its first answer draws no noise, and has no majority."""
    rows = [{"visits": "3", "accuracy": "11%"}, {"visits": "3-0", "mean of draws": "22%", "majority": "33%"}]
    table("t", rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if "visits" in line or "%" in line]
    head, *body = [[part.strip() for part in line.replace("┃", "│").split("│")[1:-1]] for line in lines]
    assert head == ["visits", "accuracy", "mean of draws", "majority"]
    assert body == [["3", "11%", "", ""], ["3-0", "", "22%", "33%"]]


@pytest.mark.parametrize("launched", [None, "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"])
@pytest.mark.parametrize("reliable", [True, False])
def test_what_is_not_to_be_quoted_has_an_exit_code(monkeypatch, reliable, launched):
    """But not under a launcher, which would take it for a crash."""
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    if launched:
        monkeypatch.setenv(launched, "1")
    ended = 0
    try:
        end_unless(reliable)
    except typer.Exit as error:
        ended = error.exit_code
    assert ended == (0 if reliable or launched else 3)
