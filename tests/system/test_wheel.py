"""What is built from a checkout has all that runs: code, packaged models, templates."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from common import outside

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel of this checkout was installed, without what it depends on."""
    work = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", work / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist"], cwd=work, check=True)
    (wheel,) = (work / "dist").iterdir()
    assert wheel.name.startswith("idc_classifier-")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", "site", str(wheel)], cwd=work, check=True)
    return work / "site"


def run(installed, *arguments):
    """Elsewhere than in the checkout, with that folder's code."""
    environment = outside() | {"PYTHONPATH": str(installed)}
    done = subprocess.run(arguments, cwd=installed.parent, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_it_is_another_copy_with_one_version(installed):
    told = run(installed, sys.executable, "-c", "import idc; print(idc.__file__, idc.__version__)").split()
    assert Path(told[0]).is_relative_to(installed)
    assert told[1] in next(installed.glob("idc_classifier-*.dist-info")).name
    assert told[1] in run(installed, installed / "bin" / "idc", "--version")


def test_it_evaluates_and_reports(installed):
    idc = installed / "bin" / "idc"
    names = [row["name"] for row in json.loads(run(installed, idc, "models", "--json"))]
    assert "idc-digits-robust" in names
    asked = ("--data", "digits", "--limit", "10", "--out", "out")
    run(installed, idc, "evaluate", "idc-digits-robust", *asked)
    run(installed, idc, "report", "out", "--out", "page.html")
    assert "<html" in (installed.parent / "page.html").read_text()
