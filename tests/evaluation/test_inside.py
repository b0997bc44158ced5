"""Networks inside a model are found and attacked; truth is the linear model's closed form."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.adapter import as_classifier
from idc.evaluation.inside import WHOLE, Inner, centred, pictured
from idc.evaluation.inside_record import found_in, note_inner
from idc.evaluation.inside_search import look_inside
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.gradients import answer_follows_gradient
from idc.noise import Streams
from idc.storage import records
from idc.storage.tensor_file import save_tensors
from noise_models import Linear, Noisy, easy_images
from tiny import tiny_model

EPS, GREY, COUNT = 0.02, 0.05, 24
NET = Linear()
IMAGES, CLASSES = easy_images(NET, COUNT)
IDS = torch.arange(COUNT)


class Around(nn.Module):
    """Says nothing of itself."""

    def __init__(self, net: nn.Module = NET) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class OneHot(Around):
    def forward(self, x):
        return F.one_hot(self.net(x).argmax(1), 4).float()


class WrittenOver(Around):
    """The one-hot vectors are written into the output of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.over = Over()

    def forward(self, x):
        return self.over(self.net(x))


class Over(nn.Module):
    def forward(self, z):
        largest = z.argmax(1, keepdim=True)
        z.zero_()
        return z.scatter_(1, largest, 1.0)


class Rounded(Around):
    def forward(self, x):
        return (self.net(x) * 1000).round() / 1000


class Decoy(Around):
    """The order of the one, the gradient of another; asked twice, and of other images between."""

    def forward(self, x):
        self.net(x[:3])
        true = self.net(x).argmax(1)
        return torch.tanh(self.net(x.flip(-1)) / 10) + 3 * F.one_hot(true, 4)


class Saturated(Around):
    def forward(self, x):
        return (1e3 * self.net(x)).softmax(1)


class NoNumber(Around):
    def forward(self, x):
        return self.net(x) + 0 * (0 * x.flatten(1).sum(1, keepdim=True)).sqrt()


class Detached(Around):
    """What numpy does to a picture no gradient passes; a little of another one is left."""

    def forward(self, x):
        seen = torch.from_numpy((x.detach().numpy() * 1e4).round() / 1e4)
        return self.net(seen + 0.01 * (x.flip(-1) - x.flip(-1).detach()))


class RoundedWithin(Around):
    """Hidden activations of a linear model."""

    def forward(self, x):
        hidden = ((x - 0.5) @ torch.eye(4).flip(0) * 1e3).round() / 1e3
        return self.net(hidden @ torch.eye(4).flip(0) + 0.5)


class Mirrored(nn.Module):
    def forward(self, x):
        return NET(x.flip(-1))


class TurnedAround(Around):
    """The gradient has the wrong sign, in the network inside too; what that is given is not much like the image."""

    def __init__(self) -> None:
        super().__init__(Mirrored())

    def forward(self, x):
        mirrored = x.flip(-1)
        logits = self.net(2 * mirrored.detach() - mirrored)
        return logits + 0.1 * torch.tanh(5 * logits)


class Negative(Around):
    """Of the network inside, outside of torch."""

    def __init__(self) -> None:
        super().__init__(Turned())

    def forward(self, x):
        return self.net(torch.from_numpy(3 - 2 * x.detach().numpy()))


class Turned(nn.Module):
    def forward(self, x):
        return NET((3 - x) / 2)


class Enlarged(Around):
    """Twice the size by linear interpolation, outside of torch; the network inside undoes it."""

    def __init__(self) -> None:
        super().__init__(Shrunk())

    def forward(self, x):
        return self.net(torch.from_numpy(TWICE @ x.detach().numpy() @ TWICE.T))


class Shrunk(nn.Module):
    def forward(self, x):
        back = torch.linalg.pinv(torch.from_numpy(TWICE))
        return NET(back @ x @ back.T)


class Leaking(Enlarged):
    """With a gradient that leads nowhere beside the lost one."""

    def forward(self, x):
        return self.net(torch.from_numpy(TWICE @ x.detach().numpy() @ TWICE.T) + 1e-6 * x.mean())


class Cut(Enlarged):
    """With a gradient of its own, which is 0."""

    def forward(self, x):
        twice = torch.from_numpy(TWICE)
        return self.net(Severed.apply(twice @ x @ twice.T))


class Severed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class Honest(nn.Module):
    """Another size by torch, before a network."""

    def __init__(self, **how) -> None:
        super().__init__()
        self.net, self.how = nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), how

    def forward(self, x):
        return self.net((F.interpolate(x, **self.how) - 0.4) / 0.2)


@pytest.mark.parametrize(
    "how",
    [{"size": (8, 8), "mode": "bilinear"}, {"size": (8, 8), "mode": "bicubic"}, {"size": (7, 9), "mode": "nearest"},
     {"size": (2, 2), "mode": "area"}, {"size": (3, 3), "mode": "bilinear", "antialias": True}],
)  # fmt: skip
def test_a_size_that_torch_changes_hides_nothing(how):
    torch.manual_seed(0)
    module = Honest(**how)
    module(IMAGES)
    assert look_inside(as_classifier(module.eval(), input_shape=(1, 4, 4)), IMAGES, IDS) == []


def test_a_picture_has_the_contrast_of_what_was_given_and_a_plain_one_that_of_the_image():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 8, 8, generator=random)
    images[0] = 0.1
    asked = images.clone().requires_grad_(True)
    given = torch.cat([(images[:2] - 0.45) / 0.25, 1 - 3 * images[2:]])
    (found,) = torch.autograd.grad(pictured(asked, given).sum((1, 2, 3)) @ torch.ones(3), asked)
    assert torch.allclose(found.mean((1, 2, 3)), torch.tensor([1.0, 4.0, -3.0]), rtol=1e-4)
    wide = torch.rand(3, 3, 5, 5, generator=random)  # of another size, and of nothing alike
    assert pictured(images, wide).abs().max() <= 1
    large = torch.rand(2, 3, 32, 32, generator=random)
    small = F.avg_pool2d(large, 4)
    assert F.cosine_similarity(centred(small), centred(pictured(large, small))).min() > 0.8


# (8, 4): row i interpolates at i / 2 - 1 / 4 between pixels, the outermost of which go on beyond the edge.
TWICE = np.stack([np.interp(np.arange(8) / 2 - 0.25, np.arange(4), row) for row in np.eye(4)], 1).astype(np.float32)


def survivors(weights: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    """(B,) whether no perturbation changes the linear model's answer: each margin is above eps times its L1 norm."""
    logits, margins = NET(IMAGES), torch.full((COUNT, 4), float("inf"))
    for row, true in enumerate(CLASSES.tolist()):
        for k in set(range(4)) - {true}:
            margins[row, k] = logits[row, true] - logits[row, k] - eps * (weights[true] - weights[k]).abs().sum()
    return (margins > 0).all(1)


def attacked(module: nn.Module, inside: bool = True) -> torch.Tensor:
    """(B,) whether the module's own answer survives the search."""
    model = as_classifier(module, input_shape=(1, 4, 4))
    found = {one.name: one.of(model) for one in look_inside(model, IMAGES, IDS)} if inside else {}
    target = Target(model, found)
    attack = AdaptiveAttack(threat=Threat("linf", EPS), trial_steps=3, steps=5, targets=3)
    x = attack(target, IMAGES, CLASSES, Streams(IDS, 0))
    return module(x).argmax(1) == CLASSES


@pytest.mark.parametrize(
    "kind",
    [
        OneHot,
        WrittenOver,
        Rounded,
        Decoy,
        Saturated,
        NoNumber,
        Detached,
        RoundedWithin,
        TurnedAround,
        Negative,
        Enlarged,
        Leaking,
        Cut,
    ],
)
def test_what_an_output_hides_is_attacked(kind):
    truth = survivors(NET.weights)
    assert 4 < truth.sum() < COUNT - 4
    assert torch.equal(attacked(kind()), truth)
    assert (attacked(kind(), inside=False) & ~truth).sum() >= 3


class Purified(Around):
    """Without a gradient; what goes into its clamp is not what comes out."""

    def forward(self, x):
        with torch.no_grad():
            return self.net((3 * x.flip(-1) - 1).clamp(0, 1))


def test_a_purifier_without_gradients_has_those_of_all_that_it_computes():
    model = as_classifier(Purified(), input_shape=(1, 4, 4))
    first, second = look_inside(model, IMAGES, IDS)
    assert (first, second) == (WHOLE, Inner(straight=True))
    asked = IMAGES.clone().requires_grad_(True)
    values = first.of(model)(asked)
    assert torch.equal(values, model(IMAGES))
    (found,) = torch.autograd.grad(values[:, 0].sum(), asked)
    within = ((3 * IMAGES - 1) > 0) & ((3 * IMAGES - 1) < 1)
    assert 0.1 < within.float().mean() < 0.9
    truth = 3 * NET.weights[0].view(1, 1, 4, 4).flip(-1) * within
    assert torch.allclose(found, truth)


class Estimated(Around):
    """Rounded, with a straight-through estimator of its own: with nothing detached it leads away."""

    def forward(self, x):
        rounded = x + ((x * 64).round() / 64 - x).detach()
        return self.net(1.3 * rounded - 0.3 * x)


def test_an_estimator_of_the_models_own_comes_before_what_it_detaches():
    model = as_classifier(Estimated(), input_shape=(1, 4, 4))
    found = look_inside(model, IMAGES, IDS)
    assert WHOLE not in found[:1] or len(found) == 1
    truth = survivors(NET.weights, 0.1)
    assert not truth.any()
    bench = Bench(model, IMAGES, CLASSES, Streams(IDS, 0), Threat("linf", 0.1))
    bench.target = bench.target.with_surrogates({one.name: one.of(model) for one in found})
    assert answer_follows_gradient(bench).passed


class Remembering(Around):
    """Keeps its last output, detached, and reads it in numpy when asked again; its detach turns a gradient around."""

    def __init__(self) -> None:
        super().__init__()
        self.last = None

    def forward(self, x):
        if self.last is not None:
            self.last.numpy()
        logits = self.net(2 * x.detach() - x)
        self.last = logits.detach()
        return logits


def test_a_module_that_keeps_what_it_detached_can_be_asked_again():
    model = as_classifier(Remembering(), input_shape=(1, 4, 4))
    (first, *_) = look_inside(model, IMAGES, IDS)
    assert first == WHOLE
    for name in ("whole", ANSWER, "whole"):
        target = Target(model, {"whole": first.of(model)})
        _, gradient, _ = target.gradient(name, IMAGES, CLASSES, Streams(IDS, 0), objective=Margin())
        assert (gradient != 0).any()


class NoisyInside(Around):
    """Detaches nothing; draws noise that nobody seeds."""

    def forward(self, x):
        noise = torch.from_numpy(np.random.default_rng().normal(size=(*x.shape,)).astype("float32"))
        return self.net(torch.tanh(x + 0.05 * noise))


def test_of_what_is_not_detached_there_is_no_second_function():
    assert WHOLE not in look_inside(as_classifier(NoisyInside(), input_shape=(1, 4, 4)), IMAGES, IDS)


class Large(OneHot):
    """As if the graph of all that it computes had no room."""

    def forward(self, x):
        with torch.no_grad():
            shown = 1 * x
            if shown.requires_grad:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(shown)


def test_a_gradient_that_has_no_room_is_told_and_passed_over():
    said = []
    look_inside(as_classifier(Large(), input_shape=(1, 4, 4)), IMAGES, IDS, say=said.append)
    assert [text.partition(";")[0] for text in said] == [
        f"no memory for its gradient with {name}"
        for name in ("nothing detached", "straight-through", "inside net, straight-through")
    ]


class InPlace(Around):
    """Without a gradient, and written into one tensor step by step."""

    def forward(self, x):
        with torch.no_grad():
            z = x.clone()
            for _ in range(3):
                z.mul_(0.7).add_(0.3 * z.square())
            return self.net(z)


def test_work_in_place_without_gradients_has_those_of_the_same_work():
    model = as_classifier(InPlace(), input_shape=(1, 4, 4))
    (first, *_) = look_inside(model, IMAGES, IDS)
    assert first == WHOLE
    asked = IMAGES.clone().requires_grad_(True)
    z = asked
    for _ in range(3):
        z = 0.7 * z + 0.3 * (0.7 * z).square()
    (truth,) = torch.autograd.grad(NET(z)[:, 0].sum(), asked)
    (found,) = torch.autograd.grad(first.of(model)(asked)[:, 0].sum(), asked)
    assert torch.allclose(found, truth)


class TwoLevels(Around):
    """Black or white pixels: those within GREY of grey may be either."""

    def forward(self, x):
        return self.net((x >= 0.5).float())


def test_two_levels_are_attacked_as_well_as_can_be():
    model = TwoLevels()
    free = (IMAGES - 0.5).abs().flatten(1) <= GREY * 0.999
    level = (IMAGES >= 0.5).float().flatten(1) - 0.5
    own = model(IMAGES).argmax(1)
    least = []
    for row, true in enumerate(own.tolist()):
        each = NET.weights[true] - NET.weights
        worst = torch.where(free[row], -each.abs() / 2, each * level[row]).sum(1)
        least.append(worst[[k for k in range(4) if k != true]].min())
    truth = torch.stack(least) > 0
    classifier = as_classifier(model, input_shape=(1, 4, 4))
    (inner, *_) = look_inside(classifier, IMAGES, IDS)
    assert inner == Inner(straight=True)
    target = Target(classifier, {"straight": inner.of(classifier)})
    attack = AdaptiveAttack(threat=Threat("linf", GREY), trial_steps=5, steps=20, targets=3)
    found = model(attack(target, IMAGES, own, Streams(IDS, 0))).argmax(1) == own
    assert 2 < truth.sum() < COUNT - 2
    assert torch.equal(found, truth)


class Normalised(Around):
    def forward(self, x):
        return self.net((x - 0.5) / 0.9 + 0.5).log_softmax(1)


class Hooked(Around):
    """Refuses to answer under a hook."""

    def forward(self, x):
        assert not self.net._forward_hooks
        return OneHot.forward(self, x)


class Pair(Around):
    """The network's output is in a dictionary, and beside it always the same class."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), Boxed()))
        self.same = nn.Linear(4, 4)

    def forward(self, x):
        self.same(torch.zeros(len(x), 4))
        return self.net(x)["logits"].log_softmax(1)


class Boxed(nn.Module):
    def forward(self, x):
        return {"logits": x}


@pytest.mark.parametrize(
    "module",
    [NET, Around(), Normalised(), Around(Noisy()), Pair(), Hooked(), tiny_model()],
    ids=lambda m: type(m).__name__,
)
def test_what_hides_nothing_or_cannot_be_seen_is_attacked_as_before(module):
    model = as_classifier(module, input_shape=(1, 8, 8) if hasattr(module, "unet") else (1, 4, 4))
    images = torch.rand(COUNT, *model.input_shape, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    found = look_inside(model, images, IDS)
    assert [one for one in found if one.path] == []
    assert (found == []) == (not isinstance(module, Hooked))  # whose steps are passed straight all the same
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_module_cannot_be_seen():
    model, said = as_classifier(torch.jit.trace(OneHot(), IMAGES), input_shape=(1, 4, 4)), []
    assert look_inside(model, IMAGES, IDS, say=said.append) == []
    assert said == ["parts of it are TorchScript, which hooks do not reach"]


class NoisyOneHot(Around):
    stochastic = True

    def __init__(self) -> None:
        super().__init__(Noisy(0.02))

    forward = OneHot.forward


def test_a_network_inside_draws_the_noise_of_the_answer():
    model = as_classifier(NoisyOneHot(), input_shape=(1, 4, 4))
    (inner,) = [one for one in look_inside(model, IMAGES, IDS) if one.path]
    assert inner.name == "inside net"
    target = Target(model, {"inner": inner.of(model)}, stochastic=True)
    streams = Streams(IDS, 3)
    answers, logits = (target.logits(name, IMAGES, streams, draws=5) for name in (ANSWER, "inner"))
    assert torch.equal(answers.argmax(2), logits.argmax(2))
    assert target.noisy("inner", IMAGES)
    assert target.tally.forward["inner"] == 5 * COUNT + 2


def test_a_model_in_half_precision_and_one_that_is_compiled():
    half = as_classifier(OneHot(), input_shape=(1, 4, 4), bf16=False)
    half.bf16 = True  # as it asks, without the search for layers that a linear model has none of
    names = [one.name for one in look_inside(half, IMAGES, IDS)]
    assert "inside net" in names
    module = OneHot()
    module.net = Linear()
    model = as_classifier(module, input_shape=(1, 4, 4))
    module.forward = torch.compile(module.forward, backend="eager")
    model.compiled = True
    (inner,) = [one for one in look_inside(model, IMAGES, IDS) if one.path]
    assert torch.equal(inner.of(model)(IMAGES), NET(IMAGES))


def test_a_network_inside_a_module_that_the_user_compiled():
    module = Around(torch.compile(OneHot(), backend="eager"))
    module(IMAGES)
    model = as_classifier(module, input_shape=(1, 4, 4))
    (inner,) = [one for one in look_inside(model, IMAGES, IDS) if one.path]
    assert inner.path.endswith("_orig_mod.net")
    assert torch.equal(inner.of(model)(IMAGES), NET(IMAGES))


def test_what_was_found_is_noted_once(tmp_path):
    model = as_classifier(Decoy(), input_shape=(1, 4, 4))
    assert found_in(tmp_path) == []
    note_inner(tmp_path, model, IMAGES, IDS)
    note_inner(tmp_path, as_classifier(Around(), input_shape=(1, 4, 4)), IMAGES, IDS)
    assert found_in(tmp_path) == look_inside(model, IMAGES, IDS) == [Inner("module.net"), Inner(straight=True)]


def test_images_that_all_get_one_class_are_not_all_that_is_asked_about():
    images = (IMAGES[:1] + 0.01 * torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    model = as_classifier(OneHot(), input_shape=(1, 4, 4))
    assert len(model(images).argmax(1).unique()) == 1
    (inner,) = [one for one in look_inside(model, images, IDS) if one.path]
    assert torch.equal(inner.of(model)(images), NET(images))


class Constant(Around):
    def forward(self, x):
        return 0 * self.net(x) + torch.eye(4)[2]


class Infinite(Around):
    def forward(self, x):
        return self.net(x) / float(len(x) == 2)  # as many as it is tried with when it is opened


@pytest.mark.parametrize(
    ("module", "why"),
    [(Constant(), "to 96 images are all of one class"), (Infinite(), "to 24 images are not all finite"),
     (Hooked(), "it fails under hooks (AssertionError: "), (Around(), "")],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_why_something_could_not_be_looked_for_is_said_and_noted(tmp_path, module, why):
    said = []
    note_inner(tmp_path, as_classifier(module, input_shape=(1, 4, 4)), IMAGES, IDS, say=said.append)
    noted = records.read_json(tmp_path / "inside.json", "")["not_looked_for"]
    found = [text for text in said if "found inside the model" in text]
    assert len(found) == bool(found_in(tmp_path))
    assert all(inner.name in text for text in found for inner in found_in(tmp_path))
    unseen = [text for text in said if text not in found]
    assert len(unseen) == len(noted) == bool(why)
    assert all(why in text for text in unseen + noted)


@pytest.mark.parametrize("begun", ["images-0.jsonl", "partial-000000.safetensors"])
def test_an_evaluation_that_was_begun_without_it_is_refused(tmp_path, begun):
    if begun.endswith(".jsonl"):
        records.append(tmp_path / begun, [{"id": 1}])
    else:
        save_tensors(tmp_path / begun, {"worst": torch.ones(1)})
    with pytest.raises(IDCError, match=r"attacks on straight-through too.*choose another --out"):
        note_inner(tmp_path, as_classifier(OneHot(), input_shape=(1, 4, 4)), IMAGES, IDS)
    assert not (tmp_path / "inside.json").exists()
    note_inner(tmp_path, as_classifier(Around(), input_shape=(1, 4, 4)), IMAGES, IDS)  # attacked as then
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("functions", [5, [5], [{"path": 5}], [{"other": 1}], [{"call": "a"}]])
def test_a_damaged_note_is_refused(tmp_path, functions):
    records.write(tmp_path / "inside.json", {"functions": functions})
    with pytest.raises(IDCError, match=r"inside\.json: expected functions inside the model"):
        found_in(tmp_path)
