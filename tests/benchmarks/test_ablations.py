"""The table of an ablation: it grows row by row, and holds no row of another recipe, data or number of images."""

import json

import ablation_pages
import ablations
import common
import pytest

ABOUT = {"data": "digits", "split": "test", "eps": "0.1", "limits": [5, 3]}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two rows with recipes, and what their runs left."""
    for name, folder in (("RECIPES", "recipes"), ("RUNS", "runs"), ("RESULTS", "results")):
        monkeypatch.setattr(ablations, name, tmp_path / folder)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    (tmp_path / "recipes" / "digits").mkdir(parents=True)
    for number, row in enumerate(("first", ablations.BASE)):
        (tmp_path / "recipes" / "digits" / f"0{number}-{row}.yaml").write_text(f"# It is {row}.\nepochs: 1\n")
        run(tmp_path, row, 0.5)
    return tmp_path


def run(place, row, accuracy):
    folder = place / "runs" / "digits" / f"{row}-0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"seconds": 2.0, "validation": {}}))
    for answer in ablations.answers("digits", row):
        out = ablations.result("digits", row, 0, answer)
        out.mkdir(parents=True, exist_ok=True)
        held = {"clean": 1, "robust": accuracy, "images": 5, "draws": 2, "answer": {}}
        (out / "summary.json").write_text(json.dumps(held))
        lines = [{"id": i, "class": 1, "robust": [2, int(i < 10 * accuracy)]} for i in (8, 3)]
        (out / "images-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_it_grows_and_goes_on(place):
    table = ablations.Table("digits", ABOUT)
    assert not table.has(ablations.BASE, 0)
    table.add(ablations.BASE, 0)
    table.add("first", 0)
    again = ablations.Table("digits", ABOUT)
    assert again.has("first", 0)
    assert not again.has("first", 1)
    rows = json.loads((place / "results" / "ablation-digits.json").read_text())["rows"]
    assert [r["row"] for r in rows] == ["first"] * 2 + [ablations.BASE] * 5  # in the recipes' order, each answer once
    assert {r["robust"] for r in rows} == {0.5}
    assert {(r["ids"], r["survived"]) for r in rows} == {("3 8", "10")}
    run(place, "first", 0.75)
    again.add("first", 0)
    rows = json.loads((place / "results" / "ablation-digits.json").read_text())["rows"]
    assert [r["robust"] for r in rows] == [0.75] * 2 + [0.5] * 5


def test_a_network_without_a_chain_is_asked_for_its_one_step_alone():
    assert list(ablations.answers("robust", ablations.BASE)) == ["one step"]
    assert len(ablations.answers("nano", ablations.BASE)) == 5
    assert {"digits", "nano", "robust"} == ablations.EPS.keys() == ablations.LIMITS.keys() == ablations.SPLIT.keys()


def test_rows_of_before_images_were_kept_are_measured_again(place):
    table = ablations.Table("digits", ABOUT)
    table.add("first", 0)
    file = place / "results" / "ablation-digits.json"
    held = json.loads(file.read_text())
    del held["rows"][0]["survived"]
    file.write_text(json.dumps(held))
    assert not ablations.Table("digits", ABOUT).has("first", 0)


def test_what_is_of_something_else_is_left_out(place):
    table = ablations.Table("digits", ABOUT)
    for row in ("first", ablations.BASE):
        table.add(row, 0)
    (place / "recipes" / "digits" / "00-first.yaml").write_text("# It is another.\nepochs: 2\n")
    changed = ablations.Table("digits", ABOUT)
    assert not changed.has("first", 0)
    assert changed.has(ablations.BASE, 0)
    assert not ablations.Table("digits", ABOUT | {"limits": [6, 3]}).has(ablations.BASE, 0)
    assert not ablations.Table("digits", ABOUT | {"data": "others"}).rows


def test_a_rows_seeds_are_set_beside_the_same_seeds_of_the_first():
    """Means 25, 50 and 0 points ahead: 25 on average, and 4.3027 x 25 / sqrt(3) to either side over seeds."""
    first = [{"seed": seed, "ids": "3 8 5 1", "survived": bits} for seed, bits in enumerate(("1110", "1111", "1100"))]
    other = [{"seed": seed, "ids": "3 8 5 1", "survived": "1100"} for seed in range(3)]
    assert ablation_pages._ahead(first, other).startswith("+25.0, seeds [-37.1, +87.1], images [")
    fewer = [row | {"ids": "5 3 8", "survived": "011"} for row in other]
    assert ablation_pages._ahead(first, fewer).startswith("+22.2, seeds [")  # 1/3, 1/3 and 0 of the three in common
    assert ablation_pages._ahead(first, other[:1]) == ablation_pages._ahead(first[:1], other) == "+25.0, p = 1"
    assert common.survivors(first[0]) == {3: True, 8: True, 5: True, 1: False}
