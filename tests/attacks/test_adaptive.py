"""The budgeted search finds the function that works, and says nothing works where nothing can."""

import pytest
import torch

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.best import Best
from idc.attacks.gradient import pgd
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

SHORT = {"trial_steps": 4, "steps": 20, "targets": 3, "judge_draws": 4}


def test_finds_the_one_surrogate_that_has_a_gradient():
    """The answer is quantised, one surrogate misleads, one is honest: where plain PGD fails, the search succeeds."""
    linear = Linear()
    images, classes = easy_images(linear, 48)

    def quantised(x):
        return linear((x * 6).round() / 6)

    classes = quantised(images).argmax(1)
    surrogates = {"opposite": lambda x: -linear(x), "honest": linear}
    target, threat = Target(quantised, surrogates), Threat("linf", 0.15)
    streams = Streams(torch.arange(48), 0)
    left = {
        name: (quantised(attack(target, images, classes, streams)).argmax(1) == classes).float().mean().item()
        for name, attack in {
            "plain": pgd(threat, random_start=False), "opposite": pgd(threat, surrogate="opposite", random_start=False),
            "adaptive": AdaptiveAttack(threat=threat, **SHORT),
        }.items()
    }  # fmt: skip
    assert left["plain"] == 1
    assert left["opposite"] > 0.9
    assert left["adaptive"] < 0.1


def test_reaches_the_closed_form_on_a_noisy_linear_classifier():
    """With noise in the input, the margin's mean is that of the linear model, and so is the best attack."""
    model = Noisy(sigma=0.02, num_classes=2)
    images, classes = easy_images(model, 96)
    eps = 0.03
    gain = eps * (model.weights[0] - model.weights[1]).abs().sum()
    logits = Linear.forward(model, images)
    margin = (logits.gather(1, classes[:, None]) - logits.gather(1, 1 - classes[:, None]))[:, 0]
    expected = (margin > gain).float().mean().item()
    streams = Streams(torch.arange(96), 0)
    target = Target.of(model)
    found = AdaptiveAttack(threat=Threat("linf", eps), **SHORT)(target, images, classes, streams)
    right = target.judge(found, classes, streams.of("fresh"), draws=50)[0].float().mean().item()
    assert 0.1 < expected < 0.9
    assert abs(right - expected) < 0.06


class NoisyGradient(Linear):
    """Two logits whose difference has a gradient of w + n, with n drawn anew each time: its mean is that of w."""

    stochastic = True

    def forward(self, images):
        flat = (images - 0.5).flatten(1)
        difference = (flat * (self.weights[1] + 2 * torch.randn_like(flat))).sum(1)
        return torch.stack([torch.zeros_like(difference), difference], 1)


def test_comes_near_the_closed_form_where_the_noise_is_larger_than_the_gradient():
    """The best attack moves every pixel by eps against the sign of w."""
    model, eps = NoisyGradient(num_classes=2, shape=(1, 8, 8)), 0.03
    weights, classes = model.weights[1], torch.ones(24, dtype=torch.int64)
    gain = eps * weights.abs().sum()
    images, _ = easy_images(model, 24, spread=0.125)
    margin = ((images - 0.5).flatten(1) * weights).sum(1)
    images += ((gain - margin)[:, None] / weights.square().sum() * weights).view_as(images)
    threat = Threat("linf", eps)
    share = {}
    for name, attack in {"adaptive": AdaptiveAttack(threat=threat), "pgd": pgd(threat, eot=4)}.items():
        found = attack(Target.of(model), images, classes, Streams(torch.arange(24), 0))
        own = ((images - found).flatten(1) * weights).sum(1) / gain
        assert own.max() <= 1 + 1e-6
        share[name] = own.mean().item()
    assert share["adaptive"] > max(0.95, share["pgd"])


def test_does_not_depend_on_batch_or_chunk():
    model = Noisy()
    images, classes = easy_images(model, 6)
    attack = AdaptiveAttack(threat=Threat("linf", 0.05), trial_steps=2, steps=4, targets=2, judge_draws=2)
    ids = torch.tensor([3, 14, 15, 92, 65, 35])
    whole = attack(Target.of(model), images, classes, Streams(ids, 0))
    parts = (slice(0, 3), slice(3, 6))
    target = Target.of(model, chunk=3)
    halves = torch.cat([attack(target, images[part], classes[part], Streams(ids[part], 0)) for part in parts])
    torch.testing.assert_close(whole, halves, rtol=0, atol=1e-6)


def test_a_deterministic_function_is_drawn_once():
    model = Linear()
    target = Target.of(model)
    assert not target.noisy(ANSWER, easy_images(model, 2)[0])
    mixed = Target(Noisy(), {"quiet": model}, stochastic=True)
    assert mixed.noisy(ANSWER, easy_images(model, 2)[0])
    assert not mixed.noisy("quiet", easy_images(model, 2)[0])


def test_an_image_leaves_only_when_many_fresh_draws_are_wrong():
    """Eight of eight wrong draws are not enough: a point that is right in one draw of twenty stays in the batch."""
    images, _ = easy_images(Linear(), 40)

    def answer(share: float):
        def logits(x):
            right = (torch.rand(len(x), 1)[:, 0] < share).float()
            return torch.stack([right, 1 - right], 1)

        return logits

    truth = torch.zeros(40, dtype=torch.int64)
    left = {}
    for share in (0.0, 0.05, 0.5):
        target = Target(answer(share), stochastic=True)
        best = Best(target, images, truth, Streams(torch.arange(40), 0), 8)
        best.offer(images, torch.arange(40), "x")
        left[share] = len(best.remaining())
        calls = target.tally.forward[ANSWER]
        assert len(best.remaining()) == left[share]
        assert target.tally.forward[ANSWER] == calls  # nothing new was found: nothing is asked again
    assert left[0.0] == 0
    assert left[0.05] >= 36
    assert left[0.5] == 40


def test_a_score_that_was_luck_keeps_nothing_better_away():
    """Of 40 points that are right in half of the draws the luckiest comes first, then one that is right in a fifth."""
    rows, truth = torch.arange(200), torch.zeros(200, dtype=torch.int64)
    poor, good = torch.full((200, 1, 2, 2), 0.5), torch.full((200, 1, 2, 2), 0.2)

    def answer(x):
        right = (torch.rand(len(x)) < x[:, 0, 0, 0]).float()
        return torch.stack([right, 1 - right], 1)

    kept = {}
    for name in ("offer", "compare"):
        best = Best(Target(answer, stochastic=True), poor, truth, Streams(rows, 0), 8)
        for index in range(40):
            best.offer(poor, rows, index)
        getattr(best, name)(good, rows, "better")
        kept[name] = (best.x[:, 0, 0, 0] < 0.3).float().mean().item()
    assert kept["offer"] < 0.5
    assert kept["compare"] > 0.99


def test_wrong_draws_count_first_whatever_the_margins():
    """A point that is right less often, but by more when it is, replaces one whose rare wrong draws are far off."""
    rows, truth = torch.arange(200), torch.zeros(200, dtype=torch.int64)
    held, found = torch.full((200, 1, 2, 2), 0.55), torch.full((200, 1, 2, 2), 0.45)

    def answer(x):
        share = x[:, 0, 0, 0]
        right, wrong = torch.where(share > 0.5, 1.0, 20.0), torch.where(share > 0.5, 20.0, 1.0)
        margin = torch.where(torch.rand(len(x)) < share, right, -wrong)
        return torch.stack([margin, torch.zeros_like(margin)], 1)

    best = Best(Target(answer, stochastic=True), held, truth, Streams(rows, 0), 8)
    best.offer(held, rows, "first")
    best.compare(found, rows, "second")
    assert (best.x[:, 0, 0, 0] < 0.5).float().mean() > 0.98


def test_large_logits_do_not_hide_the_better_surrogate():
    """At logits of thousands the trials still differ: the junk surrogate that comes first does not win every image."""
    linear = Linear()
    images, classes = easy_images(linear, 32)
    junk = torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    left = {}
    for scale in (1.0, 1e4):

        def answer(x, scale=scale):
            return scale * linear(x)

        target = Target(answer, {"junk": lambda x: x.flatten(1) @ junk.T, "honest": linear})
        attack = AdaptiveAttack(threat=Threat("linf", 0.02), trial_steps=1, steps=30, targets=3)
        found = attack(target, images, classes, Streams(torch.arange(32), 0))
        left[scale] = (linear(found).argmax(1) == classes).float().mean().item()
    assert left[1e4] == left[1.0]


def test_confirmation_does_not_depend_on_the_rest_of_the_batch():
    """A point that is right in 1% of draws is confirmed with its own noise, beside images confirmed before or not."""
    images, _ = easy_images(Linear(), 60)
    truth = torch.zeros(60, dtype=torch.int64)

    def logits(x):
        right = (torch.rand(len(x), 1)[:, 0] < 0.01).float()
        return torch.stack([right, 1 - right], 1)

    def confirm(rows, before):
        best = Best(Target(logits, stochastic=True), images[rows], truth[rows], Streams(rows, 0), 8)
        best.score[:] = 0.5
        best.unconfirmed[before] = True
        best.remaining()  # some images are a round ahead of the others
        best.unconfirmed[:] = True
        best.score[:] = 0.5
        best.done[:] = False
        best.remaining()
        return best.done

    rows = torch.arange(60)
    ahead = rows < 30
    together = confirm(rows, ahead)
    parts = torch.cat([confirm(rows[:30], torch.ones(30, dtype=torch.bool)),
                       confirm(rows[30:], torch.zeros(30, dtype=torch.bool))])  # fmt: skip
    assert torch.equal(together, parts)
    assert 0.2 < together.float().mean() < 0.9


class OnePixelAtATime(torch.nn.Module):
    """Wrong only where each of the first pixels is eps above 0.5. Its first function leads there, a pixel with each
    gradient; the answer and the others show the way to where the margin falls at once, and no further."""

    def __init__(self, eps, pixels, sigma=0.0):
        super().__init__()
        self.eps, self.pixels, self.sigma, self.stochastic = eps, pixels, sigma, sigma > 0

    def _filled(self, x):
        """How far each of the first pixels is, at most 1."""
        return ((x - 0.5) / self.eps).flatten(1)[:, : self.pixels].clamp(max=1)

    def _logits(self, margin):
        logits = torch.stack([margin, *[torch.zeros_like(margin) + i / 8 for i in (0, -1, -2)]], dim=1)
        return logits + self.sigma * torch.randn_like(logits) if self.sigma else logits

    def lead(self, x):
        filled = self._filled(x)
        before = (filled > 0.99).cumprod(1).roll(1, dims=1)
        before[:, 0] = 1
        return self._logits(1 - (filled * before).sum(1))

    def trap(self, x):
        return self._logits(1 - 0.5 * ((x - 0.5) / self.eps).flatten(1)[:, -8:].mean(1))

    def forward(self, x):
        return torch.where((self._filled(x) > 0.99).all(1)[:, None], self._logits(-x.flatten(1)[:, 0]), self.trap(x))

    def surrogates(self):
        return {"lead": self.lead, "trap": self.trap}


@pytest.mark.parametrize("targets", [0, 3])
@pytest.mark.parametrize(("pixels", "sigma"), [(24, 0.0), (10, 0.01)])
def test_a_function_that_leads_far_is_followed_though_short_trials_prefer_others(pixels, sigma, targets):
    """Untargeted alone, and with targeted runs; with noise, along which one run goes on
    from the last, over fewer pixels."""
    model, eps = OnePixelAtATime(0.1, pixels, sigma), 0.1
    images, classes = torch.full((3, 1, 8, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    target = Target(model, model.surrogates(), stochastic=model.stochastic)
    streams, trial_steps = Streams(torch.arange(3), 0), 5 if pixels > 5 else 1

    def right(**settings):
        attack = AdaptiveAttack(
            threat=Threat("linf", eps), trial_steps=trial_steps, steps=100, targets=targets, noisy_targets=targets,
            **settings,
        )  # fmt: skip
        found = attack(target, images, classes, streams)
        return target.judge(found, classes, streams.of("fresh"), draws=20)[0].float().mean().item()

    assert right(follow_first=False) == 1
    assert right() == 0
    assert right(follow_first=True) == 0


def test_along_noise_each_image_goes_on_from_its_own_end_though_others_have_left():
    """The first image is nearly wrong already, and is so after one run; the others need three."""
    model = OnePixelAtATime(0.1, 12, 0.01)
    images, classes = torch.full((3, 1, 8, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    images[0, 0, :3] = 0.59
    target, streams = Target(model, model.surrogates(), stochastic=True), Streams(torch.arange(3), 0)
    attack = AdaptiveAttack(threat=Threat("linf", 0.1), trial_steps=1, noisy_targets=0)
    found = attack(target, images, classes, streams)
    assert not target.judge(found, classes, streams.of("fresh"), draws=20)[0].any()


def test_the_last_of_the_runs_along_noise_sees_twice_the_draws():
    model, backward = OnePixelAtATime(0.1, 32, 0.01), []
    images, classes = torch.full((3, 1, 8, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    for follow in (False, True):
        target = Target(model, model.surrogates(), stochastic=True)
        attack = AdaptiveAttack(
            threat=Threat("linf", 0.1), trial_steps=1, steps=20, eot=3, noisy_targets=0, follow_first=follow
        )
        attack(target, images, classes, Streams(torch.arange(3), 0))
        backward.append(target.tally.backward["lead"])
    assert backward[1] - backward[0] == len(images) * 10 * (3 + 3 + 6)


def test_a_function_that_leads_far_inside_a_model_is_followed_too():
    """Found when the model was opened already, hence not named by it."""
    model = OnePixelAtATime(0.1, 24)
    images, classes, streams = (
        torch.full((3, 1, 8, 4), 0.5),
        torch.zeros(3, dtype=torch.int64),
        Streams(torch.arange(3), 0),
    )
    search = AdaptiveAttack(threat=Threat("linf", 0.1), trial_steps=5, steps=100, targets=0)
    fitted = search.for_target(Target(model))
    assert fitted.follow_first is None
    found = fitted(Target(model).with_surrogates(model.surrogates()), images, classes, streams)
    assert (model(found).argmax(1) != 0).all()
