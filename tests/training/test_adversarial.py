"""The inner maximisation reaches closed forms; adversarial training holds where standard training does not."""

import json

import pytest
import torch
from torch.nn import functional as F

from idc import data
from idc.attacks.threat import Threat
from idc.commands.opening import open_model
from idc.commands.train_peers import start_cnn
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.training.adversarial import ascend, divergence, random_start, worst
from idc.training.cnn_objective import CNNObjective
from idc.training.recipe import CNNRecipe
from watched import watched


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_point_of_a_linear_loss(norm):
    """max over the ball of <w, x> is <w, x0> + eps |w|_1 (linf) or + eps |w|_2 (l2), away from the bounds."""
    random = torch.Generator().manual_seed(0)
    w = torch.randn(2, 3, 4, 4, generator=random)
    images = torch.full_like(w, 0.5)
    threat = Threat(norm, 0.1)
    start = random_start(images, threat, random)
    assert (threat.size(start, images) <= 0.1 + 1e-6).all()
    found = ascend(lambda x: (w * x).sum(), images, threat, steps=20, step=0.025, start=start)
    gain = ((found - images) * w).flatten(1).sum(1)
    dual = w.flatten(1).abs().sum(1) if norm == "linf" else torch.linalg.vector_norm(w.flatten(1), dim=1)
    torch.testing.assert_close(gain, 0.1 * dual, rtol=1e-3, atol=1e-5)
    assert (threat.size(found, images) <= 0.1 + 1e-6).all()


def test_validation_images_go_over_to_the_class_that_is_nearest_also_where_the_answer_is_flat():
    """Of a linear answer of ten classes, one is within reach along the first pixel, and eight far ones fall along it:
    together they outweigh it in the gradient of the cross-entropy, not in that of the margin."""
    slopes = torch.tensor([0.0, 1.0, *[-1.0] * 8])
    heights = torch.tensor([0.0, -0.05, *[-0.5] * 8])
    images, classes = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)

    def logits(x):
        return heights + (x[:, 0, 0, 0, None] - 0.5) * slopes

    threat = Threat("linf", 0.1)
    start = images.clone()
    found = worst(logits, images, classes, threat, start=start)
    torch.testing.assert_close(found[:, 0, 0, 0], torch.full((3,), 0.6))
    assert (logits(found).argmax(1) == 1).all()
    entropy = ascend(lambda x: F.cross_entropy(logits(x), classes, reduction="sum"), images, threat, steps=10,
                     step=0.025, start=start)  # fmt: skip
    assert (logits(entropy).argmax(1) == 0).all()


def test_divergence_against_torch_distributions():
    clean, moved = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=clean), torch.distributions.Categorical(logits=moved)
    )
    torch.testing.assert_close(divergence(moved, clean), expected, rtol=1e-4, atol=1e-5)


FAST = {"epochs": 3, "validate_every": 3, "checkpoint_every": 3, "precision": "fp32", "crop": 0}
ATTACK = {"eps": 0.15, "attack_steps": 3}


def train(out, method, **changes):
    """On the digits as they are, 8x8: they are learned as well as larger ones, in a sixteenth of the time."""
    changes = FAST | {"method": method} | (ATTACK if method not in ("standard", "noise") else {}) | changes
    return start_cnn("digits", out, width=4, image_size=8, changes=changes, say=lambda text: None)


def test_adversarial_training_holds_where_standard_training_falls(tmp_path):
    """The same attack on both: validation images under PGD, measured here and not by the trainer."""
    images = data.load("digits", split="validation", image_size=8)
    x, classes = images.images.float().div(255), images.labels
    robust = {}
    for method in ("standard", "pgd-at"):
        result = train(tmp_path / method, method)
        assert result.step == result.steps
        model = open_model(str(tmp_path / method))
        worst = x.clone()
        for _ in range(15):
            worst.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(worst), classes), worst)
            worst = torch.clamp(worst.detach() + 0.02 * gradient.sign(), x - 0.15, x + 0.15).clamp(0, 1)
        robust[method] = (model(worst).argmax(1) == classes).float().mean().item()
    assert robust["standard"] < 0.3
    assert robust["pgd-at"] > robust["standard"] + 0.2


def test_an_impossible_eps_leaves_no_folder(tmp_path):
    with pytest.raises(IDCError, match="8/255"):
        train(tmp_path / "run", "pgd-at", eps=8.0)
    assert not (tmp_path / "run").exists()


def test_validation_does_not_depend_on_sharding(tmp_path):
    """The start of an image's attack is its own: two shards find together what one process finds."""
    images = data.load("digits", split="validation", image_size=8, limit=40)
    torch.manual_seed(0)
    model = CNN(CNNConfig("preact-resnet18", 10, (1, 8, 8), width=2)).eval()
    objective = CNNObjective(model, CNNRecipe(eps=0.02))
    objective.to(torch.device("cpu"), bf16=False)

    def counts(*shard):
        return objective.validate(model.network, images, final=True, bf16=False, shard=shard)

    assert torch.equal(counts(0, 2) + counts(1, 2), counts(0, 1))


@pytest.mark.parametrize("method", ["trades", "mart", "noise"])
def test_the_other_methods_learn(tmp_path, method):
    result = train(tmp_path / "run", method)
    assert result.accuracy is not None
    assert result.accuracy.shares()["clean"] > 0.5
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert kept["recipe"]["method"] == method
    told = (tmp_path / "run" / "metrics.jsonl").read_text()
    own = {"trades": "natural", "mart": "boosted"}
    assert [name for name in own.values() if name in told] == [own[m] for m in own if m == method]


@pytest.mark.parametrize(("method", "attack"), [("pgd-at", 3), ("trades", 4), ("mart", 3)])
def test_the_attack_on_a_cnn_takes_no_gradient_of_its_weights(method, attack):
    model = CNN(CNNConfig("preact-resnet18", 4, (1, 8, 8), width=2))
    objective = CNNObjective(model, CNNRecipe(method=method, eps=0.1, attack_steps=3))
    objective.to(torch.device("cpu"), bf16=False)
    objective.begin(0.5, replay=0)
    seen = watched(objective.network)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = objective.loss(objective.network, images, torch.arange(6) % 4, torch.Generator().manual_seed(3))
    loss["total"].backward()
    assert seen == [False] * attack + [True]
    assert all(p.grad is not None for p in objective.network.parameters())


def small_cnn(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CNN(CNNConfig("preact-resnet18", 4, (1, 8, 8), width=8))
    objective = CNNObjective(model, CNNRecipe(eps=0.1, attack_steps=2, **changes))
    objective.to(torch.device("cpu"), bf16=False)
    return objective


def test_the_weights_of_a_cnn_are_shifted_uphill_and_come_back():
    """By the published share of each weight's norm (AWP), along the gradient of the loss that is then taken there."""
    images, classes = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 4
    found = []
    for share in (0.01, 0.0):
        objective = small_cnn(weight_perturbation=share)
        objective.begin(0.5, replay=0)
        before = {name: p.detach().clone() for name, p in objective.network.named_parameters()}
        found.append(objective.loss(objective.network, images, classes, torch.Generator().manual_seed(3))["total"])
        shares = torch.stack([
            (p - before[n]).norm() / before[n].norm() for n, p in objective.network.named_parameters() if p.ndim > 1
        ]).detach()  # fmt: skip
        torch.testing.assert_close(shares, torch.full_like(shares, share), rtol=1e-2, atol=1e-6)
        found[-1].backward()
        objective.end()
        assert all(torch.equal(p, before[name]) for name, p in objective.network.named_parameters())
    assert found[0] > found[1]


def test_radius_and_step_rise_together_to_the_end_of_the_run():
    """ACAT: the radius is the done share of eps, and a step is as long as it."""
    objective, radii = small_cnn(eps_warmup=1.0, step_share=1.0), []
    for done in (0.0, 0.25, 0.5, 0.75):
        objective.begin(done, replay=0)
        radii.append((objective.eps, objective.step_length(0.02), objective.attacks))
    assert [r[0] for r in radii] == pytest.approx([0.0, 0.025, 0.05, 0.075])
    assert [r[1] for r in radii[1:]] == pytest.approx([r[0] for r in radii[1:]])
    assert [r[2] for r in radii] == [False, True, True, True]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "standard", "weight_perturbation": 0.01}, "weight_perturbation = 0.01 with method = standard"),
        ({"method": "noise", "eps_warmup": 1.0}, "eps_warmup = 1 with method = noise"),
        ({"awp_start": 0.1}, "awp_start = 0.1: expected weight_perturbation"),
        ({"attack_step": 0.1, "step_share": 1.0}, "attack_step = 0.1 with step_share = 1"),
        ({"method": "mart", "mix": "cutmix"}, "mix = cutmix with method = mart"),
        ({"method": "mart", "label_smoothing": 0.1}, "label_smoothing = 0.1 with method = mart"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, words):
    with pytest.raises(IDCError, match=words):
        CNNRecipe(**wrong)
