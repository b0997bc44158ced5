"""What ``idc evaluate`` prints of a summary."""

from idc.cli import common
from idc.cli.evaluate import _print_summary
from summaries import summary, verdict


def test_an_attack_that_was_not_run_on_every_image_says_on_how_many(capsys, monkeypatch):
    monkeypatch.setattr(common.out, "_width", 200)
    attacks = {"first": verdict(0.3) | {"attacked": 100}, "second": verdict(0.2) | {"attacked": 30}}
    _print_summary(summary(attacks=attacks))
    text = capsys.readouterr().out
    assert "attack: second (on 30 of 100, still right)" in text
    assert "attack: first " in text
    assert "first (" not in text
