"""Draws that share what needs no noise: the same answers and gradients as asked one by one, for the cost counted."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from idc.attacks.objective import CrossEntropy
from idc.attacks.target import ANSWER, Target
from idc.cost import evaluation_cost
from idc.errors import IDCError
from idc.evaluation.adapter import Wrapped
from idc.evaluation.protocol import PUBLISHED, published
from idc.noise import Streams, normal
from noise_models import Linear
from tiny import tiny_model

MODEL = tiny_model()
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 2, 3, 0])
FUNCTIONS = [ANSWER, *MODEL.surrogates()]


def streams():
    return Streams(torch.arange(5), 7)


def evaluated(work):
    """Rows that went through the network."""
    rows = 0

    def count(_, args):
        nonlocal rows
        rows += len(args[0])

    hook = MODEL.unet.register_forward_pre_hook(count)
    try:
        work()
    finally:
        hook.remove()
    return rows


def test_draws_of_the_answer_are_the_answers_with_that_noise():
    noise = torch.randn(2, 15, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    together = MODEL(IMAGES, noise=noise, draws=3)
    each = [MODEL(IMAGES, noise=noise[:, 5 * i : 5 * i + 5]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(MODEL.one_step(IMAGES, draws=2), MODEL.one_step(IMAGES).repeat(2, 1))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("chunk", [3, 100])
def test_shared_draws_are_those_asked_one_by_one(name, chunk):
    shared, apart = Target.of(MODEL, chunk=chunk), Target(MODEL, MODEL.surrogates(), True, chunk)
    assert (shared.shares_draws, apart.shares_draws) == (True, False)
    torch.testing.assert_close(
        shared.logits(name, IMAGES, streams(), draws=4), apart.logits(name, IMAGES, streams(), draws=4),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    for mean_of in ("loss", "outputs"):
        found, expected = (
            t.gradient(name, IMAGES, CLASSES, streams(), objective=CrossEntropy(), draws=4, mean_of=mean_of)
            for t in (shared, apart)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_first_evaluation_is_made_once_for_all_draws():
    target = Target.of(MODEL)
    assert evaluated(lambda: target.logits(ANSWER, IMAGES, streams(), draws=8)) == 5 * (1 + 2 * 8)
    rows = evaluated(
        lambda: target.gradient(ANSWER, IMAGES, CLASSES, streams(), objective=CrossEntropy(), draws=8)
    )  # fmt: skip
    assert rows == 5 * (1 + 2 * 8)
    seen = published(target)
    assert evaluated(lambda: seen.logits(PUBLISHED, IMAGES, streams(), draws=8)) == 5 * (1 + 2 * 8)


def test_the_cost_of_shared_draws_is_what_torch_counts():
    """FLOPs from the tally against torch's own count of the same calls as they ran."""
    target = Target.of(MODEL)
    images = IMAGES[:1].clone()
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        target.logits(ANSWER, images, streams().take(torch.tensor([0])), draws=6)
    forward = counter.get_total_flops()
    counts = target.tally.counts() | {"images": 1}
    assert counts["spared"] == {ANSWER: 5}
    assert evaluation_cost(target, images, counts, 1.0)["flops"] == forward
    alone = evaluation_cost(target, images, counts | {"spared": {}}, 1.0)["flops"]
    assert alone / forward == pytest.approx(18 / 13, rel=0.01)  # three evaluations a draw against one and two a draw


def test_draws_that_make_no_sense_are_refused():
    with pytest.raises(IDCError, match="at least 1"):
        MODEL(IMAGES, draws=0)
    with pytest.raises(IDCError, match="20, one a draw and image"):
        MODEL(IMAGES, draws=4, noise=torch.randn(2, 5, 1, 8, 8))


def test_without_noise_nothing_is_done_twice():
    quiet = MODEL.with_answer(eta=0.0)
    found = []
    assert evaluated(lambda: found.append(quiet(IMAGES, draws=8))) == 5 * 3
    torch.testing.assert_close(found[0], quiet(IMAGES).repeat(8, 1))
    for logits in quiet.surrogates().values():
        assert evaluated(lambda logits=logits: found.append(logits(IMAGES, draws=8))) <= 5 * 3
        assert found[-1].shape == (40, 4)


def test_a_wrapped_module_passes_its_draws_on():
    class Own(torch.nn.Module):
        shares_draws, stochastic = True, True

        def forward(self, images, draws=1):
            return images.flatten(1)[:, :4].repeat(draws, 1) + torch.randn(draws * len(images), 4)

    target = Target.of(Wrapped(Own(), input_shape=(1, 8, 8)))
    assert target.shares_draws
    logits = target.logits(ANSWER, IMAGES, streams(), draws=3)
    noise = normal(torch.arange(5), (4,), seed=7, draws=3)
    torch.testing.assert_close(logits, IMAGES.flatten(1)[:, :4] + noise)


class SaysSo(Linear):
    """Deterministic, with a function that is another one than its answer, whatever it says."""

    one_pass = True

    def surrogates(self):
        return {"other": lambda images: self.forward(images.flip(-1))}


def test_of_code_that_is_not_ours_short_trials_are_not_believed_whatever_it_says():
    one_step = tiny_model().one_step
    assert one_step.surrogates()
    assert not Target.of(one_step).trials_mislead
    assert Target.of(SaysSo()).trials_mislead
