"""The demo's page from records made by hand: everything in it, nothing outside it, no code run from it."""

import base64
import copy
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from idc.errors import IDCError
from idc.report.demo_page import reading, write_demo_page
from idc.report.html import data_uri


def share(mean: float, n: int = 100) -> dict[str, float]:
    return {"mean": mean, "low": max(mean - 0.05, 0), "high": min(mean + 0.05, 1), "n": n}


def both(one: float, many: float) -> dict[str, dict[str, float]]:
    return {"one_step": share(one), "multi_step": share(many)}


NAMES = ["cat", "<script>alert(1)</script>"]
RECORDS = {
    "idc_version": "0.0", "torch": "2", "command": "idc demo --seed 7", "seed": 7, "draws": 10, "class_names": NAMES,
    "hardware": {"cpu": "a cpu", "threads": 2, "cores": 2, "device": "cpu"},
    "data": {"name": "toys", "image_shape": [1, 8, 8], "why_size": "So.", "train": 3, "validation": 2, "test": 100},
    "model": {"preset": "tiny", "parameters": 1234567, "visits": [3, 0], "timesteps": 4, "eta": 1.0, "passes": 2,
              "flops_per_pass": 10**6, "flops_per_answer": 2 * 10**6},
    "training": {"seconds": 12.3, "images_seen": 4567, "epochs": 2.0,
                 "history": [{"epoch": 1, "one_step": 0.5, "multi_step": 0.4}]},
    "labels": {"mean_distance": 0.5, "min_distance": 0.4, "max_cosine": 0.7, "max_cosine_centred": 0.01},
    "clean": both(0.987, 0.954),
    "attack": {"name": "PGD-20, L-inf", "surrogate": "one-step-inner", "steps": 20, "curve": [
        {"eps": 0.05, "attacked": both(0.7, 0.8125), "noise": both(0.9, 0.9)},
        {"eps": 0.1, "attacked": both(0.3, 0.2625), "noise": both(0.9, 0.9125)},
    ]},
    "pictures": {"panel": [{"truth": "cat", "answer": "cat", "attacked_answer": NAMES[1], "eps": 0.1}] * 4},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)

    def images(*shape: int) -> np.ndarray:
        return random.random((*shape, 1, 8, 8), dtype=np.float32)

    names = ("panel_images", "panel_nearest", "panel_attacked", "panel_attacked_translation", "panel_attacked_nearest")
    save_file({name: images(4) for name in names} | {"labels": images(2), "panel_steps": images(2, 4)},
              tmp_path / "pictures.safetensors")  # fmt: skip
    (tmp_path / "demo.json").write_text(json.dumps(RECORDS))
    return tmp_path


def test_page_holds_the_figures_and_nothing_from_elsewhere(folder):
    page = write_demo_page(folder).read_text()
    for text in ("98.7%", "95.4%", "81.2%", "26.2%", "1,234,567", "2.0 MFLOPs", "idc demo --seed 7"):
        assert text in page, text
    loaded = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert loaded
    assert all(link.startswith(("data:", "#")) for link in loaded)
    assert "@import" not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'name="viewport"' in page
    assert Image.open(folder / "overview.png").size[0] >= 1000


def test_curve_table_is_the_records(folder):
    write_demo_page(folder)
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    found = {(float(r["eps"]), r["input"], r["answer"]): float(r["accuracy"]) for r in rows}
    assert found == {
        (p["eps"], kind, answer): p[kind][answer]["mean"]
        for p in RECORDS["attack"]["curve"]
        for kind in ("attacked", "noise")
        for answer in ("one_step", "multi_step")
    }


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_kept_pixel_for_pixel(channels):
    image = np.random.default_rng(1).integers(0, 256, (channels, 5, 7)).astype(np.float32) / 255
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).transpose(2, 0, 1)
    expected = np.broadcast_to(image, (3, 5, 7)) if channels == 1 else image
    np.testing.assert_array_equal(decoded, np.rint(expected * 255))


@pytest.mark.parametrize(
    ("attacked", "words"),
    [
        ((0.9, 0.8), ("withstands this attack up to eps 0.1",)),
        ((0.9, 0.1), ("withstands this attack up to eps 0.05", "fails at eps 0.1")),
        ((0.1, 0.0), ("It fails at eps 0.05",)),
        ((0.5, 0.5), ("neither",)),
    ],
)
def test_words_follow_from_the_numbers(attacked, words):
    records = copy.deepcopy(RECORDS)
    for point, mean in zip(records["attack"]["curve"], attacked, strict=True):
        point["attacked"]["multi_step"] = share(mean)
    text = reading(records)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("damage", ["no record", "cut", "a key less", "no pictures"])
def test_damaged_records_are_refused_and_leave_no_page(folder, damage):
    file = folder / "demo.json"
    if damage == "no record":
        file.unlink()
    elif damage == "cut":
        file.write_text(file.read_text()[:100])
    elif damage == "a key less":
        file.write_text(json.dumps({k: v for k, v in RECORDS.items() if k != "clean"}))
    else:
        (folder / "pictures.safetensors").unlink()
    with pytest.raises(IDCError, match="run idc demo again"):
        write_demo_page(folder)
    assert not (folder / "report.html").exists()
