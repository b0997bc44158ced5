"""Evaluating as a user does: by protocol, killed and gone on with, in several processes, swept, judged again."""

import json
import signal
from functools import partial

import pytest

from idc.evaluation.summary import read_lines
from idc.storage import records
from processes import dies_in_a_line, run
from program import idc, refused
from tiny import save_digits_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_digits_model(tmp_path_factory.mktemp("model") / "m")


PGD = ("--data", "digits", "--protocol", "pgd", "--steps", 3, "--eps", "0.05", "--draws", 4)


def test_evaluate_rejudge_report(model, tmp_path):
    out = tmp_path / "r"
    result = idc("evaluate", model, *PGD, "--limit", 20, "--keep", "--block", 8, "--out", out, COLUMNS="160")
    assert result.returncode == 0, result.stderr
    assert "Not adaptive" in result.stdout
    assert "pgd-3" in result.stdout
    summary = json.loads((out / "summary.json").read_text())
    for kind in ("clean", "robust"):
        for verdict in ("mean", "majority", "worst_of_n"):
            assert summary[kind][verdict]["low"] <= summary[kind][verdict]["mean"] <= summary[kind][verdict]["high"]
    assert {"attacks", "sanity", "cost", "settings"} <= summary.keys()
    assert len(list(out.rglob("block-*.safetensors"))) == 3  # 20 images, 8 together
    again = json.loads(idc("rejudge", out, "--draws", 9, "--json").stdout)
    assert again["robust"]["draws"] == 9
    result = idc("report", out, "--out", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    assert f"{100 * summary['robust']['mean']['mean']:.1f}%" in (tmp_path / "page.html").read_text()


def test_training_images_are_told(model, tmp_path):
    told = "These are training images: of others, fewer may be right."
    for split, expected in (("train", True), ("test", False)):
        result = idc("evaluate", model, "--data", "digits", "--split", split, "--limit", 4, "--out", tmp_path / split)
        assert result.returncode == 0, result.stderr
        assert (told in result.stdout) is expected


def test_the_adaptive_protocol_with_its_sanity_checks(model, tmp_path):
    args = ("--data", "digits", "--protocol", "adaptive", "--steps", 2, "--limit", 10, "--draws", 3, "--one-step")
    result = idc("evaluate", model, *args, "--eps", "0.3", "--out", tmp_path / "r", COLUMNS="200")
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert result.returncode == (0 if summary["reliable"] else 3), result.stderr
    assert len(summary["sanity"]) == 28
    fresh = next(f for f in summary["sanity"] if f["name"] == "the same answer in a fresh process")
    assert fresh["passed"]
    assert fresh["figure"] == "8 adversarial images: 0 verdicts differ"
    assert all({"name", "passed", "figure", "remedy", "made"} == f.keys() for f in summary["sanity"])
    assert {"noise fixed, then free", "plain PGD of equal cost"} <= {
        f["name"] for f in summary["sanity"] if not f["made"]
    }
    assert result.stdout.count("not made") == sum(not f["made"] for f in summary["sanity"])
    assert summary["reliable"] == all(f["passed"] for f in summary["sanity"])
    assert ("UNRELIABLE" in result.stdout) == (not summary["reliable"])


def test_killed_and_started_again(model, tmp_path):
    """Killed in the middle of a line: of three blocks one is done, and the next is done again."""
    args = ("evaluate", model, *PGD, "--limit", 24, "--block", 8, "--out")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(*args, killed, before=partial(dies_in_a_line, "images", 1)).returncode == -signal.SIGKILL
    assert len(read_lines(killed)) == 8
    assert not (killed / "images-0.jsonl").read_bytes().endswith(b"\n")
    for out in (killed, whole):
        assert idc(*args, out).returncode == 0
    assert read_lines(killed) == read_lines(whole)
    assert len(records.read(killed / "images-0.jsonl")) == 24
    one, other = (json.loads((f / "summary.json").read_text()) for f in (whole, killed))
    assert {k: one[k] for k in ("clean", "robust", "attacks")} == {k: other[k] for k in ("clean", "robust", "attacks")}


def test_two_processes_find_what_one_does(model, tmp_path):
    args = ("evaluate", model, *PGD, "--limit", 20, "--block", 6, "--out")
    result = run(*args, tmp_path / "two", processes=2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("written:") == 1
    assert idc(*args, tmp_path / "one").returncode == 0
    assert read_lines(tmp_path / "two") == read_lines(tmp_path / "one")
    assert (tmp_path / "two" / "images-1.jsonl").exists()
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["settings"]["processes"] == 2


def test_sweep(model, tmp_path):
    result = idc("sweep", model, *PGD, "--limit", 6, "--over", "eps=2/255,0.1", "--out", tmp_path / "s", COLUMNS="160")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())["rows"]
    assert [round(r["value"], 6) for r in rows] == [round(2 / 255, 6), 0.1]
    assert "pgd over eps of " in result.stdout
    assert "digits test, n = 6; 95% intervals" in result.stdout
    assert idc("report", tmp_path / "s", "--out", tmp_path / "p.html").returncode == 0
    assert (tmp_path / "p-sweep-eps.png").stat().st_size > 1000


def test_mistakes(model, tmp_path):
    out = tmp_path / "r"
    for args, word in (
        (("evaluate", model, "--data", "digits", "--protocol", "best", "--out", out), "best"),
        (("evaluate", model, "--data", "digits", "--protocol", "pgd", "--eps", "8", "--out", out), "8/255"),
        (("evaluate", model, "--data", "digits", "--protocol", "pgd", "--norm", "l0", "--out", out), "l0"),
        (("evaluate", model, "--data", "digits", "--visits", "a", "--out", out), "--visits"),
        (("evaluate", "nowhere:model", "--data", "digits", "--out", out), "nowhere"),
        (("evaluate", model, "--data", "digits", "--steps", 3, "--out", out), "--steps"),
        (("evaluate", model, "--data", "digits", "--eps", "8/255", "--out", out), "--eps 8/255 with protocol clean"),
        (("sweep", model, "--data", "digits", "--over", "steps", "--out", out), "steps"),
        (("rejudge", tmp_path / "none"), "none"),
        (("report", tmp_path / "none", "--out", tmp_path / "p.html"), "none"),
    ):
        refused(idc(*args), word)
    assert list(tmp_path.iterdir()) == []
    assert idc("evaluate", model, "--data", "digits", "--limit", 4, "--out", out).returncode == 0
    refused(idc("evaluate", model, "--data", "digits", "--limit", 4, "--seed", 1, "--out", out), "seed")


def test_precision_is_part_of_the_result(model, tmp_path):
    args = ("evaluate", model, "--data", "digits", "--limit", 20, "--draws", 3, "--out", tmp_path / "r")
    assert idc(*args, "--precision", "bf16").returncode == 0
    assert json.loads((tmp_path / "r" / "settings.json").read_text())["classifier"]["precision"] == "bf16"
    refused(idc(*args), "precision", "choose another --out")
    refused(idc(*args, "--precision", "half"), "fp32, bf16, auto")
    peer = ("evaluate", "pyautoattack-resnet18", "--data", "digits", "--limit", 2, "--out", tmp_path / "p")
    refused(idc(*peer, "--one-step"), "an IDC", "--one-step")
    refused(idc(*peer, "--precision", "half"), "fp32, bf16, auto")
