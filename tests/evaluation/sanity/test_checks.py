"""Honest models pass every check; each kind of model that hides its gradient, on purpose or not, is caught."""

import pytest
import torch
from torch import nn

from idc.attacks.objective import DLR, CrossEntropy, Margin
from idc.attacks.target import ANSWER
from idc.attacks.threat import Threat
from idc.evaluation.protocol import build_protocol
from idc.evaluation.sanity import checks
from idc.evaluation.sanity.bench import Bench, run_checks
from idc.evaluation.sanity.checks import gradients_useful
from idc.evaluation.sanity.recorded import square_check
from idc.noise import Streams
from idc.types import ClassifierDefaults
from noise_models import Linear, Noisy, easy_images

EPS = 0.06
COUNT = 24  # images


class Trained(nn.Module, ClassifierDefaults):
    """A small network that really learnt a task: which of four corners is bright."""

    stochastic = False
    num_classes, input_shape = 4, (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 4))
            images, classes = corners(512, seed=5)
            optimiser = torch.optim.Adam(self.parameters(), lr=5e-3)
            for _ in range(150):
                loss = nn.functional.cross_entropy(self.net(images), classes)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        self.requires_grad_(False).eval()

    def surrogates(self):
        return {}

    def forward(self, images):
        return self.net(images)


def corners(count: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = 0.3 + 0.3 * torch.rand(count, 1, 8, 8, generator=random)
    classes = torch.randint(0, 4, (count,), generator=random)
    for i, c in enumerate(classes.tolist()):
        images[i, :, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 0.12
    return images.clamp(0, 1), classes


def test_a_gradient_that_the_attack_itself_does_not_have_is_missed_by_no_other():
    """Logits so large that cross-entropy is exactly 0: PGD along it stands still, though the margin has a gradient."""
    model = Linear()
    model.weights *= 1e5
    images, classes = easy_images(model, 8)
    bench = Bench(model, images, classes, Streams(torch.arange(8), 0), Threat("linf", EPS))
    asked = (("pgd", "cross-entropy"), ("pgd", "margin"), ("quick", None))
    protocols = [build_protocol(name, bench.threat, loss=loss) for name, loss in asked]
    assert [p.objectives for p in protocols] == [[CrossEntropy()], [Margin()], [Margin()]]
    found = [gradients_useful(bench, [(ANSWER, o) for o in p.objectives]) for p in protocols]
    assert [f.passed for f in found] == [False, True, True]


def test_images_that_are_wrong_anyway_need_no_gradient():
    """DLR has none where the class is the third; where every image is wrong, all of them are looked at."""
    model = Linear()
    images, classes = easy_images(model, 8)
    ranked = model(images).argsort(1, descending=True)
    for third, passed in ((4, True), (8, False)):
        given = torch.where(torch.arange(8) < third, ranked[:, 2], classes)
        bench = Bench(model, images, given, Streams(torch.arange(8), 0), Threat("linf", EPS))
        assert gradients_useful(bench, [(ANSWER, DLR())]).passed == passed


class Noised(Trained):
    stochastic = True

    def forward(self, images):
        return self.net(images + 0.05 * torch.randn_like(images))


class Quantised(Trained):
    """Rounds its input: no gradient."""

    def forward(self, images):
        return self.net((images * 4).round() / 4)


class Clamped(Trained):
    """Clamps its logits where they all lie beyond the clamp: no gradient, but their order is kept by a tiny slope."""

    def forward(self, images):
        logits = self.net(images)
        return logits.clamp(-1e-3, 1e-3).detach() + logits.detach()


class Probabilities(Trained):
    """A softmax of a softmax."""

    def forward(self, images):
        return self.net(images).softmax(1)


class Seeded(Noised):
    """The published flaw: the generator is seeded anew in every call."""

    def forward(self, images):
        torch.manual_seed(0)
        return super().forward(images)


class OwnSeed(Noised):
    """A generator of its own, seeded anew: fixed noise, tied to the place in the batch."""

    stochastic = False

    def forward(self, images):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        return self.net(images + 0.3 * noise)


class Unsaid(Noised):
    """Draws noise and does not say so."""

    stochastic = False


class EightBit(Trained):
    """Expects pixels in 0..255: the user forgot to divide inside."""

    def forward(self, images):
        return self.net(images / 255)


class Faint(Trained):
    """Expects pixels in 0..255 too, and gets nearly all right: little is left of what it answers to black."""

    def forward(self, images):
        return self.net(images / 255) - 0.91 * self.net(0 * images)


class Whisper(Noised):
    """Noise that is there, but small beside the logits."""

    def forward(self, images):
        return self.net(images + 1e-5 * torch.randn_like(images))


class LeftInTraining(Trained):
    """In training mode, with statistics that follow every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.train()

    def forward(self, images):
        return self.net(images + 1e-3 * self.norm(images))


class Detached(Trained):
    """Cuts its graph."""

    def forward(self, images):
        return self.net(images.detach())


class Exploding(Trained):
    """A gradient that is not a number."""

    def forward(self, images):
        return self.net(images) + 0 * (images.flatten(1).sum(1, keepdim=True) * 0).sqrt()


def findings(model, only=None) -> dict[str, bool]:
    images, classes = corners(COUNT)
    bench = Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", EPS))
    return {f.name: f.passed for f in run_checks(bench, only or checks.CHECKS)}


def test_checks_that_were_interrupted_go_on(tmp_path):
    """Those that are done are read; the others are made."""
    images, classes = corners(COUNT)
    bench = Bench(Trained(), images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", EPS))
    some, done = checks.CHECKS[:3], []

    def killed(bench):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_checks(bench, [*some[:2], killed], file=tmp_path / "kept")
    expected = run_checks(bench, some)
    bench.images = images * 255  # neither of the first two would pass
    assert run_checks(bench, some, file=tmp_path / "kept", advance=done.append) == expected
    assert len(done) == 3
    assert not run_checks(bench, some[:1], file=tmp_path / "other")[0].passed


@pytest.mark.parametrize("model", [Trained, Noised], ids=lambda m: m.__name__)
def test_honest_models_pass_every_check(model):
    assert [name for name, passed in findings(model()).items() if not passed] == []


def test_an_honest_linear_model_passes():
    model = Linear(shape=(1, 8, 8))
    images, classes = easy_images(model, COUNT)
    found = run_checks(
        Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", 0.01)), checks.CHECKS
    )
    assert [f for f in found if not f.passed] == []
    assert len({f.name for f in found}) == len(found) == len(checks.CHECKS)
    noisy = Noisy(sigma=0.01, shape=(1, 8, 8))
    found = run_checks(
        Bench(noisy, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", 0.01)), checks.CHECKS
    )
    assert [f for f in found if not f.passed] == []


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (Quantised, checks.gradients_useful),
        (Clamped, checks.gradients_useful),
        (Probabilities, checks.logits_not_probabilities),
        (Seeded, checks.global_generator_left_alone),
        (OwnSeed, checks.noise_as_declared),
        (Unsaid, checks.noise_as_declared),
        (EightBit, checks.images_used_as_given),
        (LeftInTraining, checks.evaluation_mode),
        (Detached, checks.gradients_useful),
        (Exploding, checks.gradients_useful),
    ],
    ids=lambda v: v.__name__,
)
def test_models_that_mislead_are_caught(model, check):
    assert list(findings(model(), [check]).values()) == [False]


def test_twenty_images_tell_a_wrong_scaling_that_costs_little():
    """Right for as many as the margin of chance hides, and less sure of each: seen where images are paired."""
    images, classes = corners(20)
    streams = Streams(torch.arange(20), 0)
    for model, passed in ((Trained(), True), (Faint(), False)):
        assert (model(images).argmax(1) == classes).float().mean() >= 0.9
        finding = checks.images_used_as_given(Bench(model, images, classes, streams, Threat("linf", EPS)))
        assert finding.passed is passed, finding


def test_small_noise_is_noise():
    images, classes = corners(COUNT)
    bench = Bench(Whisper(), images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", EPS))
    finding = checks.noise_as_declared(bench)
    assert finding.passed, finding
    said = Trained()
    said.stochastic = True
    assert not checks.noise_as_declared(
        Bench(said, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", EPS))
    ).passed


@pytest.mark.parametrize("model", [Quantised, Detached], ids=lambda m: m.__name__)
def test_masked_gradients_fail_several_checks(model):
    others = [checks.answer_follows_gradient, checks.unbounded_attack_succeeds, checks.transfer_is_weaker]
    assert sum(not passed for passed in findings(model(), others).values()) >= 2


def test_square_that_beats_the_white_box_is_an_alarm():
    def line(square: list[int], worst: str, draws: int = 1) -> dict:
        attacks = {"adaptive": [1, 1], "square": square}
        return {"class": 1, "draws": draws, "clean": [1, 1], "attacks": attacks, "worst": worst}

    quiet = [line([1, 1], "")] * 999 + [line([0, 2], "square")]
    (finding,) = square_check(quiet)
    assert finding.passed
    (finding,) = square_check(quiet[:-1][:300] + [line([0, 2], "square")] * 2)
    assert not finding.passed
    for broken, passed in ((3, True), (4, False)):  # 100 votes that change by themselves: 0 of 100 is at most 3.7%
        (finding,) = square_check([line([1, 1], "", 20)] * (100 - broken) + [line([0, 2], "square", 20)] * broken)
        assert finding.passed is passed
    sure = [line([20, 1], "", 20)] * 98  # declared noise, and no draw that disagrees: two images are an alarm
    for one in sure:
        one["clean"], one["attacks"]["adaptive"] = [20, 1], [20, 1]
    broken = [line([0, 2], "square", 20) | {"clean": [20, 1]} for _ in range(2)]
    for one in broken:
        one["attacks"]["adaptive"] = [20, 1]
    (finding,) = square_check(sure + broken)
    assert not finding.passed
    assert list(square_check([{"class": 1, "attacks": {}}])) == []
