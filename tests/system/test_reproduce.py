"""`make reproduce` in little: every part runs, and leaves what benchmarks/zoo.py takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from idc import IDC
from program import idc, refused

ROOT = Path(__file__).parents[2]


def script(name: str, *args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, args)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=900)


def test_reproduce_then_add(tmp_path):
    args = ("idc-digits-robust", "--rehearse", 2, "--processes", 1)
    result = script("reproduce", *args, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "rehearsal-idc-digits-robust"
    written = yaml.safe_load((ROOT / "recipes" / "idc-digits-robust.yaml").read_text())
    assert yaml.safe_load((run / "recipe.yaml").read_text())["eps"] == written["eps"]
    text = str(written["evaluate"]["eps"][0])
    for name in ("clean", f"adaptive-{text}", f"paper-{text}"):
        file = run / "evaluation" / name / "summary.json"
        summary = json.loads(file.read_text())
        assert (summary["protocol"], summary["images"]) == (name.removesuffix(f"-{text}"), 2)
        assert f"result: {file.relative_to(tmp_path)}" in result.stdout
        if name != "clean":
            assert summary["settings"]["protocol"]["threat"]["eps"] == float(text)
    result = script("zoo", "add", run, "idc-rehearsed", "--into", tmp_path / "zoo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = IDC.from_pretrained(tmp_path / "zoo" / "idc-rehearsed").card["measured"]
    assert {row["attack"] for row in measured} == {"none", f"adaptive, L-inf {text}", f"paper, L-inf {text}"}
    assert {(row["n"], row["weights"]) for row in measured} == {(2, "float32")}


@pytest.mark.parametrize("name", ["", "../recipes/idc-digits"])
def test_a_model_without_a_recipe(name, tmp_path):
    result = script("reproduce", name, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
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
