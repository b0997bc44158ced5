"""IDC as an ordinary model of other libraries: pyautoattack, and what RobustBench's ``benchmark`` asks of a model."""

import copy
import logging

import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.peers.diffusion_classifier import DiffusionClassifier
from tiny import tiny_model

X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def separated() -> nn.Module:
    """A tiny IDC's one-step answer."""
    return tiny_model().one_step


def attack(model: nn.Module, caplog, **settings) -> tuple[torch.Tensor, str]:
    """pyautoattack's own evaluation of a bare model, on the images that it answers; the attacked images, and what its
    checks said."""
    with torch.no_grad():
        classes = model(X).argmax(1)
    caplog.set_level(logging.WARNING, logger="auto-attack")
    made = AutoAttack(model, norm="Linf", eps=0.3, version="custom", attacks=["apgd-ce"], seed=0, **settings)
    made.apgd.n_iter = 20
    found = made.run_standard_evaluation(X, classes, batch_size=8)
    attacked = found if isinstance(found, torch.Tensor) else found[0]
    return attacked, caplog.text


@pytest.mark.parametrize("model", [separated(), tiny_model().with_answer(eta=0.0)], ids=["one step", "eta 0"])
def test_the_deterministic_answers_pass_autoattacks_checks(model, caplog):
    attacked, said = attack(model, caplog)
    assert "randomized" not in said
    assert "dynamic" not in said
    assert "probability" not in said
    assert ((attacked - X).abs() <= 0.3 + 1e-6).all()
    with torch.no_grad():
        assert (model(attacked).argmax(1) != model(X).argmax(1)).any()


def test_the_stochastic_chain_is_told_to_be_random(caplog):
    model = tiny_model()
    with torch.no_grad():  # the chain's noise must show in the logits for the check to see it
        assert not torch.allclose(model(X), model(X), atol=1e-4)
    assert "randomized" in attack(model, caplog)[1]


@pytest.mark.parametrize(
    ("kind", "word"), [("diffpure", "randomized"), ("zdc", "randomized"), ("rdc", "randomized"), ("rdc", "dynamic")]
)
def test_what_it_says_of_the_other_diffusion_classifiers(kind, word, caplog):
    """All draw noise; RDC optimises its input too: no entries for RobustBench."""
    torch.manual_seed(0)
    diffusion = Diffusion(DiffusionConfig((1, 8, 8), 4, channels=(8,), groups=4)).eval()
    cnn = CNN(CNNConfig("preact-resnet18", 4, (1, 8, 8), width=2)).eval()
    models = {
        "diffpure": DiffPure(diffusion, cnn, depth=0.1, steps=2),
        "zdc": DiffusionClassifier(diffusion, timesteps=2),
        "rdc": DiffusionClassifier(diffusion, timesteps=2, maximise=1),
    }
    assert word in attack(models[kind], caplog)[1]


def test_what_robustbench_asks_of_a_model():
    """benchmark() copies nothing and sets nothing: it moves the model, calls it in batches without gradients on float32
    images in [0, 1], takes ``.max(1)[1]``, and hands the same callable to AutoAttack."""
    model = separated()
    model = model.to(torch.device("cpu")).eval()
    assert isinstance(model, nn.Module)
    classes = torch.arange(8) % 4
    right = 0
    with torch.no_grad():
        for i in range(0, len(X), 3):
            output = model(X[i : i + 3])
            assert (output.shape[1], output.dtype) == (4, torch.float32)
            right += (output.max(1)[1] == classes[i : i + 3]).sum().item()
    assert right == (model.predict(X).classes == classes).sum().item()
    # "non-zero gradients" and "no randomness" are its rules of entry
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), classes), x)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert torch.equal(copy.deepcopy(model)(X), model(X))
