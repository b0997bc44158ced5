"""``idc serve`` in a browser: an image is dropped, attacked and painted; what cannot be read is refused."""

import base64
import io
import os
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from browser import attack, chromium, drop, free_port, opened
from PIL import Image

from idc import IDC, data
from pictures import encoded

pytest.importorskip("gradio", reason="there is no gradio (pip install 'idc-classifier[serve]')")
pytest.importorskip("playwright", reason="there is no playwright (pip install 'idc-classifier[dev]')")
pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium (apt-get install chromium)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
]

MODEL = Path(__file__).parents[2] / "models" / "digits"
LIMIT = 2**20
FILE = {"name": "image.png", "mimeType": "image/png"}


@pytest.fixture(scope="module")
def model():
    return IDC.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def page():
    from idc.commands.serve import serving

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("idc.commands.serve.MAX_FILE", LIMIT)
        with serving(str(MODEL), examples="digits", port=free_port()) as address, opened(address) as page:
            yield page
            sent = Path(os.environ["GRADIO_TEMP_DIR"])
            assert any(sent.rglob("image.png"))
        assert not sent.exists()


@pytest.fixture(scope="module")
def digits():
    """One of each class, (10, 1, 32, 32) uint8, as the page's examples are."""
    return data.load("digits", split="test", limit=10).images


def png(digit):
    return encoded(Image.fromarray(digit[0].numpy()))


def pictures(page, where):
    """What is below an answer, by caption, (1, 1, H, W) in [0, 1]."""
    page.locator(f"{where} figure").first.wait_for()
    found = {}
    for figure in page.locator(f"{where} figure").all():
        raw = base64.b64decode(figure.locator("img").get_attribute("src").partition(",")[2])
        caption = figure.inner_text().strip().replace("\u00a0", " ").replace("\n", " ")
        found[caption] = torch.from_numpy(np.array(Image.open(io.BytesIO(raw)).convert("L")))[None, None] / 255
    return found


def test_a_dropped_image_is_answered_with_what_led_to_it(page, model, digits):
    drop(page, png(digits[4]))
    (name,) = model.predict(digits[4:5].float() / 255).names
    page.locator("#answer-said", has_text=f"All 10 draws of the noise say {name}").wait_for()
    assert page.locator("#answer h2").inner_text() == name
    shown = pictures(page, "#answer-said")
    steps = [f"translation, t = {t}" for t in model.config.visits]
    assert list(shown) == ["as the model sees it", *steps, f"label of {name}"]
    assert torch.equal(shown["as the model sees it"][0] * 255, digits[4].float())
    last, label = shown[steps[-1]], model.labels[model.class_names.index(name)]
    assert (last - label).abs().mean() < 0.05  # another label is 0.15 away


def test_an_attack_shows_an_image_of_the_ball_and_the_models_answer_to_it(page, model, digits):
    drop(page, png(digits[2]))
    pictures(page, "#answer-said")
    attack(page, 40)
    shown = pictures(page, "#attacked-said")
    attacked = shown["attacked, eps 40/255"]
    assert 1 <= ((attacked * 255) - digits[2:3]).abs().max().round() <= 40
    clean, found = model.predict(digits[2:3].float() / 255), model.predict(attacked)
    assert page.locator("#attacked h2").inner_text() == found.names[0] != clean.names[0]
    assert f"{clean.names[0]} has become {found.names[0]}" in page.locator("#attacked-said").inner_text()
    changed = 0.5 + 10 * (attacked - digits[2:3] / 255) / 2
    torch.testing.assert_close(shown["difference, 10 times enlarged"], changed.clamp(0, 1), rtol=0, atol=1 / 255)


def test_a_bad_file_is_refused_in_a_sentence_and_no_old_answer_is_left(page, digits):
    drop(page, png(digits[3]))
    pictures(page, "#answer-said")
    drop(page, b"no image at all", "bad.png")
    refused = page.locator("#answer-said .idc-refused")
    refused.wait_for()
    assert (
        refused.inner_text()
        == "this file of 15 bytes (not an image): expected a readable image file; replace or remove it"
    )
    assert page.locator("#answer h2").count() == 0
    page.locator("#attack").click()
    page.locator("#attacked-said .idc-refused", has_text="drop or paint one first").wait_for()


def test_a_file_over_the_limit_is_not_taken(page):
    drop(page, bytes(LIMIT + 1), "large.png")
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    address = "{0.scheme}://{0.netloc}/gradio_api/upload".format(urlsplit(page.url))
    whole = FILE | {"buffer": bytes(LIMIT + 1)}
    assert page.request.post(address, multipart={"files": whole}).status == 413


@pytest.mark.parametrize(("asked", "said"), [("on_image", True), ("on_image", False), ("on_painting", True)])
def test_no_file_of_this_machine_is_read_but_one_that_was_sent(page, digits, tmp_path, asked, said):
    (tmp_path / "own.png").write_bytes(png(digits[0]))
    host = "{0.scheme}://{0.netloc}/gradio_api".format(urlsplit(page.url))
    events = page.request.get(page.url + "config").json()["dependencies"]
    (event,) = (event["id"] for event in events if event["api_name"] == asked)
    sent = page.request.post(f"{host}/upload", multipart={"files": FILE | {"buffer": png(digits[0])}}).json()[0]
    told = []
    for number, path in enumerate((tmp_path / "own.png", sent)):
        file = {"path": str(path)} | ({"meta": {"_type": "gradio.FileData"}} if said else {})
        value = {"background": None, "layers": [], "composite": file, "id": None} if asked == "on_painting" else file
        session = f"{asked}-{said}-{number}"
        page.request.post(f"{host}/queue/join", data={"data": [value], "fn_index": event, "session_hash": session})
        told.append(page.request.get(f"{host}/queue/data?session_hash={session}").text())
    assert ["label of 0" in text for text in told] == [False, True]
    assert page.request.get(f"{host}/file={tmp_path}/own.png").status == 403


def test_an_example_and_a_painting_are_answered(page, model):
    page.locator(".gallery-item").nth(1).click()
    pictures(page, "#answer-said")
    page.get_by_role("tab", name="Paint").click()
    canvas = page.locator("#paint canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y - 80)
    page.mouse.down()
    page.mouse.move(x, y + 80, steps=4)
    page.mouse.up()
    page.locator("#answer-said", has_text="say 1").wait_for()  # a stroke down is a one


def test_nothing_is_asked_of_others_and_a_phone_shows_it_all(page):
    hosts = {urlsplit(url).hostname for url in page.requests if url.startswith("http")}
    assert hosts == {"127.0.0.1"}
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
