"""An evaluation from images to summary: right, resumable, the same however it is cut up."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from idc.attacks.minimum_norm import CarliniWagner
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.protocol import Protocol, build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.sanity.recorded import finite_check
from idc.evaluation.summary import read_costs, read_lines, summarise_lines
from idc.storage.tensor_file import save_tensors
from idc.types import NOT_FINITE
from noise_models import Linear, Noisy, easy_images
from toy_evaluation import cut_in_attack, problem, protocol, run


def test_what_an_attack_found_is_kept_no_longer_than_its_lines_need(tmp_path):
    """A kill between the last line of a block and the removal leaves it to the next run."""
    run(tmp_path)
    before = {file.name for file in tmp_path.iterdir()}
    save_tensors(tmp_path / "partial-000001.safetensors", {"worst": torch.ones(1)})
    run(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == before


def test_own_attacks_do_not_depend_on_how_many_images_are_attacked_together(tmp_path):
    run(tmp_path / "five")
    run(tmp_path / "all", block=1024)
    assert read_lines(tmp_path / "five") == read_lines(tmp_path / "all")
    with pytest.raises(IDCError, match=r"same block \(5 there, 6 here\);"):
        run(tmp_path / "five", block=6)


def test_what_a_model_names_comes_before_what_is_found_inside_it(tmp_path):
    """The first function is the one that basic attacks follow, and the search in any case."""
    model = Linear()
    model.surrogates = lambda: {"named": model}
    found = {"inside net": lambda images: -model(images)}
    assert replace(Runner(model, problem(model), protocol(), tmp_path), inside=found).target().first == "named"
    assert replace(Runner(Linear(), problem(model), protocol(), tmp_path), inside=found).target().first == "inside net"


def test_what_differs_from_the_result_in_the_folder_is_named(tmp_path):
    """By words that a user knows, not by the record's."""
    from idc.evaluation.runner import hold_settings

    held = {"classifier": {"name": "a", "fingerprint": "f" * 64}, "protocol": {"name": "pgd", "threat": {"eps": 0.1},
            "attacks": {"a": {}, "b": {}}}, "data": {"images": 8, "fingerprint": "f" * 64}}  # fmt: skip
    hold_settings(tmp_path / "r", held)
    for path, value, told in (
        (("classifier", "name"), "b", "same model (a there, b here);"),
        (("classifier", "fingerprint"), "g" * 64, "same model;"),
        (("data", "fingerprint"), "g" * 64, "same images;"),
        (("protocol", "name"), "quick", "same protocol (pgd there, quick here);"),
        (("protocol", "threat"), {"eps": 0.2}, "same eps (0.1 there, 0.2 here);"),
        (("protocol", "threat"), {"eps": 8 / 255}, "same eps (0.1 there, 8/255 here);"),
        (("data", "images"), 4, "8 images (now 4: --limit or --split?);"),
        (
            ("protocol", "attacks"),
            {"pgd-20 (margin)": {}},
            "same attacks (pgd-20 (margin) here alone), attacks (a there alone), attacks (b there alone);",
        ),
        (("protocol", "attacks"), {"a": {"momentum": 0.9}, "b": {}}, "same momentum of a (none there, 0.9 here);"),
    ):
        own = {room: dict(values) for room, values in held.items()}
        own[path[0]][path[1]] = value
        with pytest.raises(IDCError, match=re.escape(told)):
            hold_settings(tmp_path / "r", own)


def test_robust_accuracy_of_a_linear_model_is_the_closed_form(tmp_path):
    model = Linear(num_classes=2)
    images, classes = easy_images(model, 24, spread=0.4)
    logits = model(images)
    margin = (logits[:, 0] - logits[:, 1]).abs()
    gain = 0.05 * (model.weights[0] - model.weights[1]).abs().sum()
    run(tmp_path, model, Problem(images, classes, torch.arange(24)))
    summary = summarise_lines(read_lines(tmp_path), ("a", "b"))
    assert summary["draws"] == 1
    assert summary["clean"]["mean"]["mean"] == 1
    assert summary["robust"]["mean"]["mean"] == pytest.approx((margin > gain).float().mean().item())
    assert 0 < summary["robust"]["mean"]["mean"] < 1
    assert summary["robust"]["mean"] == summary["robust"]["majority"] == summary["robust"]["worst_of_n"]


def test_result_does_not_depend_on_chunk_or_processes(tmp_path):
    run(tmp_path / "one")
    run(tmp_path / "small", chunk=3)
    for rank in range(3):
        run(tmp_path / "three", rank=rank, world=3)
    expected = read_lines(tmp_path / "one")
    assert len(expected) == 24
    assert [line["id"] for line in expected] == [3 * i + 1 for i in range(24)]
    assert {line["draws"] for line in expected} == {6}
    for other in ("small", "three"):
        found = read_lines(tmp_path / other)
        assert [{**a, "size": 0} for a in found] == [{**a, "size": 0} for a in expected]
    assert len(list((tmp_path / "three").glob("images-*.jsonl"))) == 3
    assert read_costs(tmp_path / "three")["forward"] == read_costs(tmp_path / "one")["forward"]


@pytest.mark.parametrize("damage", [False, True])
def test_a_block_goes_on_with_the_attack_that_was_cut(tmp_path, monkeypatch, damage):
    """Interrupted in the second attack of the third block: what is done again is that attack, or, where the file of
    what was done is damaged, the block; the result and its counted cost are those of a run that was not."""
    run(tmp_path / "whole")
    calls = cut_in_attack(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    (partial,) = (tmp_path / "cut").glob("partial-*")
    if damage:
        partial.write_bytes(partial.read_bytes()[:-9])
    calls.clear()
    calls += ["again"] * 6  # no further interrupt
    run(tmp_path / "cut")
    again = calls[6:]
    assert again == (["fgsm"] if damage else []) + ["pgd"] + ["fgsm", "pgd"] * 2
    assert read_lines(tmp_path / "cut") == read_lines(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob("partial-*"))
    whole, cut = (read_costs(tmp_path / name) for name in ("whole", "cut"))
    assert (cut["forward"], cut["backward"]) == (whole["forward"], whole["backward"])


@pytest.mark.parametrize("cut", [0, 1, 700, 1500, 2200])
def test_a_kill_at_any_point_changes_nothing(tmp_path, cut):
    run(tmp_path / "whole", keep=True)
    run(tmp_path / "killed", keep=True)
    file = tmp_path / "killed" / "images-0.jsonl"
    file.write_bytes(file.read_bytes()[:cut])
    run(tmp_path / "killed", keep=True)
    assert read_lines(tmp_path / "killed") == read_lines(tmp_path / "whole")
    for kept in (tmp_path / "whole" / "adversarial").iterdir():
        assert torch.equal(
            load_file(kept)["images"], load_file(tmp_path / "killed" / "adversarial" / kept.name)["images"]
        )
    assert read_costs(tmp_path / "killed")["images"] == 24


def test_what_is_done_is_not_done_again(tmp_path):
    run(tmp_path)

    class Broken(Noisy):
        def forward(self, images):
            raise AssertionError("asked again")

    broken = Broken()
    own = Runner(broken, problem(broken), protocol(), tmp_path)
    own.run()
    assert len(read_lines(tmp_path)) == 24


def test_another_setting_or_model_is_refused(tmp_path):
    run(tmp_path)
    for change in ({"seed": 1}, {"protocol": protocol(0.06)}, {"model": Noisy(seed=4)}):
        with pytest.raises(IDCError, match="same"):
            run(tmp_path, **change)


def test_right_draws_votes_and_worst_points_are_consistent(tmp_path):
    run(tmp_path, Noisy(sigma=0.4), keep=True)
    lines = read_lines(tmp_path)
    for line in lines:
        for right, vote in (line["clean"], line["robust"], *line["attacks"].values()):
            assert 0 <= right <= 6
            assert vote != line["class"] or right >= 2
            assert right <= 3 or vote == line["class"]
        assert line["size"] <= 0.05 + 1e-6
        assert (line["size"] > 0) == bool(line["worst"])
        if line["worst"]:
            assert line["attacks"][line["worst"]][0] <= line["clean"][0]
    summary = summarise_lines(lines, tuple("abcd"))
    assert summary["robust"]["mean"]["mean"] == pytest.approx(sum(x["robust"][0] for x in lines) / 24 / 6)
    assert sum(map(sum, summary["confusion"]["robust"])) == 24
    assert sum(summary["right_draws"]["clean"]) == 24
    assert summary["robust"]["worst_of_n"]["mean"] <= summary["robust"]["mean"]["mean"]


def test_noise_alone_is_not_an_attack():
    """A model with much noise and an attack that does nothing: what the worst of n loses, clean images lose too."""
    import tempfile
    from pathlib import Path

    class Nothing:
        threat = Threat("linf", 0.05)

        def __call__(self, target, images, classes, streams):
            return images.clone()

    model = Noisy(sigma=0.5)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        images, classes = easy_images(model, 200, spread=0.4)
        idle = Protocol("idle", Threat("linf", 0.05), (("nothing", Nothing()),) * 1, draws=6)
        own = Runner(model, Problem(images, classes, torch.arange(200)), idle, out)
        own.run()
        summary = summarise_lines(read_lines(out), tuple("abcd"))
    assert summary["clean"]["mean"]["mean"] < 0.9
    assert summary["robust"]["mean"]["mean"] == pytest.approx(summary["clean"]["mean"]["mean"], abs=0.03)


@pytest.mark.parametrize(
    "which", [protocol(), *(build_protocol(name, Threat("linf", 0.05)) for name in ("clean", "apgd"))]
)
def test_logits_that_are_not_finite_are_no_answer_and_that_is_said(tmp_path, which):
    """A model without an answer on the bright half of the images, which all are of class 0: argmax calls that right."""

    class Gaps(Linear):
        def forward(self, images):
            bright = images.mean((1, 2, 3)) > 0.5
            return torch.where(bright[:, None], float("nan"), super().forward(images))

    model = Gaps()
    images = torch.cat([torch.full((4, 1, 4, 4), 0.2), torch.full((4, 1, 4, 4), 0.8)])
    run(tmp_path, model, Problem(images, torch.zeros(8, dtype=torch.int64), torch.arange(8)), protocol=which)
    lines = read_lines(tmp_path)
    dark = int(Linear.forward(model, images[:1]).argmax()) == 0
    assert [line["clean"] for line in lines] == [[int(dark), lines[0]["clean"][1]]] * 4 + [[0, NOT_FINITE]] * 4
    assert all(line["robust"] == [0, NOT_FINITE] and not line["single"] for line in lines[4:])
    summary = summarise_lines(lines, tuple("abcd"))
    assert summary["confusion"]["clean"][0][4] == 4
    (finding,) = finite_check(lines)
    assert (finding.passed, "4 of 8 images" in finding.figure) == (False, True)
    assert not list(finite_check(lines[:4]))


def test_a_gate_spares_fallen_images_and_keeps_them_fallen(tmp_path):
    model = Linear(num_classes=2)
    run(tmp_path, model, problem(model), protocol=protocol(0.2, gate=True))
    lines = read_lines(tmp_path)
    spared = [line for line in lines if line["attacks"]["pgd"] is None]
    assert spared
    assert all(line["robust"][0] == 0 for line in spared)
    summary = summarise_lines(lines, ("a", "b"))
    assert summary["attacks"]["pgd"]["attacked"] == 24 - len(spared)
    assert summary["attacks"]["pgd"]["mean"]["mean"] <= summary["attacks"]["fgsm"]["mean"]["mean"]


def test_an_attack_without_a_radius_is_judged_but_not_part_of_the_worst(tmp_path):
    model = Linear(num_classes=2)
    threat = Threat("linf", 1e-4)
    own = Protocol("cw", threat, (("cw", CarliniWagner(steps=50, searches=4)),))
    run(tmp_path, model, problem(model), protocol=own)
    summary = summarise_lines(read_lines(tmp_path), ("a", "b"))
    assert summary["attacks"]["cw"]["mean"]["mean"] < 0.1
    assert summary["robust"]["mean"]["mean"] == 1
