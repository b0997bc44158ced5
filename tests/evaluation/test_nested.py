"""Radii within each other: what may be left out, what is looked at all the same, and that a wrong claim is found."""

import copy
import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.threat import Threat
from idc.commands.compare import compare, read_comparison
from idc.errors import IDCError
from idc.evaluation.nested import CHECKED, Larger, held_in, note, read_larger, same_but_radius
from idc.evaluation.protocol import Protocol, build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.sanity.recorded import nested_check
from idc.evaluation.summary import read_costs, read_lines, summarise_lines
from idc.peers.cnn import CNN, CNNConfig
from idc.report.comparison import write_comparison
from idc.storage import records
from idc.storage.files import make_folder
from noise_models import Linear, Noisy, easy_images
from tiny import save_digits_model


def evaluate(out, model, problem, eps, larger=None, *, steps=4, norm="linf", reliable=True):
    threat = Threat(norm, eps)
    attack = pgd(threat, steps=steps, step=0.5, random_start=False, objective=Margin())
    runner = Runner(model, problem, Protocol("toy", threat, (("pgd", attack),), gate=True, draws=5), out)
    if larger is not None:
        runner = replace(runner, larger=read_larger(larger, runner.settings()))
    runner.prepare()
    runner.run()
    (out / "summary.json").write_text(json.dumps({"reliable": reliable}))
    return read_lines(out)


@pytest.fixture
def case():
    """A linear model of two classes; which images surviving at a radius is known."""
    model = Linear(num_classes=2)
    images, classes = easy_images(model, 64, spread=0.4)
    logits = model(images)
    reach = (logits[:, 0] - logits[:, 1]).abs() / (model.weights[0] - model.weights[1]).abs().sum()
    return model, Problem(images, classes, torch.arange(64)), reach


def test_every_radius_has_the_closed_form(case, tmp_path):
    """Of the images that survived the larger radius one in eight is attacked, of the others each one that is right;
    and at a third radius no other count comes out, nor are the same images checked."""
    model, problem, reach = case
    radii = [reach.quantile(q).item() for q in (0.6, 0.4, 0.2)]
    before = evaluate(tmp_path / "0", model, problem, radii[0])
    assert not any("larger" in line for line in before)
    looked_at = []
    for i in (1, 2):
        lines = evaluate(tmp_path / str(i), model, problem, radii[i], tmp_path / str(i - 1))
        summary = summarise_lines(lines, ("a", "b"))
        surviving, survived = int((reach > radii[i]).sum()), int((reach > radii[i - 1]).sum())
        assert 0 < survived < surviving < 64
        assert summary["robust"]["mean"]["mean"] == summary["attacks"]["pgd"]["mean"]["mean"] == surviving / 64
        checked = -(-survived // CHECKED)
        assert summary["images_spared"] == survived - checked
        assert summary["attacks"]["pgd"]["attacked"] == 64 - survived + checked
        assert {n["id"] for n in lines if "larger" in n} == set((reach > radii[i - 1]).nonzero()[:, 0].tolist())
        assert read_costs(tmp_path / str(i))["images"] == 64 - survived + checked
        (finding,) = nested_check(lines)
        assert finding.passed
        assert f"0 of {checked}" in finding.figure
        looked_at.append({line["id"] for line in lines if line.get("larger") == "checked"})
    assert looked_at[0] != looked_at[1]


@dataclass(frozen=True)
class AnySize:
    """An attack without a radius: the mean of all images, which a linear model may well get wrong; it counts."""

    calls: ClassVar[list[int]] = []
    threat: Threat | None = None

    def __call__(self, target, images, classes, streams):
        self.calls.append(len(images))
        return images.mean(0, keepdim=True).expand_as(images).clone()


def of_several(threat):
    """As the paper's: no gate, an attack's step a share of the radius, one attack of any size."""
    walks = (pgd(threat, steps=1, step=threat.eps, random_start=False, objective=Margin()),
             pgd(threat, steps=4, step=threat.eps / 4, random_start=False, objective=Margin()))  # fmt: skip
    return Protocol("several", threat, (("one", walks[0]), ("four", walks[1]), ("any", AnySize())))


def test_several_attacks_each_alone(case, tmp_path):
    """Without a gate too: each attack of its own counts what a larger radius spared as surviving, which has a closed
    form here; one without a radius is run once, and comes to the same at every radius."""
    model, problem, reach = case
    AnySize.calls.clear()
    found = {}
    for index, share in enumerate((0.6, 0.4)):
        threat = Threat("linf", reach.quantile(share).item())
        runner = Runner(model, problem, of_several(threat), tmp_path / str(index))
        if index:
            larger = read_larger(tmp_path / "0", runner.settings())
            note(make_folder(runner.out), larger)
            runner = replace(runner, larger=held_in(runner.out))
            assert runner.larger == larger
        runner.prepare()
        runner.run()
        (runner.out / "summary.json").write_text(json.dumps({"reliable": True}))
        found[index] = summarise_lines(read_lines(runner.out), ("a", "b"))
    assert AnySize.calls == [64]
    for index, share in enumerate((0.6, 0.4)):
        surviving = int((reach > reach.quantile(share)).sum()) / 64
        each = [found[index]["attacks"][name]["mean"]["mean"] for name in ("one", "four")]
        assert [*each, found[index]["robust"]["mean"]["mean"]] == [surviving] * 3
    assert found[1]["attacks"]["any"] == found[0]["attacks"]["any"] | {"attacked": 0}
    assert 0 < found[0]["attacks"]["any"]["mean"]["mean"] < 1
    assert found[1]["images_spared"] > 0


def test_the_paper_nests():
    """Its attacks at two radii are the same but for those; a basic attack's claims nothing."""
    threats = [Threat("linf", eps) for eps in (4 / 255, 0.5 / 255)]
    for name, nests in (
        ("paper", True),
        ("adaptive", True),
        ("quick", True),
        ("pgd", False),
        ("apgd", False),
        ("clean", False),
    ):
        records = [build_protocol(name, threat).to_dict() for threat in threats]
        assert same_but_radius(*records)
        assert same_but_radius(records[0], build_protocol(name, Threat("linf", 0.0)).to_dict())
        assert not same_but_radius(records[0], build_protocol("quick", threats[1], steps=7).to_dict())
        assert build_protocol(name, threats[0]).nests == nests


def test_a_record_that_lacks_a_newer_setting_is_of_the_same_protocol_where_that_is_none():
    record = build_protocol("quick", Threat("linf", 0.1)).to_dict()
    before = copy.deepcopy(record)
    assert before["attacks"]["adaptive"].pop("momentum") is None
    assert same_but_radius(before, record)
    record["attacks"]["adaptive"]["momentum"] = 0.9
    assert not same_but_radius(before, record)


def test_a_wrong_claim_is_found_and_handed_to_nobody(case, tmp_path):
    """Where the larger radius had seen no attack, the images that are looked at all the same fall; what is known to be
    unreliable spares nothing."""
    model, problem, reach = case
    large, small = reach.max().item() * 1.2, reach.max().item() * 1.1
    evaluate(tmp_path / "large", model, problem, large)
    for file in (tmp_path / "large").glob("images-*.jsonl"):  # as if nothing had been found there
        lines = [line | {"robust": line["clean"]} for line in records.read(file)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (finding,) = nested_check(evaluate(tmp_path / "small", model, problem, small, tmp_path / "large"))
    assert not finding.passed
    assert "8 of 8" in finding.figure
    (tmp_path / "large" / "summary.json").write_text('{"reliable": false}')
    found = evaluate(tmp_path / "other", model, problem, small, tmp_path / "large")
    assert not any(line["robust"][0] for line in found)


def test_a_stochastic_model_is_attacked_everywhere(tmp_path):
    """What of its draws are right at a larger radius says nothing of how many are at a smaller one."""
    model = Noisy()
    images, classes = easy_images(model, 24, spread=0.4)
    problem = Problem(images, classes, torch.arange(24))
    before = evaluate(tmp_path / "large", model, problem, 0.01)
    assert any(line["robust"][0] == line["draws"] for line in before)
    assert not any("larger" in n for n in evaluate(tmp_path / "small", model, problem, 0.005, tmp_path / "large"))


def test_only_a_finished_evaluation_of_the_same_at_more_is_taken(case, tmp_path):
    model, problem, _ = case
    large = tmp_path / "large"
    evaluate(large, model, problem, 0.1)
    with pytest.raises(IDCError, match=r"more than 0\.1"):
        evaluate(tmp_path / "a", model, problem, 0.1, large)
    with pytest.raises(IDCError, match="same protocol"):
        evaluate(tmp_path / "a", model, problem, 0.05, large, steps=5)
    with pytest.raises(IDCError, match="same protocol"):
        evaluate(tmp_path / "a", model, problem, 0.05, large, norm="l2")
    with pytest.raises(IDCError, match="same classifier"):
        evaluate(tmp_path / "a", Linear(num_classes=2, seed=1), problem, 0.05, large)
    with pytest.raises(IDCError, match="larger radius first"):
        evaluate(tmp_path / "a", model, problem, 0.05, tmp_path / "nowhere")
    (file,) = large.glob("images-*.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(IDCError, match="64 finished images"):
        evaluate(tmp_path / "a", model, problem, 0.05, large)
    (large / "settings.json").write_text("{}")
    with pytest.raises(IDCError, match="a whole result"):
        evaluate(tmp_path / "a", model, problem, 0.05, large)
    assert not (tmp_path / "a").exists()


YAML = """
data: digits
protocols: [quick, pgd]
eps: [{eps}]
limit: 40
steps: 3
nested: {nested}
models:
  IDC: {{model: {folder}/idc, one_step: true}}
  CNN: {folder}/cnn
"""


def test_a_nested_comparison(tmp_path):
    """It gives what one gives that attacks every image; another radius may join; not nested, it refuses what is."""
    save_digits_model(tmp_path / "idc")
    torch.manual_seed(0)
    names = tuple("0123456789")
    CNN(CNNConfig("wrn-10-1", 10, (1, 8, 8), width=2, class_names=names)).save_pretrained(tmp_path / "cnn")

    def run(out, eps="1e-6, 1e-4", nested="true"):
        (tmp_path / "c.yaml").write_text(YAML.format(folder=tmp_path, eps=eps, nested=nested))
        return compare(read_comparison(tmp_path / "c.yaml"), tmp_path / out, say=lambda text: None)

    rows, plain = run("nested"), run("plain", nested="false")
    for one, other in zip(rows, plain, strict=True):
        for name, own in one["protocols"].items():
            assert own["robust"] == other["protocols"][name]["robust"]
            assert other["protocols"][name]["images_spared"] == 0
    spared = {(r["name"], r["eps"]): r["protocols"]["quick"]["images_spared"] for r in rows}
    survived = {
        r["name"]: round(40 * r["protocols"]["quick"]["robust"]["mean"]["mean"]) for r in rows if r["eps"] == 1e-4
    }
    assert all(rows[i]["protocols"]["pgd"]["images_spared"] == 0 for i in range(4))
    assert spared == {("IDC", 1e-4): 0, ("CNN", 1e-4): 0} | {(n, 1e-6): max(0, k - 1) for n, k in survived.items()}
    assert any(spared.values())
    write_comparison(tmp_path / "nested")
    assert "not attacked)" in (tmp_path / "nested" / "table.md").read_text()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "nested").glob("*/*/summary.json")}
    assert len(run("nested", eps="1e-6, 1e-5, 1e-4")) == 6
    assert done.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "nested").glob("*/*/summary.json")}.items()
    with pytest.raises(IDCError, match="attacks on every image"):
        run("nested", nested="false")


def test_what_is_reused_keeps_that_an_attack_gave_no_point(tmp_path):
    known = Larger(0.1, same={"cw": {1: (3, 1, False), 2: (0, 2)}})
    note(tmp_path, known)
    assert held_in(tmp_path) == known
