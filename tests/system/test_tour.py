"""The notebook runs from its first cell to its last, and shows pictures."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"
SHORTER = {
    "limit=600": "limit=60", '"epochs": 6.0': '"epochs": 1.0', "limit=40": "limit=10", "limit=200": "limit=20",
    'protocol="quick"': 'protocol="pgd", steps=2', "[0.05, 0.1, 0.2, 0.3]": "[0.1]", "steps=10": "steps=2",
}  # fmt: skip


def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    """Cell by cell, elsewhere, on less."""
    cells = [cell for cell in json.loads(TOUR.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    pictures = [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) >= 4  # as it was kept
    kept = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in kept if o.get("name") == "stderr" or "-packages" in str(o.get("text"))]  # of one machine
    code = "\n".join("".join(cell["source"]) for cell in cells)
    for long, short in SHORTER.items():
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    try:
        exec(compile(code.replace("%matplotlib inline\n", ""), TOUR.name, "exec"), {"__name__": "__main__"})
        assert len(plt.get_fignums()) == 3  # the curve goes on the last one
    finally:
        plt.close("all")
        matplotlib.use(before)
    assert "images keep their class" in capsys.readouterr().out
    assert (tmp_path / "runs" / "tour" / "digits" / "best" / "config.json").is_file()
