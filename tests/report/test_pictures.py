"""Pictures of results made by hand: pixel for pixel on the page, the overview, results of before, refusals."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from idc.errors import IDCError
from idc.report.html import data_uri
from idc.report.pictures import of_the_method, write_overview
from idc.report.results import read_result, read_results
from idc.report.results_page import write_report
from summaries import NAMES, write_result, write_sweep


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_kept_pixel_for_pixel(channels):
    image = np.random.default_rng(1).integers(0, 256, (channels, 5, 7)).astype(np.float32) / 255
    expected = np.broadcast_to(image, (3, 5, 7)) if channels == 1 else image
    np.testing.assert_array_equal(decoded(data_uri(image)), np.rint(expected * 255))


def test_the_method_is_shown_by_the_longest_answer(tmp_path):
    """Its labels, and each image's translation at each timestep, pixel for pixel."""
    short = write_result(tmp_path / "one", panel=2)
    text = (short / "summary.json").read_text().replace("[3, 1, 0]", "[3]")
    (short / "summary.json").write_text(text)
    results = [read_result(short), read_result(write_result(tmp_path / "many", panel=2))]
    found = of_the_method(results)
    assert (found["name"], found["visits"]) == ("runs/m, visits 3, 1, 0", [3, 1, 0])
    assert [label["name"] for label in found["labels"]] == NAMES
    pictures = load_file(tmp_path / "many" / "panel.safetensors")
    for row, steps in zip(found["rows"], pictures["clean_steps"], strict=True):
        assert [decoded(step)[:1].tolist() for step in row["steps"]] == np.rint(steps * 255).tolist()
    write_report([short, tmp_path / "many"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("How the model answers") == 1
    for words in ("timesteps 3, 1, 0", "0.517 a pixel", "at least 0.400", "0.0123 without", "0.71 as drawn"):
        assert words in text


def test_a_result_of_before_keeps_its_pictures(tmp_path):
    """One whose pictures have neither labels nor timesteps."""
    folder = write_result(tmp_path / "a", panel=2)
    held = load_file(folder / "panel.safetensors")
    save_file({k: v for k, v in held.items() if k not in ("labels", "clean_steps")}, folder / "panel.safetensors")
    write_report([folder], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count('<img class="px"') == 2 * 6
    assert "How the model answers" not in text
    assert of_the_method(read_results([folder])[0]) is None
    with pytest.raises(IDCError, match="a result of an IDC with pictures"):
        write_overview([folder], tmp_path / "overview.png")


@pytest.mark.parametrize("images", [1, 6])
def test_the_overview_is_a_wide_picture(tmp_path, images):
    folders = [write_result(tmp_path / "a", panel=images), write_sweep(tmp_path / "s", "eps", {0.1: 0.5, 0.2: 0.1})]
    write_overview(folders, tmp_path / "overview.png")
    assert Image.open(tmp_path / "overview.png").size[0] >= 1000


@pytest.mark.parametrize("damage", ["cut", "a name less"])
def test_damaged_pictures_are_refused_and_leave_no_page(tmp_path, damage):
    folder = write_result(tmp_path / "a", panel=2)
    file = folder / "panel.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        save_file({k: v for k, v in load_file(file).items() if k != "clean_nearest"}, file)
    for make in (lambda: write_report([folder], tmp_path / "page.html"),
                 lambda: write_overview([folder], tmp_path / "overview.png")):  # fmt: skip
        with pytest.raises(IDCError, match=r"evaluate again|make it again"):
            make()
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_names_of_classes_are_text(tmp_path):
    """In the overview and on the page they run no code."""
    write_report([write_result(tmp_path / "a", panel=2)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert f"label of {html.escape(NAMES[1])}" in text
    assert all(link.startswith(("data:", "#")) for link in re.findall(r"""(?:src|href)=["']([^"']*)""", text))
