"""`make reproduce` in little: every part runs, and leaves what benchmarks/zoo.py takes."""

import json
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import reproduce
import yaml

from idc import IDC
from idc.attacks.minimum_norm import CarliniWagner
from program import idc, refused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reproduced(tmp_path, monkeypatch, capsys):
    """benchmarks/reproduce.py in this process, its commands too: exit code, stdout, stderr."""

    def command(args: list[str], processes: int) -> int:
        result = idc(*args)
        assert result.returncode == 0, result.stderr
        return 0

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, args)])
        try:
            reproduce.main()
        except SystemExit as ended:
            return ended.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run", command)
    return call


def test_reproduce_then_add(reproduced, tmp_path, monkeypatch):
    # The paper's attack takes a thousand steps, of which each is as the last.
    monkeypatch.setattr("idc.evaluation.protocol.CarliniWagner", partial(CarliniWagner, steps=20))
    code, text, said = reproduced("idc-digits-robust", "--rehearse", 2, "--processes", 1)
    assert code == 0, said
    run = tmp_path / "runs" / "rehearsal-idc-digits-robust"
    written = yaml.safe_load((ROOT / "recipes" / "idc-digits-robust.yaml").read_text())
    assert yaml.safe_load((run / "recipe.yaml").read_text())["eps"] == written["eps"]
    eps = str(written["evaluate"]["eps"][0])
    for name in ("clean", f"adaptive-{eps}", f"paper-{eps}"):
        file = run / "evaluation" / name / "summary.json"
        summary = json.loads(file.read_text())
        assert (summary["protocol"], summary["images"]) == (name.removesuffix(f"-{eps}"), 2)
        assert f"result: {file.relative_to(tmp_path)}" in text
        if name != "clean":
            assert summary["settings"]["protocol"]["threat"]["eps"] == float(eps)
    monkeypatch.setattr(sys, "argv", ["zoo.py", "add", str(run), "idc-rehearsed", "--into", str(tmp_path / "zoo")])
    runpy.run_path(str(ROOT / "benchmarks" / "zoo.py"), run_name="__main__")
    measured = IDC.from_pretrained(tmp_path / "zoo" / "idc-rehearsed").card["measured"]
    assert {row["attack"] for row in measured} == {"none", f"adaptive, L-inf {eps}", f"paper, L-inf {eps}"}
    assert {(row["n"], row["weights"]) for row in measured} == {(2, "float32")}


@pytest.mark.parametrize("name", ["", "../recipes/idc-digits"])
def test_a_model_without_a_recipe(name, reproduced, tmp_path):
    code, _, said = reproduced(name)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("reproduce: ")
    assert all(file.stem in line for file in (ROOT / "recipes").glob("*.yaml"))
    assert list(tmp_path.iterdir()) == []


def test_the_commands_know_the_packaged_models(tmp_path):
    rows = json.loads(idc("models", "--json", cwd=tmp_path).stdout)
    assert "idc-nano-cifar10" in [row["name"] for row in rows]
    shown = idc("models", cwd=tmp_path, COLUMNS="120").stdout
    for row in rows:
        assert f"{row['name']}: {row['parameters']:,} parameters" in shown
        assert all(measured["accuracy"] in shown for measured in row["measured"])
    found = idc("profile", "idc-nano-cifar10", "--json", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert json.loads(found.stdout)["parameters"] == 948_204
    refused(idc("predict", "idc-nano", "cat.png", cwd=tmp_path), "idc-nano-cifar10")
