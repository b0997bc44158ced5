"""What the page shows, held to ``IDC.predict``, the definition of the translation, and the ball of the attack."""

import io
import zlib

import pytest
import torch
from PIL import Image

from idc import data
from idc.errors import IDCError
from idc.serving.answering import answer, attack, draws_of, read_upload
from pictures import encoded, rgb
from tiny import tiny_model

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def model():
    return tiny_model(4, SHAPE, class_names=("ant", "bee", "<b>cat</b>", "dog"))


@pytest.fixture
def image():
    return (torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)) * 255).round() / 255


def test_the_answer_is_that_of_predict(model, image):
    found, expected = answer(model, image, draws=7), model.predict(image, draws=7)
    order = expected.distances[0].argsort().tolist()
    assert list(found.confidence) == [model.class_names[k] for k in order]
    assert list(found.confidence.values()) == pytest.approx(expected.confidence[0, order].tolist())
    assert [found.name] == expected.names
    assert (found.distance, found.next_distance) == pytest.approx(tuple(expected.distances[0, order[:2]].tolist()))
    assert sum(found.votes.values()) == 7
    assert found.votes.get(found.name, 0) / 7 == pytest.approx(expected.agreement.item())
    assert list(found.votes.values()) == sorted(found.votes.values(), reverse=True)


def test_the_last_translation_is_as_far_from_each_label_as_one_draw_says(model, image):
    found, one = answer(model, image, draws=1), model.predict(image, draws=1)
    assert [t for t, _ in found.steps] == list(model.config.visits)
    far = [(found.steps[-1][1] - label).abs().mean().item() for label in model.labels]
    assert far == pytest.approx(one.distances[0].tolist(), abs=1e-6)
    torch.testing.assert_close(found.steps[0][1], model.one_step.translate(image)[0])  # the first pass sees no noise
    assert torch.equal(found.label, model.labels[model.class_names.index(found.name)])
    assert torch.equal(found.image, image[0])


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("eps", [0, 5])
def test_an_attacked_image_is_one_of_8_bits_within_the_ball(model, image, one_step, eps):
    own = model.one_step if one_step else model
    found = attack(own, image, eps=eps, steps=3, eot=2)
    assert torch.equal((found * 255).round() / 255, found)
    assert ((found - image).abs().max() * 255).round() <= eps
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(attack(own, image, eps=eps, steps=3, eot=2), found)


def test_an_attack_goes_farther_than_noise_of_its_size(model, image):
    """From the answered label, on the way to another."""
    own = model.one_step
    true = own.predict(image).classes.item()

    def margin(x):
        distances = own.distances(x)[0].tolist()
        return min(d for k, d in enumerate(distances) if k != true) - distances[true]

    signs = torch.randint(0, 2, (16, *SHAPE), generator=torch.Generator().manual_seed(3)) * 2 - 1
    noisy = min(margin((image + 8 / 255 * sign).clamp(0, 1)) for sign in signs)
    assert margin(attack(own, image, eps=8)) < noisy


def test_an_upload_is_read_as_a_file_is(model, tmp_path):
    raw = encoded(Image.fromarray(rgb(20, 30)))
    (tmp_path / "a.png").write_bytes(raw)
    assert torch.equal(read_upload(raw, model), data.read_images([tmp_path / "a.png"], shape=SHAPE))


def huge() -> bytes:
    """A PNG that says in its header that it has 30,000 x 30,000 pixels, and holds one."""
    png = encoded(Image.new("RGB", (1, 1)))
    header = png[12:16] + (30_000).to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize(
    ("raw", "word"),
    [(b"", "not an image"), (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"), (huge(), "at most 50,000,000 pixels"),
     (encoded(Image.fromarray(rgb(20, 30)))[:90], "readable image"), (b"<svg/>" + b" " * 2**21, "2.0 MiB")],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_that_names_no_path(model, raw, word):
    with pytest.raises(IDCError, match=word) as caught:
        read_upload(raw, model)
    assert "/" not in str(caught.value)


def test_several_formats(model):
    picture = Image.fromarray(rgb(8, 8))
    for kind in ("png", "bmp", "webp"):
        stream = io.BytesIO()
        picture.save(stream, kind, lossless=True) if kind == "webp" else picture.save(stream, kind)
        assert torch.equal(
            (read_upload(stream.getvalue(), model)[0] * 255).byte(), torch.from_numpy(rgb(8, 8)).permute(2, 0, 1)
        )


def test_draws(model):
    assert (draws_of(model, None), draws_of(model, 3), draws_of(model.one_step, None)) == (10, 3, 1)
    with pytest.raises(IDCError, match="draws = 3 of an answer without noise"):
        draws_of(model.one_step, 3)


@pytest.mark.parametrize(("doubt", "rejected"), [(1e-6, True), (1.0, False)])
def test_it_may_be_none_of_these(image, doubt, rejected):
    """No translation is as near as a threshold of 0 asks, none as far as one of 1."""
    pytest.importorskip("gradio", reason="there is no gradio (pip install 'idc-classifier[serve]')")
    from idc.serving.page import _sentence

    model = tiny_model(4, SHAPE)
    assert answer(model, image, draws=1).rejected is None  # not calibrated
    visits, eta = tuple(model.config.visits), model.config.bridge.eta
    model.card = {"calibration": {"temperature": 0.1, "doubt": [doubt] * 6, "images": 100, "draws": 1,
                                  "visits": list(visits), "eta": eta}}  # fmt: skip
    found = answer(model, image, draws=1)
    assert found.rejected is rejected
    assert ("None of these?" in _sentence(found)) is rejected
