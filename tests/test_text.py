"""Numbers as people write them."""

import pytest

from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded
from idc.text import (
    count_text,
    duration_text,
    epoch_text,
    eps_name,
    eps_text,
    flops_text,
    gflops_text,
    in_markdown,
    percent,
    seconds_text,
    share,
    size_text,
    table_head,
    table_row,
    visible,
)  # fmt: skip


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.1, "0.1"), (0, "0"), (0.5 / 255, "0.5/255"), (0.3 / 255, "0.00117647"), (0.2, "0.2")],
)
def test_eps_as_people_write_it(eps, text):
    assert eps_text(eps) == text
    assert eps_name(eps) == text.replace("/", "-")  # the folders of results on disk


def test_a_share_has_its_interval():
    found = {"mean": 0.37349, "low": 0.34351, "high": 0.4, "n": 1000}
    assert share(found) == "37.3% [34.4%, 40.0%]"
    assert share(found, digits=2) == "37.35% [34.35%, 40.00%]"
    assert str(wilson(0.5, 10)) == share(recorded(wilson(0.5, 10)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.9876), "98.8%"),
        (percent(1, 0), "100%"),
        (epoch_text(1 / 9), "0.11"),
        (epoch_text(3.0), "3"),
        (epoch_text(100.0), "100"),
        (epoch_text(0.0042), "0.004"),
        (epoch_text(0), "0"),
        (seconds_text(1.5), "1.50 s"),
        (seconds_text(0.01234), "12.3 ms"),
        (size_text(3 * 2**19), "1.5 MiB"),
        (count_text(12_345), "12,345"),
        (count_text(1_234_567), "1.23 M"),
        (count_text(6_840_000_000), "6.84 G"),
        (count_text(49_562_020_000_000), "49.56 T"),
        (gflops_text(93_400_000), "0.0934"),
        (flops_text(4_060_000), "4.06 MFLOPs"),
        (flops_text(6_843_000_000), "6.84 GFLOPs"),
    ],
)
def test_other_numbers(text, expected):
    assert text == expected


def test_what_a_terminal_would_obey_is_written_out():
    assert (
        visible("a\x1b[31mred\x07\r\n\x9b2J\udce9 é 日 [red]")
        == r"a\x1b[31mred\x07\r" + "\n" + r"\x9b2J\udce9 é 日 [red]"
    )


NAMES = ["a|b", "line\nend", "<script>alert(1)</script>", "`code`", "[a](http://b)", "![a](b.png)", "a\\", "*b*",
         "&lt;i&gt;", "\x1b[31m", "plain name, 8/255 [1%, 2%] #1 a_b & c > d"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    """As another library reads it: a table of one row, whose cell is the name and nothing else."""
    from markdown_it import MarkdownIt

    text = "\n".join([*table_head("model", "n"), table_row(in_markdown(name), 3)])
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = [token for token in tokens if token.type == "inline"]
    assert [cell.content for cell in cells][::3] == ["model", "3"]
    [shown] = {child.type for child in cells[2].children} - {"text_special"}
    assert shown == "text"
    assert "".join(child.content for child in cells[2].children) == visible(" ".join(name.split()))


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_durations(seconds, text):
    assert duration_text(seconds) == text
