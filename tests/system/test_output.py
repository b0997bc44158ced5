"""What the program prints, wherever that goes."""

import json
import os
import sys

import pytest

from processes import run
from program import idc, refused
from tiny import tiny_model


def stdout_is_full():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def stdout_is_ascii():
    sys.stdout.reconfigure(encoding="ascii", errors="strict")


@pytest.fixture
def model(tmp_path):
    tiny_model(3, (3, 16, 16), class_names=("caf\xe9", "\u65e5", "dog")).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
@pytest.mark.parametrize("args", [("models",), ("models", "--json"), ("train", "--help")])
def test_a_full_stdout_is_one_line(args):
    refused(run(*args, before=stdout_is_full), "No space left")


def test_an_ascii_stdout_takes_every_name(model, picture):
    result = run("predict", model, picture, "--top", 3, before=stdout_is_ascii)
    assert (result.returncode, result.stderr) == (0, "")
    assert r"caf\xe9" in result.stdout
    result = run("predict", model, picture, "--top", 3, "--json", before=stdout_is_ascii)
    assert result.stdout.isascii()
    assert {row["class"] for row in json.loads(result.stdout)[0]["top"]} == {"caf\xe9", "\u65e5", "dog"}


@pytest.mark.parametrize("name", ["x[/y]", "x[red]z", ":smile:", "esc\x1b[31m", "caf\udce9"])
def test_names_are_printed_as_they_are_and_obeyed_by_no_terminal(model, picture, tmp_path, name):
    file = tmp_path / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(picture.read_bytes())
    shown = name.replace("\x1b", r"\x1b").replace("\udce9", r"\udce9")
    assert f"{shown}.png" in idc("predict", model, file, COLUMNS="200").stdout
    refused(idc("predict", model, tmp_path / name / "none.png"), f"{shown}/none.png")


def test_a_folder_of_any_name_is_written_to(tmp_path):
    tiny_model(10, class_names=tuple("0123456789")).save_pretrained(tmp_path / "m")
    args = ("evaluate", tmp_path / "m", "--data", "digits", "--limit", 4, "--draws", 2, "--data-name", "caf\udce9")
    result = idc(*args, "--out", tmp_path / "x[/y]")
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/x[/y]" in result.stdout
    assert r"caf\udce9 test" in result.stdout
    summary = json.loads((tmp_path / "x[" / "y]" / "summary.json").read_text())
    assert summary["settings"]["data"]["source"] == "caf\udce9"
    assert idc(*args, "--out", tmp_path / "x[/y]").returncode == 0
    assert idc("report", tmp_path / "x[/y]", "--out", tmp_path / "page.html").returncode == 0
    refused(idc(*args, "--out", tmp_path / "caf\udce9"), "a name in UTF-8")
