"""What the README shows works: its marked blocks are run as they stand, and its figures are those on disk."""

import re
import runpy
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from idc.commands.serve import serving
from idc.method.presets import PRESETS
from pictures import plain, write_classes
from program import idc
from tiny import SMALL_DIGITS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "idc"
README = (ROOT / "README.md").read_text(encoding="utf-8")


# What the commands name besides what is written for them, and what they would take too long for here.
SHORTER = {
    "--minutes 10": "--epochs 1",
    "--data uoft-cs/cifar10 --protocol adaptive": "--data digits --protocol pgd --steps 2 --limit 6",
    "uoft-cs/cifar10": "digits --limit 60 --epochs 1",
    "--preset paper-cifar10 --recipe paper": "--preset digits --recipe paper",
    "--protocol adaptive": "--protocol quick --limit 6",
    "--method pgd-at": "--method pgd-at --width 1 --attack-steps 1",
    "--over": "--limit 6 --steps 2 --over",
    "--limit 20": "--limit 2 --n 100",
}
NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))

    def forward(self, x):
        return self.layers(x)
"""
COMPARISON = """
data: digits
protocols: [pgd]
steps: 2
eps: [0.1]
limit: 4
models:
  ours: runs/robust
  CNN: runs/cnn
"""


def blocks(user: str, language: str) -> list[str]:
    found = re.findall(rf"<!-- test: {user} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, (user, language)
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with photos, and digits that are fewer, of a smaller network."""
    write_classes(tmp_path / "photos", ("cat", "dog"), 30, mode="RGB")
    (tmp_path / "holiday").mkdir()
    for name in ("cat.jpg", "dog.jpg", "holiday/one.jpg"):
        plain(90).save(tmp_path / name)
    digits = load_digits()
    monkeypatch.setitem(PRESETS, "digits", SMALL_DIGITS)
    fewer = Bunch(images=digits.images[:300], target=digits.target[:300])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: fewer)
    monkeypatch.setattr("idc.commands.serve.serving", looked_at)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def looked_at(model, **asked):
    """The page of ``idc serve`` is opened once, and then stopped as by Ctrl-C."""
    with serving(model, **asked) as address, urlopen(address) as page:
        assert page.status == 200
        raise KeyboardInterrupt
    yield address


def run(user: str) -> None:
    """The shell block of a user, line by line, and then the last block of Python."""
    for line in blocks(user, "sh")[0].splitlines():
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        program = re.sub(r"^accelerate launch --num-processes 8 -m idc.cli", "idc", line.split("#")[0])
        name, *arguments = shlex.split(program)
        assert name == "idc"
        done = idc(*arguments)
        assert done.returncode == 0, (line, done.stderr)
    exec(compile(blocks(user, "python")[-1], "README.md", "exec"), {"__name__": "__main__"})


def test_photos(workplace):
    run("photos")
    assert "rejected" in (workplace / "answers.csv").read_text().splitlines()[0]
    assert "<html" in (workplace / "clean.html").read_text()


def test_own_model(workplace, capsys):
    (workplace / "my_project.py").write_text(NETWORK)
    (workplace / "mine.py").write_text(blocks("model", "python")[0])
    brightness = torch.stack([torch.zeros(3072), torch.full((3072,), 50 / 3072)])  # dogs are the brighter ones
    weights = {"layers.1.weight": brightness, "layers.1.bias": torch.tensor([0.0, -50 * 9.8 / 255])}
    torch.save(weights, workplace / "weights.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(workplace))
        for name in ("mine", "my_project"):  # of another test, which this process has imported
            patch.delitem(sys.modules, name, raising=False)
        run("model")
    assert "images keep their class" in capsys.readouterr().out
    assert "Our classifier" in (workplace / "report.html").read_text()


def test_research(workplace):
    (workplace / "comparison.yaml").write_text(COMPARISON)
    run("research")
    assert (workplace / "runs" / "compared").is_dir()


def test_it_is_one_page():
    """What is written by a benchmark, and tables, are not counted."""
    own = re.sub(r"<!-- results.*?/results -->", "", README, flags=re.DOTALL)
    assert len(" ".join(line for line in own.splitlines() if not line.startswith("|")).split()) < 900


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}: setup", makefile, re.MULTILINE)


def test_figures_are_those_on_disk(monkeypatch):
    script = ROOT / "benchmarks" / "pages.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    runpy.run_path(str(script), run_name="__main__")  # it would exit with what differs


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/method.md"])
def test_files_that_a_page_names_are_there(page):
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if not any((top / name).is_file() for top in (ROOT, SOURCE))] == []


def test_every_room_is_named():
    rooms = {p.stem for p in SOURCE.iterdir() if not p.name.startswith(("_", "py."))}
    block = README[README.index("## Where things are") :].split("```")[1]
    said = {word.rstrip("/") for line in block.splitlines() for word in line.split("   ")[0].split()}
    assert said == rooms


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
