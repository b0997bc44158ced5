"""Distillation: what trained models answer together is the target, whatever their kind, scale and order of classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from idc import IDC, data
from idc.commands.train import start_training
from idc.commands.train_peers import start_cnn
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.storage.yaml_file import read_yaml
from idc.training.bridge_objective import BridgeObjective
from idc.training.cnn_objective import CNNObjective
from idc.training.recipe import CNN_RECIPES, RECIPES, CNNRecipe, Recipe
from idc.training.settings import override
from idc.training.targets import rectified
from idc.training.teachers import Teachers
from tiny import tiny_model
from tiny_training import SMALL

NAMES = tuple("0123456789")
CPU, SHAPE = torch.device("cpu"), (1, 32, 32)


def cnn(names=NAMES, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CNN(CNNConfig("preact-resnet18", len(names), SHAPE, 4, names)).eval()


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", split="train", limit=200)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An IDC, and a CNN whose classes are in another order."""
    folder = tmp_path_factory.mktemp("teachers")
    changes = {"epochs": 4.0, "method": "standard", "batch_size": 32, "lr": 0.05}
    start_cnn("digits", folder / "run", width=4, recipe="digits", limit=600, changes=changes)
    trained, other = CNN.from_pretrained(folder / "run"), cnn(NAMES[::-1])
    state = trained.state_dict()
    last = [name for name, value in state.items() if len(value.shape) and len(value) == 10]
    assert len(last) == 2  # weights and biases of the last layer
    other.load_state_dict(state | {name: state[name].flip(0) for name in last})
    other.save_pretrained(folder / "cnn")
    return ["idc-digits-robust", str(folder / "cnn")]


def ready(names, train):
    teachers = Teachers(names)
    teachers.check(train)
    teachers.to(CPU, bf16=False)
    return teachers


def test_their_answer_is_the_mean_of_probabilities_each_at_its_likeliest_temperature(digits, saved):
    images, classes = digits.images.float().div(255), digits.labels.numpy()
    with torch.no_grad():
        own = IDC.from_pretrained(saved[0])(images).double().numpy()
        other = CNN.from_pretrained(saved[1])(images).double().numpy()[:, ::-1]
    assert min((z.argmax(1) == classes).mean() for z in (own, other)) > 0.4

    def best(logits):
        # Platt's targets: of so many images no certainty follows.
        wanted = np.full(logits.shape, 1 / (len(classes) + 2) / 9)
        wanted[np.arange(len(classes)), classes] = 1 - 1 / (len(classes) + 2)

        def loss(log_heat):
            return -(wanted * log_softmax(logits / np.exp(log_heat), 1)).mean()

        return np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-8}).x)

    teachers = ready(saved, digits)
    assert teachers.temperatures == pytest.approx([best(own), best(other)], rel=1e-3)
    heated = [np.exp(log_softmax(z / (3 * t), 1)) for z, t in zip((own, other), teachers.temperatures, strict=True)]
    found = teachers(images, heat=3.0)
    np.testing.assert_allclose(found.numpy(), np.mean(heated, 0), atol=1e-5)
    assert not found.requires_grad


def test_one_that_draws_noise_answers_in_one_step(tmp_path, digits):
    model = tiny_model(10, SHAPE, class_names=NAMES)
    assert model.stochastic
    model.save_pretrained(tmp_path / "chain")
    first, again = (ready([str(tmp_path / "chain")], digits) for _ in range(2))
    assert first.temperatures == again.temperatures
    images = digits.images[:8].float().div(255)
    found = first(images, heat=2.0)
    torch.testing.assert_close(found, (model.one_step(images) / (2 * first.temperatures[0])).softmax(1))


def test_half_precision_is_near(digits, saved):
    images = digits.images.float().div(255)
    teachers = ready(saved, digits)
    exact = teachers(images, heat=2.0)
    teachers.to(CPU, bf16=True)
    rounded = teachers(images, heat=2.0)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (lambda: tiny_model(4, SHAPE), r"10 classes of shape \(1, 32, 32\).*4 of \(1, 32, 32\), as the teacher "),
        (lambda: tiny_model(10, (1, 8, 8)), r"as the teacher .*give --image-size 8 --channels 1"),
        (
            lambda: tiny_model(10, SHAPE, class_names=(*NAMES[:9], "j")),
            "classes such as 9, which the teacher .* does not know: expected its own: 0, 1, 2, 3, 4, 5, 6, 7, 8, j",
        ),
    ],
)
def test_a_teacher_of_other_images_or_classes_is_refused(tmp_path, digits, teacher, words):
    teacher().save_pretrained(tmp_path / "teacher")
    with pytest.raises(IDCError, match=words):
        Teachers([str(tmp_path / "teacher")]).check(digits)


def test_a_name_of_no_model_is_refused(tmp_path):
    with pytest.raises(IDCError, match="a model folder"):
        Teachers([str(tmp_path / "none")])


@pytest.mark.parametrize("kind", ["idc", "cnn"])
def test_the_target_is_made_of_their_answer_to_the_image_as_it_is(digits, saved, kind):
    """For the loss and for the attack, at the temperature and with the share of this moment of the run."""
    soft = {"eps": 0.1, "rectify": (0.6, 0.9), "rectify_temperature": (3.0, 1.0), "teachers": tuple(saved)}
    if kind == "idc":
        recipe = replace(RECIPES["digits"], precision="fp32", ce_weight=1.0, **soft)
        objective = BridgeObjective(tiny_model(10, SHAPE), recipe)
    else:
        objective = CNNObjective(cnn(seed=5), replace(CNN_RECIPES["digits"], precision="fp32", **soft))
    objective.check(digits)
    objective.to(CPU, bf16=False)
    objective.follow(lambda: pytest.fail("the averaged network is not asked"))
    objective.begin(0.5, replay=0)
    images, classes = digits.images[:8].float().div(255), digits.labels[:8]
    expected = rectified(classes, ready(saved, digits)(images, heat=2.0), 0.75)
    seen = []
    objective._attacked = lambda images, answer, random: seen.append(answer) or images
    objective.network.eval()
    objective.loss(objective.network, images, classes, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0], expected)


def test_teachers_need_a_share_and_spare_the_average():
    for kind in (Recipe(ce_weight=1.0), CNNRecipe()):
        with pytest.raises(IDCError, match=r"teachers = a,b: expected rectify beside it"):
            override(kind, {"teachers": "a,b"})
        changes = {"teachers": "a,b", "rectify": "1,1", "ema_decay": 0.0}
        assert override(kind, changes).teachers == ("a", "b")


def test_a_run_says_who_taught_it(tmp_path, network, saved):
    changes = SMALL | {"teachers": tuple(saved), "rectify": (1.0, 1.0), "ce_weight": 0.1}
    out = tmp_path / "run"
    found = start_training("digits", out, preset=network, limit=128, changes=changes)
    assert (found.step, found.steps) == (16, 16)
    assert read_yaml(out / "recipe.yaml", remedy="")["teachers"] == saved
    assert "teachers" in (out / "best" / "README.md").read_text()


def test_a_run_does_not_go_on_with_another_teacher_of_that_name(tmp_path, network):
    def train(seed, resume=False):
        tiny_model(10, SHAPE, seed=seed, class_names=NAMES).save_pretrained(tmp_path / "teacher")
        taught = {"teachers": (str(tmp_path / "teacher"),), "rectify": (1.0, 1.0), "ce_weight": 0.1}
        changes = SMALL | {"epochs": 0.5} | taught
        start_training("digits", tmp_path / "run", preset=network, limit=64, changes=changes, resume=resume)

    train(0)
    train(0, resume=True)
    with pytest.raises(IDCError, match="teachers_sha256"):
        train(1, resume=True)
