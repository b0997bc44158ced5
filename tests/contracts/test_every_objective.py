"""What the trainer relies on in every training objective: IDC's, the peers', and a user's by its name."""

import pytest
import torch

from idc.commands.plugins import plugin
from idc.data import ImageSet
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.training.bridge_objective import BridgeObjective
from idc.training.cnn_objective import CNNObjective
from idc.training.noise_objective import NoiseObjective
from idc.training.objective import TrainingObjective
from idc.training.recipe import CNNRecipe, NoiseRecipe, Recipe
from tiny import tiny_model

SHAPE = (1, 8, 8)
# Of fewer channels, torch 2.13's convolutions of 1x1 pixels write beyond their memory in the backward pass.
WIDTH = 8
AWP = {"eps": 0.1, "weight_perturbation": 0.01, "attack_steps": 1}
UNDER = AWP | {"ce_weight": 1.0}


def cnn(**changes):
    return CNNObjective(
        CNN(CNNConfig("preact-resnet18", 4, SHAPE, width=WIDTH)), CNNRecipe(attack_steps=1, **changes)
    )  # fmt: skip


OBJECTIVES = {
    "bridge": lambda: BridgeObjective(tiny_model(), Recipe()),
    "bridge, attacked": lambda: BridgeObjective(tiny_model(), Recipe(**AWP)),
    "cnn": lambda: cnn(),
    "bridge, trades": lambda: BridgeObjective(tiny_model(), Recipe(**UNDER, method="trades")),
    "bridge, mart": lambda: BridgeObjective(tiny_model(), Recipe(**UNDER, method="mart", hinge_weight=1.0)),
    "bridge, mixed": lambda: BridgeObjective(
        tiny_model(), Recipe(**UNDER, mix="cutmix", label_smoothing=0.1, t_weights=(0.0, 0.0, 0.0, 1.0))
    ),
    "cnn, mart": lambda: cnn(method="mart", weight_perturbation=0.01),
    "cnn, two halves": lambda: cnn(strong_branch=True, method="trades"),
    "cnn, mixed": lambda: cnn(mix="cutmix", label_smoothing=0.1),
    "ddpm": lambda: NoiseObjective(Diffusion(DiffusionConfig(SHAPE, 4, channels=(8, 8), groups=4)), NoiseRecipe()),
    "plug-in": lambda: plugin(
        "plugin_examples:IntraOnly", TrainingObjective, lambda own: own(tiny_model(), Recipe()), ""
    ),
}
GREY = torch.randint(0, 256, (12, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
DATA = ImageSet(GREY, torch.arange(12) % 4, torch.arange(12), tuple("abcd"), "toys", "train", "")


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = OBJECTIVES[request.param]()
    made.check(DATA)
    made.to(torch.device("cpu"), bf16=False)
    return made


def step(objective: TrainingObjective) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The terms of a step, and the gradient of all its weights; dropout and the like draw from a fork."""
    objective.network.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective.begin(0.5, replay=0)
        images = DATA.images.float() / 255
        terms = objective.loss(objective.network, images, DATA.labels, torch.Generator().manual_seed(1))
        terms["total"].backward()
        objective.end()
    gradient = [p.grad.flatten() for p in objective.network.parameters() if p.grad is not None]
    return terms, torch.cat(gradient)


def test_a_step_moves_the_loss_and_nothing_else(objective):
    assert isinstance(objective, TrainingObjective)
    objective.network.train()
    before = {k: v.clone() for k, v in objective.network.named_parameters()}
    terms, gradient = step(objective)
    assert all(value.shape == () and torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(gradient).all()
    assert gradient.any()
    assert all(torch.equal(v, before[k]) for k, v in objective.network.named_parameters())


def test_the_step_follows_from_its_generator(objective):
    objective.network.eval()
    (first, gradient), (again, same) = step(objective), step(objective)
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}
    assert torch.equal(gradient, same)


def test_the_counts_of_shards_add_up(objective):
    state = torch.get_rng_state()
    network = objective.network.eval()
    whole = objective.validate(network, DATA, final=False, bf16=False, shard=(0, 1))
    parts = [objective.validate(network, DATA, final=False, bf16=False, shard=(rank, 2)) for rank in (0, 1)]
    torch.testing.assert_close(parts[0] + parts[1], whole)
    assert torch.equal(torch.get_rng_state(), state)
    found = objective.judged(whole, final=False)
    assert found.images == 12
    assert objective.restored(found.to_dict()) == found
    assert found.text()


def test_saved_weights_come_back(objective, tmp_path):
    network = objective.network
    kept = {k: v.clone() for k, v in network.state_dict().items()}
    objective.save(network, tmp_path, {"Data": "toys"})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    objective.load(network, tmp_path)
    assert all(torch.equal(v, kept[k]) for k, v in network.state_dict().items())
