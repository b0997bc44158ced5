"""Certifying as a user does: killed and gone on with, reported, refused."""

import json
import signal
from functools import partial

import pytest

from idc.evaluation.certificates import read_certified
from processes import dies_in_a_line, run
from tiny import save_digits_model

FLAGS = ("--data", "digits", "--sigma", 0.25, "--n0", 10, "--n", 40, "--limit", 12, "--out")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_digits_model(tmp_path_factory.mktemp("model") / "m")


def timeless(folder):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_certified(folder)]


def test_certify_again_and_report(model, tmp_path, idc):
    out = tmp_path / "r"
    code, text, said = idc("certify", model, *FLAGS, out, "--data-name", "ours")
    assert code == 0, said
    assert "ours test, n = 12" in text
    assert "radius of 0.25" in said  # 40 samples that agree: 0.25 Phi^-1(0.001^(1/40)) = 0.2502
    summary = json.loads((out / "certify.json").read_text())
    assert summary["kind"] == "certify"
    assert summary["cost"]["samples"] == 50
    assert summary["cost"]["network_evaluations"] == 150  # timesteps 3, 1, 0: three passes a sample
    assert summary["settings"]["smoothing"] == {"sigma": 0.25, "n0": 10, "n": 40, "alpha": 0.001}
    assert {"scipy", "torch", "idc"} <= summary["settings"]["versions"].keys()
    before = (out / "certify.json").stat().st_mtime_ns
    code, text, said = idc("certify", model, *FLAGS, out, "--data-name", "ours", "--batch-size", 17, "--json")
    assert (code, json.loads(text)) == (0, summary)
    assert "12 of 12 images are already done" in said
    assert (out / "certify.json").stat().st_mtime_ns == before
    code, text, said = idc("report", out, "--out", tmp_path / "page.html")
    assert code == 0, said
    assert f"{100 * summary['accuracy']['mean']:.1f}%" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "page-radius.png").stat().st_size > 1000


def test_killed_and_started_again(model, tmp_path, idc):
    args = ("certify", model, *FLAGS[:-1], "--one-step", "--n", 200, "--out")
    assert run(*args, tmp_path / "killed", before=partial(dies_in_a_line, "certified", 5)).returncode == -signal.SIGKILL
    assert len(read_certified(tmp_path / "killed")) == 5
    for name in ("killed", "whole"):
        assert idc(*args, tmp_path / name)[0] == 0
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")
    one, other = (json.loads((tmp_path / name / "certify.json").read_text()) for name in ("killed", "whole"))
    assert one["curve"] == other["curve"]
    assert one["cost"]["network_evaluations"] == 210


def test_interrupted(model, tmp_path, idc, monkeypatch):
    from idc.evaluation.smoothing import Smoothed

    plain, calls = Smoothed.certify, []

    def certify(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(Smoothed, "certify", certify)
    code, _, said = idc("certify", model, *FLAGS, tmp_path / "r")
    assert code == 130
    assert "goes on" in said
    assert len(read_certified(tmp_path / "r")) == 3
    assert not (tmp_path / "r" / "certify.json").exists()


def test_mistakes(model, tmp_path, idc):
    def refused(*args, word):
        code, _, said = idc("certify", *args)
        lines = [line for line in said.splitlines() if line.startswith("idc: ")]
        assert (code, len(lines), "Traceback" in said) == (2, 1, False)
        assert word in lines[0]

    out = tmp_path / "r"
    for flags, word in (
        (("--sigma", 0), "sigma"),
        (("--sigma", -0.1), "sigma"),
        (("--sigma", "nan"), "sigma"),
        (("--n", 0), "n = 0"),
        (("--n", 5), "10 or more"),
        (("--n0", 0), "n0"),
        (("--alpha", 0), "alpha"),
        (("--alpha", 1), "alpha"),
        (("--visits", "a"), "--visits"),
        (("--split", "final"), "--split"),
        (("--split", "all"), "train, validation or test"),
        (("--precision", "half"), "fp32"),
        (("--limit", 0), "limit"),
    ):
        refused(model, *FLAGS, out, *flags, word=word)
    refused(tmp_path / "nothing", *FLAGS, out, word="nothing")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    refused(model, *FLAGS, tmp_path / "file", word="file")
    assert idc("certify", model, *FLAGS, out)[0] == 0
    refused(model, *FLAGS, out, "--sigma", 0.5, word="there, 0.5 here)")
    refused(model, *FLAGS, out, "--one-step", word="visits ([3, 1, 0] there, [3] here)")
    code, _, said = idc("evaluate", model, "--data", "digits", "--limit", 12, "--out", out)
    assert (code, "a certification" in said) == (2, True), said
