"""The notebook runs from its first cell to its last, and shows pictures."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"


def test_the_tour_runs(tmp_path):
    """Elsewhere, on less: the training is one of fewer images and epochs."""
    notebook = nbformat.read(TOUR, 4)
    assert sum(bool(output.get("data", {}).get("image/png")) for cell in notebook.cells if cell.cell_type == "code"
               for output in cell.outputs) >= 4  # fmt: skip
    (training,) = (cell for cell in notebook.cells if "start_training(" in cell.source)
    shorter = training.source.replace("limit=600", "limit=60").replace('"epochs": 6.0', '"epochs": 1.0')
    assert shorter != training.source
    training.source = shorter
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs)
    assert "images keep their class" in said
    assert (tmp_path / "runs" / "tour" / "digits" / "best" / "config.json").is_file()
