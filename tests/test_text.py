"""Numbers as people write them."""

import pytest

from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded
from idc.text import count_text, eps_name, eps_text, gflops_text, percent, seconds_text, share, size_text


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
        (seconds_text(1.5), "1.50 s"),
        (seconds_text(0.01234), "12.3 ms"),
        (size_text(3 * 2**19), "1.5 MiB"),
        (count_text(12_345), "12,345"),
        (count_text(1_234_567), "1.23 M"),
        (count_text(6_840_000_000), "6.84 G"),
        (gflops_text(93_400_000), "0.0934"),
    ],
)
def test_other_numbers(text, expected):
    assert text == expected
