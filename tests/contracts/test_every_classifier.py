"""What an evaluation relies on in every classifier: IDC in each of its answers, and a user's wrapped module."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from idc.attacks.target import ANSWER, Target
from idc.commands.opening import open_model
from idc.cost import peak_bytes
from idc.errors import IDCError
from idc.evaluation.adapter import Wrapped, as_classifier
from idc.noise import Streams
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.peers.diffusion_classifier import DiffusionClassifier
from idc.types import Classifier
from noise_models import Linear, Noisy
from tiny import tiny_model

SHAPE = (1, 8, 8)


def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


class RandomInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, images):
        return self.net(images + 0.3 * torch.randn_like(images))


def small_cnn(arch: str = "preact-resnet18") -> CNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CNN(CNNConfig(arch, 4, SHAPE, width=2)).eval()


def small_diffusion(num_classes: int) -> Diffusion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Diffusion(DiffusionConfig(SHAPE, num_classes, channels=(8, 8), groups=4)).eval()


CLASSIFIERS = {
    "idc": tiny_model(),
    "idc, one step": tiny_model().one_step,
    "idc, eta 0": tiny_model().with_answer(eta=0.0),
    "linear": Linear(shape=SHAPE),
    "noisy": Noisy(shape=SHAPE),
    "cnn": small_cnn(),
    "diffpure": DiffPure(small_diffusion(0), small_cnn(), depth=0.02, steps=4),
    "zdc": DiffusionClassifier(small_diffusion(4), timesteps=10),
    "zdc, elbo": DiffusionClassifier(small_diffusion(4), timesteps=10, weights="elbo"),
    "rdc": DiffusionClassifier(small_diffusion(4), timesteps=10, maximise=2),
    "wrapped": Wrapped(plain(), input_shape=SHAPE),
    "plug-in": Wrapped(open_model("plugin_examples:model"), input_shape=SHAPE),
    "wrapped, random": Wrapped(RandomInput(), input_shape=SHAPE),
}
IMAGES = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_offers_what_the_protocol_names(name):
    model = CLASSIFIERS[name]
    assert isinstance(model, Classifier)
    assert (model.num_classes, tuple(model.input_shape)) == (4, SHAPE)
    for function in [model, *model.surrogates().values()]:
        x = IMAGES.clone().requires_grad_()
        logits = function(x)
        assert logits.shape == (3, 4)
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_says_truly_whether_it_is_stochastic(name):
    model = CLASSIFIERS[name]
    with torch.no_grad():
        assert torch.equal(model(IMAGES), model(IMAGES)) is not model.stochastic


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_images_logits_do_not_depend_on_its_batch(name):
    target, streams = Target.of(CLASSIFIERS[name]), Streams(torch.tensor([5, 6, 7]), 0)
    together = target.logits(ANSWER, IMAGES, streams, draws=2)
    alone = target.logits(ANSWER, IMAGES[1:2], streams.take(torch.tensor([1])), draws=2)
    torch.testing.assert_close(alone[:, 0], together[:, 1], rtol=1e-4, atol=1e-5)


def test_judging_is_what_predict_does():
    model, ids = tiny_model(), torch.tensor([5, 6, 7])
    expected = model.predict(IMAGES, draws=7, ids=ids, seed=3)
    logits = Target.of(model).logits(ANSWER, IMAGES, Streams(ids, 3), draws=7)
    votes = nn.functional.one_hot(logits.argmax(2), 4).float().mean(0)
    torch.testing.assert_close(votes, expected.votes)
    torch.testing.assert_close(-logits.mean(0) * model.config.temperature, expected.distances, rtol=1e-4, atol=1e-6)


def test_checkpointing_changes_memory_and_nothing_else():
    def gradient(model):
        x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        noise = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        (found,) = torch.autograd.grad(model(x, noise=noise).square().sum(), x)
        return found

    plain_model, saving = tiny_model(), tiny_model()
    saving.checkpointing = True
    torch.testing.assert_close(gradient(saving), gradient(plain_model))
    peak = partial(peak_bytes, device=torch.device("cpu"))
    assert peak(lambda: gradient(saving)) < 0.7 * peak(lambda: gradient(plain_model))


def test_a_classifier_is_taken_as_it_is_and_others_are_refused():
    model = Linear(shape=SHAPE)
    assert as_classifier(model, input_shape=SHAPE) is model
    with pytest.raises(IDCError, match=r"torch\.nn\.Module"):
        as_classifier(lambda x: x, input_shape=SHAPE)
    with pytest.raises(IDCError, match=r"takes images .*\(RuntimeError: .*IDC_TRACEBACK=1 shows where"):
        Wrapped(nn.Linear(3, 4), input_shape=SHAPE)
    with pytest.raises(IDCError, match="returns logits"):
        Wrapped(nn.Identity(), input_shape=SHAPE)


class Own(nn.Module):
    """A user's module that says what it has to, and no more."""

    num_classes, input_shape, stochastic = 4, SHAPE, False

    def surrogates(self):
        return {}

    def forward(self, images):
        return images.flatten(1)[:, :4]


def test_what_a_users_module_does_not_say_is_completed():
    own = Own()
    assert not isinstance(own, Classifier)
    model = as_classifier(own, input_shape=SHAPE)
    assert model is own
    assert isinstance(model, Classifier)
    assert model.networks == (own,)
    again = deepcopy(model)
    assert again.networks == (again,)
    assert (dict(model.card), model.config, model.class_names) == ({}, None, ())
    assert (model.shares_draws, model.bf16, model.compiled) == (False, False, False)


def test_what_a_users_module_says_is_kept():
    said = {"shares_draws": True, "card": {"Training": "1 s"}, "config": {"a": 1}, "class_names": tuple("abcd")}
    own = Own()
    own.inner = nn.Identity()
    own.networks = (own.inner,)
    for name, value in said.items():
        setattr(own, name, value)
    for model in (as_classifier(own, input_shape=SHAPE), Wrapped(own, input_shape=SHAPE)):
        assert {name: getattr(model, name) for name in said} == said
        assert model.networks == (own.inner,)


@pytest.mark.parametrize("other", [{"networks": 3}, {"networks": ()}, {"card": "of another kind"}])
def test_a_module_that_means_something_else_is_wrapped(other):
    own = Own()
    for name, value in other.items():
        setattr(own, name, value)
    model = as_classifier(own, input_shape=SHAPE)
    assert isinstance(model, Wrapped)
    assert model.networks == (model,)
    assert dict(model.card) == {}
    assert {name: getattr(own, name) for name in other} == other
