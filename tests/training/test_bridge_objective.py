"""A bridge trained under attack: what its loss is of, and that it holds where another falls."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from idc import IDC, data
from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands.train import start_training
from idc.errors import IDCError
from idc.noise import Streams
from idc.training.bridge_objective import BridgeObjective
from idc.training.recipe import RECIPES
from idc.training.robust_losses import mart, trades
from idc.training.targets import rectified
from tiny import tiny_model
from watched import watched


def bridging(labels=None, /, **changes):
    model = tiny_model(4, (1, 8, 8), **(labels or {}))
    objective = BridgeObjective(model, replace(RECIPES["digits"], precision="fp32", **changes))
    objective.to(torch.device("cpu"), bf16=False)
    objective.begin(0.5, replay=0)
    return model, objective


IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(6) % 4


def loss_of(objective, images=IMAGES, seed=3):
    return objective.loss(objective.network, images, CLASSES, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("labels", [{}, {"label_kind": "low-frequency"}])
def test_the_surrogate_is_the_models_own(labels):
    """Cross-entropy follows the inner product that an adaptive attack would, up to the temperature."""
    model, objective = bridging(labels, eps=0.1)
    mine = objective._surrogate(model.unet, IMAGES) * 0.005
    theirs = model.surrogates()["one-step-inner"](IMAGES) * model.config.temperature
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_attack_stays_in_the_ball_and_raises_the_loss(norm, steps):
    model, objective = bridging(eps=0.1, norm=norm, attack_steps=steps)
    model.unet.train()
    found = objective._attacked(IMAGES, CLASSES, torch.Generator().manual_seed(0))
    assert model.unet.training
    assert (Threat(norm, 0.1).size(found, IMAGES) <= 0.1 + 1e-6).all()
    before, after = (F.cross_entropy(objective._surrogate(model.unet, x), CLASSES) for x in (IMAGES, found))
    assert after > before
    assert all(p.grad is None for p in model.unet.parameters())


def test_the_attack_takes_no_gradient_of_the_weights():
    _, objective = bridging(eps=0.1, attack_steps=3)
    seen = watched(objective.network)
    loss_of(objective)["total"].backward()
    assert seen == [False, False, False, True]
    assert all(p.grad is not None for p in objective.network.parameters())


def test_the_loss_is_that_of_the_attacked_images(monkeypatch):
    moved = IMAGES.flip(0)
    _, attacked = bridging(eps=0.1)
    monkeypatch.setattr(attacked, "_attacked", lambda *_: moved)
    _, plain = bridging()
    found, expected = loss_of(attacked), loss_of(plain, moved)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_consistency_is_the_distance_of_the_predictions(monkeypatch):
    """The loss of clean images as they are, and the L1 distance of both x0 predictions at the same t and noise."""
    moved = (IMAGES + 0.05).clamp(0, 1)
    model, objective = bridging(eps=0.1, method="consistency", beta=2.0)
    monkeypatch.setattr(objective, "_attacked", lambda *_: moved)
    found, clean = loss_of(objective), loss_of(bridging()[1])
    torch.testing.assert_close(found["intra"], clean["intra"])
    torch.testing.assert_close(found["total"], clean["total"] + 2 * found["consistency"])
    random = torch.Generator().manual_seed(3)
    t = torch.multinomial(objective.t_weights, 6, replacement=True, generator=random)
    eps = torch.randn(IMAGES.shape, generator=random)
    samples = [model.bridge.sample(objective.labels[CLASSES], 2 * x - 1, t, eps) for x in (IMAGES, moved)]
    x0 = [s.x_t - model.unet(s.x_t, t, s.y) for s in samples]
    torch.testing.assert_close(found["consistency"], (x0[1] - x0[0]).abs().mean())


@pytest.mark.parametrize("method", ["trades", "mart"])
def test_trades_and_mart_take_the_place_of_the_cross_entropy(monkeypatch, method):
    """The bridge's losses of clean images (TRADES) or attacked ones (MART), and the published loss of the distances."""
    moved = (IMAGES + 0.05).clamp(0, 1)
    weights = {"ce_weight": 0.5, "ce_temperature": 0.1, "t_weights": (0.0, 0.0, 0.0, 1.0)}
    model, objective = bridging(eps=0.1, method=method, beta=3.0, **weights)
    monkeypatch.setattr(objective, "_attacked", lambda *_: moved)
    _, bare = bridging(**weights | {"ce_weight": 0.0})
    found, bridge = loss_of(objective), loss_of(bare, IMAGES if method == "trades" else moved)
    for name in ("intra", "inter"):
        torch.testing.assert_close(found[name], bridge[name])
    random = torch.Generator().manual_seed(3)
    t = torch.multinomial(objective.t_weights, 6, replacement=True, generator=random)
    eps = torch.randn(IMAGES.shape, generator=random)
    samples = [model.bridge.sample(objective.labels[CLASSES], 2 * x - 1, t, eps) for x in (IMAGES, moved)]
    logits = [
        -((s.x_t - model.unet(s.x_t, t, s.y))[:, None] - objective.labels[None]).abs().mean((2, 3, 4)) / 2 / 0.1
        for s in samples
    ]
    published = {"trades": trades, "mart": mart}[method](*logits, CLASSES, 3.0)["total"]
    torch.testing.assert_close(found["total"], bridge["total"] + 0.5 * published)


def test_the_attack_of_trades_climbs_the_divergence():
    """Further from the answer to the clean image than the attack that climbs the cross-entropy, and within the ball."""
    model, objective = bridging(eps=0.1, method="trades", ce_weight=1.0, attack_steps=5, attack_temperature=0.1)
    _, plain = bridging(eps=0.1, attack_steps=5, attack_temperature=0.1)
    found = objective._attacked(IMAGES, CLASSES, torch.Generator().manual_seed(0))
    other = plain._attacked(IMAGES, CLASSES, torch.Generator().manual_seed(0))
    assert (Threat("linf", 0.1).size(found, IMAGES) <= 0.1 + 1e-6).all()
    clean, mine, theirs = (objective._surrogate(model.unet, x).softmax(1) for x in (IMAGES, found, other))
    away = [(clean * (clean.log() - x.log())).sum().item() for x in (mine, theirs)]
    assert away[0] > away[1] > 0


def test_the_hinge_is_added_by_its_weight():
    _, plain = bridging(t_weights=(0.0, 0.0, 0.0, 1.0))
    _, hinged = bridging(t_weights=(0.0, 0.0, 0.0, 1.0), hinge_weight=2.0, hinge_margin=0.3)
    found, before = loss_of(hinged), loss_of(plain)
    assert found["hinge"] > 0
    torch.testing.assert_close(found["total"], before["total"] + 2 * found["hinge"])


def test_weights_are_shifted_uphill_and_come_back():
    model, objective = bridging(eps=0.1, weight_perturbation=0.01)
    _, still = bridging(eps=0.1)
    before = {name: p.detach().clone() for name, p in model.unet.named_parameters()}
    shifted = loss_of(objective)["total"]
    assert shifted > loss_of(still)["total"]
    shares = [(p - before[n]).norm() / before[n].norm() for n, p in model.unet.named_parameters() if p.ndim > 1]
    moved = torch.stack(shares)[torch.stack(shares) > 0]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-2, atol=0)
    shifted.backward()
    objective.end()
    assert all(torch.equal(p, before[name]) for name, p in model.unet.named_parameters())


def test_the_statistics_of_batch_norm_are_those_of_the_step_alone():
    """Neither the attack nor the shift of the weights leaves a trace in them."""
    found = []
    for share in (0.0, 0.01):
        torch.manual_seed(0)
        model = tiny_model(4)
        model = IDC(replace(model.config, unet=replace(model.config.unet, norm="batch")))
        objective = BridgeObjective(
            model, replace(RECIPES["digits"], precision="fp32", eps=0.1, weight_perturbation=share)
        )
        objective.to(torch.device("cpu"), bf16=False)
        objective.begin(0.5, replay=0)
        model.unet.train()
        fresh = [b.clone() for b in model.unet.buffers()]
        objective._attacked(IMAGES, CLASSES, torch.Generator().manual_seed(0))
        assert all(map(torch.equal, model.unet.buffers(), fresh))
        loss_of(objective)["total"].backward()
        objective.end()
        found.append({k: v.clone() for k, v in model.unet.named_buffers()})
    assert {v.item() for k, v in found[0].items() if "num_batches" in k} == {1}
    for name, value in found[1].items():
        torch.testing.assert_close(value, found[0][name], msg=name)


def test_the_averaged_network_answers_the_clean_image_for_the_target():
    """Its own one-step answer, at the temperature of the cross-entropy; another network gives other targets."""
    _, objective = bridging(eps=0.1, ce_weight=1.0, ce_temperature=0.1, rectify=(0.6, 0.9))
    other = tiny_model(4, (1, 8, 8), seed=5)
    objective.follow(lambda: other.unet.train())
    images, made = objective.batch(IMAGES, CLASSES, torch.Generator())
    assert torch.equal(images, IMAGES)
    assert other.unet.training
    other.unet.eval()
    x0_hat = 2 * IMAGES - 1 - other.unet(2 * IMAGES - 1, torch.tensor(3), 2 * IMAGES - 1)
    distances = (x0_hat[:, None] - objective.labels[None]).abs().mean((2, 3, 4)) / 2
    found = (-distances / 0.1 / 1.5).softmax(1)  # halfway from 2 to 1, and from 0.6 to 0.9
    torch.testing.assert_close(made.answer, rectified(CLASSES, found, 0.75), rtol=1e-4, atol=1e-5)
    assert not made.answer.requires_grad
    seen = []
    objective._attacked = lambda images, answer, random: seen.append(answer) or images
    loss_of(objective)
    torch.testing.assert_close(seen[0], made.answer)  # the attack raises what the loss falls towards


@pytest.mark.parametrize(("done", "shifted"), [(0.0, False), (0.29, False), (0.3, True), (0.9, True)])
def test_weights_are_perturbed_from_a_share_of_the_run_on(done, shifted):
    model, objective = bridging(eps=0.1, weight_perturbation=0.01, awp_start=0.3)
    before = model.unet.net.conv_out.weight.detach().clone()
    objective.begin(done, replay=0)
    loss_of(objective)
    assert torch.equal(model.unet.net.conv_out.weight, before) != shifted


def test_free_training_climbs_by_the_gradient_of_its_own_loss():
    """Each replay goes one step from where the last one stood, along the sign of what the backward pass left."""
    model, objective = bridging(eps=0.1, replays=3)
    seen = []
    for replay in range(4):
        objective.begin(0.5, replay=replay % 3)
        loss = objective.loss(
            lambda x, t, y: seen.append((y + 1) / 2) or model.unet(x, t, y), IMAGES, CLASSES,
            torch.Generator().manual_seed(3),
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss["total"], objective.moved, retain_graph=True)
        expected = (seen[-1].detach() + 0.1 * gradient.sign()).clamp(IMAGES - 0.1, IMAGES + 0.1).clamp(0, 1)
        loss["total"].backward()
        objective.end()
        torch.testing.assert_close(objective.moved, expected)
    torch.testing.assert_close(seen[1], seen[1].clamp(IMAGES - 0.1, IMAGES + 0.1).clamp(0, 1))
    assert not torch.allclose(seen[1], seen[0], atol=0.01)
    assert not torch.allclose(seen[2], seen[1], atol=0.01)
    torch.testing.assert_close(seen[3], seen[0])  # a new batch starts anew


@pytest.mark.parametrize("wrong", [{"eps": 0.0, "replays": 2}, {"eps": 0.1, "replays": 2, "method": "consistency"}])
def test_free_training_needs_an_attack_of_its_own(wrong):
    with pytest.raises(IDCError, match="replays"):
        replace(RECIPES["digits"], **wrong)


def test_a_rollout_is_what_the_chain_meets():
    """x_t where the chain 3 -> t arrives, and the target that takes it to the label; at T-1 nothing changes."""
    model, objective = bridging(rollout=1.0, t_weights=(1.0, 0.0, 0.0, 0.0))
    seen = []
    random = torch.Generator().manual_seed(3)
    terms = objective.loss(
        lambda x, t, y: seen.append(x) or torch.zeros_like(x), IMAGES, CLASSES, random
    )  # fmt: skip
    # x_T is the image itself: the reverse step to t injects all of the bridge's noise at t.
    random = torch.Generator().manual_seed(3)
    torch.multinomial(torch.tensor([1.0, 0.0, 0.0, 0.0]), 6, replacement=True, generator=random)
    eps = torch.randn(IMAGES.shape, generator=random)
    y = 2 * IMAGES - 1
    x0_hat = 2 * model.one_step.translate(IMAGES) - 1
    m, var = 0.001, 2 * (0.001 - 0.001**2)
    torch.testing.assert_close(seen[0], (1 - m) * x0_hat + m * y + var**0.5 * eps, rtol=1e-4, atol=1e-4)
    away = (seen[0] - objective.labels[CLASSES]).abs().mean()
    torch.testing.assert_close(terms["intra"], away, rtol=1e-4, atol=1e-5)  # of a network that answers 0
    model, objective = bridging(rollout=1.0, t_weights=(0.0, 0.0, 0.0, 1.0))
    _, plain = bridging(t_weights=(0.0, 0.0, 0.0, 1.0))
    torch.testing.assert_close(loss_of(objective)["total"], loss_of(plain)["total"])


def test_both_copies_of_an_image_are_rolled_out_or_neither(monkeypatch):
    """The consistency compares predictions at the same point of the bridge."""
    _, objective = bridging(eps=0.1, method="consistency", beta=1.0, rollout=0.5, t_weights=(1.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(objective, "_attacked", lambda *_: IMAGES.repeat(20, 1, 1, 1))
    seen = []
    objective.loss(
        lambda x, t, y: seen.append(x) or torch.zeros_like(x), IMAGES.repeat(20, 1, 1, 1), CLASSES.repeat(20),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    clean, attacked = seen[0].chunk(2)
    torch.testing.assert_close(clean, attacked)
    label = objective.labels[CLASSES].repeat(20, 1, 1, 1)
    shown = ((clean - label).abs().mean((1, 2, 3)) < 0.1).float().mean().item()
    assert shown == pytest.approx(0.5, abs=0.15)  # the rest show what a fresh network predicts


def test_eps_rises_and_noise_is_added():
    _, objective = bridging(eps=0.1, eps_warmup=0.5)
    radii = []
    for done in (0.0, 0.25, 0.5, 0.9):
        objective.begin(done, replay=0)
        radii.append(objective.eps)
    assert radii == pytest.approx([0.0, 0.05, 0.1, 0.1])
    seen = []
    model, noisy = bridging(sigma=0.1)
    grey = torch.full_like(IMAGES, 0.5)  # five sigma from either end
    noisy.loss(lambda x, t, y: seen.append(y) or model.unet(x, t, y), grey, CLASSES, torch.Generator().manual_seed(0))
    noise = (seen[0] + 1) / 2 - grey
    assert noise.std().item() == pytest.approx(0.1, rel=0.15)
    _, noisy = bridging(sigma=2.0)
    noisy.loss(lambda x, t, y: seen.append(y) or model.unet(x, t, y), grey, CLASSES, torch.Generator().manual_seed(0))
    assert seen[1].abs().max() == 1  # as a model takes its images


def test_an_idc_trained_under_attack_holds_where_another_falls(tmp_path):
    """Validation images under an attack that is not the trainer's; and the trainer's own count of it is near."""
    file = tmp_path / "network.yaml"
    file.write_text("base_channels: 16\nmultipliers: [1]\ngroups: 4\nhead_channels: 16\npatch: 8\nresidual: true\n"
                    "position_channels: 8\nmiddle_attention: false\n")  # fmt: skip
    images = data.load("digits", split="validation", limit=200)
    x, classes = images.images.float().div(255), images.labels
    robust, noted = {}, {}
    for eps in (0.0, 0.1):
        changes = {"epochs": 4, "validate_every": 4, "checkpoint_every": 4, "precision": "fp32", "eps": eps,
                   "ce_weight": 1.0, "attack_steps": 2, "lr": 6e-3}  # fmt: skip
        out = tmp_path / str(eps)
        start_training("digits", out, preset=str(file), visits=(3,), changes=changes, say=lambda text: None)
        model = IDC.from_pretrained(out / "last")
        target = Target.of(model.one_step)
        attack = pgd(Threat("linf", 0.1), surrogate="one-step-inner", objective=Margin(), steps=10)
        worst = attack(target, x, classes, Streams(images.ids, 0))
        robust[eps] = (model.one_step(worst).argmax(1) == classes).float().mean().item()
        noted[eps] = json.loads((out / "summary.json").read_text())["validation"]
    assert robust[0.0] < 0.35
    assert robust[0.1] > robust[0.0] + 0.3
    assert not {"eps", "attacked_one_step", "attacked_by"} & set(noted[0.0])
    assert abs(noted[0.1]["attacked_one_step"] - robust[0.1]) < 0.03
    assert noted[0.1]["attacked_by"] == "PGD-10 on the margin"
