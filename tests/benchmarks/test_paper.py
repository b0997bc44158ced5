"""The paper's figures: PGD read off along its way, parts in the time that there is, figures of what was measured."""

import json
from dataclasses import replace

import common
import gpu
import paper
import paper_figures
import paper_parts
import paper_tables
import pitfalls
import pytest
import torch

from idc import IDCError
from idc.attacks.gradient import pgd
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.evaluation.protocol import PUBLISHED, published
from idc.noise import Streams
from tiny import tiny_model

AT, DRAWS, EPS = (2, 4, 8), 2, 0.5


@pytest.mark.parametrize("surrogate", [PUBLISHED, "one-step-inner"])
def test_a_read_off_is_a_run_of_so_many_steps(surrogate):
    """A run of its own for each number of steps, judged with the noise of that read-off."""
    model = tiny_model()
    images = torch.rand(24, *model.input_shape, generator=torch.Generator().manual_seed(0))
    classes = model.predict(images, draws=1).classes  # right in some draws at least
    target, streams = published(Target.of(model)), Streams(torch.arange(24), 5)
    attack = pgd(Threat("linf", EPS), step=EPS / 4, surrogate=surrogate, fixed_noise=True)
    found = paper_parts.read_off(target, attack, images, classes, streams, at=AT, draws=DRAWS)
    runs = {0: images} | {s: replace(attack, steps=s)(target, images, classes, streams) for s in AT}
    alone = torch.stack([
        target.judge(x, classes, streams.of("judge", s), draws=DRAWS)[0].double().mean(0) for s, x in runs.items()
    ])  # fmt: skip
    still = torch.ones(24, dtype=torch.bool)
    for own, expected in zip(found, alone, strict=True):
        assert torch.equal(own[still], expected[still])
        assert not own[~still].any()  # wrong in every draw once, and not attacked further
        still &= expected > 0
    assert still.any()
    assert not (found[-2] > 0).all()  # some left before the last


def test_steps_go_on_where_they_were_stopped_and_shares_are_of_images(tmp_path):
    rows = [{"id": i, "right": [1.0, *[float(i < 3)] * len(paper_parts.READ)]} for i in range(4)]
    paper_parts.records.append(tmp_path / "published.jsonl", rows)
    found = paper_parts.steps_found(tmp_path)
    assert list(found) == ["published"]
    assert found["published"]["images"] == 4
    assert [p["steps"] for p in found["published"]["points"]] == [0, *paper_parts.READ]
    assert [p["mean"] for p in found["published"]["points"]] == [1.0] + [0.75] * len(paper_parts.READ)


def test_more_images_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    """An image's line is that of any number of images, and is not written again."""
    monkeypatch.setattr(paper_parts, "READ", (1, 2))
    monkeypatch.setattr(paper_parts.read_off, "__kwdefaults__", {"at": (1, 2), "draws": 1})
    model = str(paper_parts.ROOT / "models" / "digits")

    def lines(folder, *limits):
        for limit in limits:
            paper_parts.measure_steps(model, "digits", limit, tmp_path / folder)
        return (tmp_path / folder / "smooth.jsonl").read_text().splitlines()

    few, grown, whole = lines("grown", 3), lines("grown", 8), lines("whole", 8)
    assert len(few) == 3
    assert grown[:3] == few
    assert sorted(grown) == sorted(whole)


def test_an_evaluation_is_told_once_it_is_done(tmp_path):
    assert paper_parts.adaptive_found(tmp_path) == {}
    held = {"images": 9, "clean": {"n": 9}, "robust": {"n": 9}, "sanity": [{"passed": True}, {"passed": False}],
            "cost": {"seconds": 0.5}}  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(held))
    lines = [{"id": i, "class": 1, "robust": [1, vote]} for i, vote in ((8, 1), (3, 0))]
    (tmp_path / "images-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = paper_parts.adaptive_found(tmp_path)
    assert common.survivors(found) == {3: False, 8: True}
    assert (found["images"], found["checks"], found["core_seconds"]) == (9, {"made": 2, "passed": 1}, 4)


def test_an_evaluation_that_has_not_finished_is_told_of_the_images_that_have(tmp_path):
    assert paper_parts.adaptive_so_far(tmp_path) == {}
    pairs = {"clean": [4, 1], "noise": [4, 1], "attacks": {"a": [1, 0]}, "worst": "a", "single": False, "draws": 4}
    lines = [{"id": i, "class": 1, "robust": [right, 0]} | pairs for i, right in ((8, 1), (3, 0))]
    paper_parts.records.append(tmp_path / "images-0.jsonl", lines)
    rest = {"flags": [], "images": 2}
    paper_parts.records.append(tmp_path / "costs-0.jsonl", [{"block": 0, "seconds": {"a": 3.0, "clean": 2.0}} | rest])
    found = paper_parts.adaptive_so_far(tmp_path)
    assert (found["images"], found["clean"]["mean"]["mean"], found["robust"]["mean"]["mean"]) == (2, 1.0, 1 / 8)
    assert (found["checks"]["made"], found["core_seconds"]) == (0, 5)


@pytest.fixture
def results(tmp_path, monkeypatch):
    for module in (common, paper, paper_figures):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flaws_are_kept_of_the_images_that_have_finished(results):
    pitfalls.keep("nano", 8 / 255, "command")
    assert not (results / "pitfalls-nano.json").exists()
    out = pitfalls.folder("nano", 8 / 255)
    out.mkdir(parents=True)
    (out / "settings.json").write_text(json.dumps({"data": {"images": 7}}))
    common_keys = {"class": 1, "draws": 4, "noise": [4, 1], "robust": [0, 0], "worst": "a", "single": False}
    rights = {3: ([4, 1], [1, 0]), 5: ([2, 1], [1, 2])}
    lines = [{"id": i, "clean": clean, "attacks": {"a": own}} | common_keys for i, (clean, own) in rights.items()]
    paper_parts.records.append(out / "images-0.jsonl", lines)
    pitfalls.keep("nano", 8 / 255, "command")
    held = json.loads((results / "pitfalls-nano.json").read_text())
    assert (held["eps_text"], held["images"], held["settings"]["data"]["images"]) == ("8/255", 2, 7)
    assert held["clean"]["mean"]["mean"] == 6 / 8
    assert held["attacks"]["a"]["mean"]["mean"] == 2 / 8


def test_parts_are_done_in_order_within_the_time_and_not_again(results, monkeypatch, tmp_path):
    begun, ends = [], {"steps-nano": "stopped"}

    def attend(command, seconds, log):
        begun.append(log.stem)
        assert 0 < seconds <= 1000
        return ends.get(log.stem, "done"), ""

    monkeypatch.setattr(paper, "attend", attend)
    names = [part.name for part in paper.PARTS]
    paper.run(paper.PARTS, "data", tmp_path / "out", 1000)
    assert begun == names
    held = json.loads((results / "paper.json").read_text())["parts"]
    assert {name: part["state"] for name, part in held.items()} == dict.fromkeys(names, "done") | ends
    paper.run(paper.PARTS, "data", tmp_path / "out", 1000)
    assert begun == [*names, "steps-nano"]
    paper.run(paper.PARTS[:1], "data", tmp_path / "out", 1000, limit=paper.PARTS[0].limit + 1)  # other images
    assert begun[-1] == names[0]
    count = len(begun)
    paper.run(paper.PARTS, "data", tmp_path / "out", gpu.GRACE)
    assert len(begun) == count


@pytest.mark.parametrize("name", list(paper_figures.FIGURES))
def test_nothing_measured_is_not_drawn(results, name):
    with pytest.raises(IDCError, match="a part that was measured"):
        paper_figures.FIGURES[name]()
    begun = {part.name: {"state": "stopped"} for part in paper.PARTS}
    (results / "paper.json").write_text(json.dumps({"parts": begun}))
    with pytest.raises(IDCError, match=r"python benchmarks/paper\.py run --only"):
        paper_figures.FIGURES[name]()
    assert paper_figures.write_all(results) == []


def test_a_figure_has_the_numbers_of_the_file(results):
    points = [{"steps": s, "mean": m, "low": m / 2, "high": m, "n": 8} for s, m in ((0, 0.75), (10, 0.5), (20, 0.25))]
    own = {"images": 8, "draws": 1, "points": points}
    (results / "paper.json").write_text(json.dumps({"parts": {"steps-nano": {"published": own, "smooth": own}}}))
    (axes,) = paper_figures.figure_4a().axes
    for drawn in axes.containers:
        assert drawn.lines[0].get_xydata().tolist() == [[0, 75], [10, 50], [20, 25]]
        low = [segment[0][1] for segment in drawn.lines[2][0].get_segments()]
        assert low == [37.5, 25, 12.5]
    assert [path.name for path in paper_figures.write_all(results)] == ["paper-figure-4a.svg"]
    text = (results / "paper-figure-4a.svg").read_text()
    paper_figures.write_all(results)
    assert (results / "paper-figure-4a.svg").read_text() == text  # drawn again, the same


def test_sizes_of_an_attack_are_read_from_its_name():
    attacks = {"pgd-20 8/255": {"mean": 0.1}, "pgd-20 0.01": {"mean": 0.2}, "adaptive 8/255": {"mean": 0.0}}
    sizes, shares = paper_figures.over_eps({"clean": {"mean": 0.9}, "attacks": attacks})
    assert sizes == [0.0, 0.01, pytest.approx(8 / 255)]
    assert [s["mean"] for s in shares] == [0.9, 0.2, 0.1]


def test_the_trainings_differ_in_one_setting_each():
    from idc.training.recipe import load_recipe

    found = {name: load_recipe(str(paper_parts.ROOT / "recipes" / "paper" / f"{name}.yaml"), "digits")
             for name in paper_parts.TRAININGS}  # fmt: skip
    base, extra = found["inter-class"]
    assert (base.inter_weight, base.ce_weight, base.t_weights, base.eps, extra) == (0.2, 0.0, (), 0.0, {})
    assert found["no-inter-class"] == (replace(base, inter_weight=0.0), {})
    for steps in (2, 8):
        assert found[f"timesteps-{steps}"] == (base, {"bridge": {"timesteps": steps}})


def test_either_recipe_trains_by_the_losses_of_the_paper():
    from idc.training.recipe import RECIPES, load_recipe

    losses = {"inter_weight": 0.2, "ce_weight": 0.0, "t_weights": ()}
    published = replace(RECIPES["paper"], ema_start=6700)
    updates = 100 * (45_000 // published.batch_size) // published.accumulation
    whole = 400 * (50_000 // published.batch_size) // published.accumulation
    assert published.ema_start / updates == pytest.approx(RECIPES["paper"].ema_start / whole, abs=0.01)
    for name, own in (("published", published), ("fast", replace(RECIPES["fast"], **losses))):
        recipe, extra = load_recipe(str(paper_parts.ROOT / "recipes" / "paper" / f"{name}.yaml"), "digits")
        assert {field: getattr(recipe, field) for field in losses} == losses
        assert recipe == replace(own, epochs=100, validate_every=5)
        assert extra == {"preset": "nano", "image_size": 16}


def test_a_training_is_found_with_its_accuracy_over_epochs(tmp_path):
    run, attacked = tmp_path / "fast-0", tmp_path / "fast-0-attacked"
    run.mkdir()
    attacked.mkdir()
    (run / "summary.json").write_text(json.dumps({"images_seen": 80, "seconds": 2, "recipe": {"epochs": 2}}))
    lines = [{"step": 1, "loss/total": 0.1}, {"epoch": 2, "validation/one_step": 0.5, "validation/multi_step": 0.25}]
    lines[1]["validation/images"] = 8
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = {"images": 4, "draws": 1, "answer": {"network_evaluations": 3}, "clean": {"mean": {"mean": 0.5}},
              "attacks": {}, "sanity": [], "cost": {"seconds": 1}}  # fmt: skip
    (attacked / "summary.json").write_text(json.dumps(judged))
    (row,) = paper_parts.trainings_found(tmp_path)["rows"]
    assert (row["training"], row["seed"], row["epochs"], row["clean"]["mean"]) == ("fast", 0, 2, 0.5)
    assert row["validation"] == [{"epoch": 2, "one_step": 0.5, "multi_step": 0.25, "images": 8}]


def test_either_recipe_has_its_rows_and_its_accuracy_over_epochs(results):
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    trained = {"training": "published", "seed": 0, "epochs": 20, "images_seen": 160, "seconds": 60.0}
    attacked = {"pgd-20 8/255": interval, "adaptive 8/255": interval}
    row = trained | {"attack_seconds": 6.0, "images": 8, "draws": 10, "clean": interval, "attacks": attacked}
    row["validation"] = [{"epoch": e, "one_step": e / 100, "multi_step": 0.1, "images": 80} for e in (5, 15, 20)]
    part = {"state": "done", "hardware": {"cpu": "x", "torch": "2"}, "rows": [row, row | {"training": "fast"}]}
    (results / "paper.json").write_text(json.dumps({"parts": {"recipes-nano-16": part}}))
    lines = paper_tables.paper_recipes()
    assert "| the published recipe | 0 | 50.0% [25.0%, 75.0%] | 50.0% [25.0%, 75.0%] | 50.0% [25.0%, 75.0%] |" in lines
    assert "| accuracy on 80 validation images, one draw, weights of then, after | 5 epochs | 20 epochs |" in lines
    assert "| the recipe `fast`, the same losses: one step | 5.0% | 20.0% |" in lines


@pytest.mark.parametrize(
    ("found", "marked"),
    [
        ({"reliable": True}, False),
        ({"reliable": False}, True),
        ({"failed": ["a check"]}, True),
        ({"failed": []}, False),
        ({"checks": {"made": 25, "passed": 25}}, False),
        ({"checks": {"made": 25, "passed": 24}}, True),
    ],
)
def test_a_figure_is_marked_where_a_sanity_check_failed(found, marked):
    robust = {"mean": {"mean": 0.5, "low": 0.25, "high": 0.75}}
    assert common.share_of({"robust": robust} | found) == "50.0% [25.0%, 75.0%]" + " (unreliable)" * marked
