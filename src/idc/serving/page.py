"""The page, in gradio: an image in, the answer and how it came about, and what an attack makes of it.

Whatever it shows comes from this machine: no analytics, no fonts from elsewhere, nothing but this server is asked.
"""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported, too

import gradio as gr
from PIL import Image
from torch import Tensor

from idc.data.decoding import FORMATS
from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.report.html import data_uri, difference
from idc.serving.answering import DOUBTED, Answer, answer, attack, read_upload
from idc.text import percent

UPLOADS = "GRADIO_TEMP_DIR"  # the variable that names the folder of what is sent
SHOWN = 5  # classes with a bar
_PAPER = 256  # pixels a side of what is painted on
_TURN = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private", "show_progress": "minimal"}
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
CSS = """
.idc-strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 10px; }
.idc-strip figure { margin: 0; }
.idc-strip img { width: 100%; max-width: 128px; image-rendering: pixelated; }
.idc-strip figcaption { font-size: 13px; line-height: 1.3; overflow-wrap: anywhere; }
.idc-said { font-size: 16px; margin: 0 0 10px; overflow-wrap: anywhere; }
.idc-refused { color: var(--error-text-color); }
#image img { object-fit: contain; width: 100%; height: 100%; }
"""
_Shown = tuple[dict[str, float] | None, str]
_NOTHING: _Shown = (None, "")


def build(model: IDC, *, name: str, draws: int, eps: int, examples: Sequence[Path] = (), dark: bool = False) -> Any:
    """The page as ``gr.Blocks``, to be launched with ``THEME`` and ``CSS``.

    Args:
        name: the model's, for the heading.
        draws: of the noise in an answer.
        eps: in 255ths, where the slider stands at first.
        examples: image files to try.
        dark: paint white on black, as the digits are.
    """

    def on_image(sent: Any) -> tuple[Any, ...]:
        try:
            if (raw := _bytes(sent)) is None:
                return None, *_NOTHING, *_NOTHING
            image = read_upload(raw, model)
            return image, *_shown(answer(model, image, draws=draws)), *_NOTHING
        except IDCError as error:
            return None, *_refused(error), *_NOTHING

    def on_painting(sent: Any) -> tuple[Any, ...]:
        blobs = paint.blob_storage.pop(sent["id"], None) if sent and sent["id"] is not None else None
        return on_image(blobs.composite if blobs else sent and sent["composite"])

    def on_attack(image: Tensor | None, chosen: float) -> _Shown:
        try:
            if image is None:
                raise IDCError("nothing to attack", "an image that was answered", "drop or paint one first")
            clean, eps = answer(model, image, draws=draws), round(chosen)
            attacked = answer(model, attack(model, image, eps=eps), draws=draws)
            return _shown_attacked(clean, attacked, eps)
        except IDCError as error:
            return _refused(error)

    with gr.Blocks(title=f"idc: {name}", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(_heading(model, name, draws))
        held = gr.State()
        with gr.Row():
            with gr.Column(min_width=300):
                with gr.Tab("Image"):
                    upload = gr.Image(
                        label="Drop an image", sources=["upload", "clipboard"], height=280, buttons=[], elem_id="image"
                    )
                with gr.Tab("Paint"):
                    paint = _painting(dark, colour=model.input_shape[0] > 1)
                if examples:
                    gr.Examples([[str(file)] for file in examples], [upload], label="Examples", examples_per_page=12)
            with gr.Column(min_width=300, scale=2):
                bars, said = _outputs("Answer", "answer")
                most = 64 if model.input_shape[0] == 1 else 16  # digits have coarse strokes: 16 changes few of them
                slider = gr.Slider(
                    0, most, value=eps, step=1, label="Attack: eps, in 255ths", elem_id="eps", buttons=[],
                    info="how far each pixel may move; pixels have values from 0 to 255",
                )  # fmt: skip
                button = gr.Button("Attack this image", variant="primary", elem_id="attack")
                attacked_bars, attacked_said = _outputs("Answer under attack", "attacked")
        shown = [held, bars, said, attacked_bars, attacked_said]
        # Not preprocessed: gradio would decode a file by itself, without our limits.
        upload.change(on_image, upload, shown, preprocess=False, **_TURN)
        paint.input(on_painting, paint, shown, preprocess=False, trigger_mode="always_last", **_TURN)
        button.click(on_attack, [held, slider], [attacked_bars, attacked_said], **_TURN)
    return page


def _outputs(label: str, key: str) -> tuple[Any, Any]:
    """Where an answer is shown: bars, and below them what is said of it."""
    bars = gr.Label(label=label, num_top_classes=SHOWN, elem_id=key)
    return bars, gr.HTML(elem_id=f"{key}-said")


def _painting(dark: bool, *, colour: bool) -> Any:
    paper = Image.new("RGB", (_PAPER, _PAPER), "black" if dark else "white")
    inks = ["#ffffff" if dark else "#000000", *(("#d62728", "#2ca02c", "#1f77b4", "#ffbf00") if colour else ())]
    brush = gr.Brush(default_size=20, colors=inks, color_mode="fixed")
    return gr.ImageEditor(
        {"background": paper, "layers": [], "composite": None}, label="Paint", sources=(), transforms=(), layers=False,
        brush=brush, canvas_size=(_PAPER, _PAPER), fixed_canvas=True, format="png", elem_id="paint", buttons=[],
    )  # fmt: skip


def _bytes(sent: Any) -> bytes | None:
    """Of a file in the folder into which gradio takes what is sent, or of a painted picture.

    Raises:
        IDCError: for any other file: a visitor may name one.
    """
    if sent is None or isinstance(sent, bytes):
        return sent
    if not sent["path"]:
        return None
    file, uploads = Path(sent["path"]).resolve(), Path(os.environ[UPLOADS]).resolve()
    if not file.is_relative_to(uploads) or not file.is_file():
        raise IDCError("this file", "an image that was dropped here", "drop it again")
    return file.read_bytes()


def _heading(model: IDC, name: str, draws: int) -> str:
    channels, side, _ = model.input_shape
    noise = f"mean of {draws} draws of the noise" if model.stochastic else "no noise"
    kind = {1: "a grey image", 3: "an image", 4: "an image with transparency"}.get(channels, "an image")
    return (
        f"<h2>{escape(name)}</h2><p>Translates {kind} of {side}x{side} pixels into one of "
        f"{model.num_classes} image labels, and answers with the nearest: in {len(model.config.visits)} "
        f"step{'s' * (len(model.config.visits) > 1)}, {noise}. Any {', '.join(FORMATS[:5])} or other bitmap will do: "
        "its central square is scaled. The bars are its confidence, "
        f"{'calibrated on validation images' if model.calibration else 'which is not calibrated'}.</p>"
    )


def _shown(found: Answer) -> _Shown:
    strip = [("as the model sees it", data_uri(found.image.numpy())), *_way(found)]
    return _bars(found), f'<p class="idc-said">{_sentence(found)}</p>{_strip(strip)}'


def _shown_attacked(clean: Answer, attacked: Answer, eps: int) -> _Shown:
    before, after = escape(clean.name), escape(attacked.name)
    told = f"<b>{before}</b> has become <b>{after}</b>."
    if clean.name == attacked.name:
        told = (
            f"It is still <b>{after}</b>. This attack is short and proves nothing: <code>idc evaluate</code> has "
            "longer ones."
        )
    strip = [
        (f"attacked, eps\u00a0{eps}/255", data_uri(attacked.image.numpy())),
        ("difference, 10\u00a0times enlarged", difference(clean.image.numpy(), attacked.image.numpy())),
        *_way(attacked),
    ]
    return _bars(attacked), f'<p class="idc-said">{told} {_sentence(attacked)}</p>{_strip(strip)}'


def _refused(error: IDCError) -> _Shown:
    return None, f'<p class="idc-said idc-refused">{escape(str(error))}</p>'


def _bars(found: Answer) -> dict[str, float]:
    return dict(list(found.confidence.items())[:SHOWN])


def _sentence(found: Answer) -> str:
    """How sure the answer is, for people: the draws, where there are several, and the distances."""
    draws, name = sum(found.votes.values()), escape(found.name)
    voted = ", ".join(f"{count} say <b>{escape(voted)}</b>" for voted, count in found.votes.items())
    agreed = (
        f"All {draws} draws of the noise say <b>{name}</b>."
        if len(found.votes) == 1
        else f"Of {draws} draws of the noise {voted}."
    )
    doubt = (
        f"<b>None of these?</b> The translation is farther from every label than those of {percent(1 - DOUBTED, 0)} of "
        "the validation images that were answered rightly. "
        if found.rejected
        else ""
    )
    return (
        f"{doubt}{agreed if draws > 1 else ''} The translation differs from the label of {name} by "
        f"{percent(found.distance)} a pixel, from the next label by {percent(found.next_distance)}."
    )


def _way(found: Answer) -> list[tuple[str, str]]:
    """The pictures on the way to the answer: each translation, and the label that the last is nearest to."""
    steps = [(f"translation, t\u00a0=\u00a0{t}", data_uri(x0_hat.numpy())) for t, x0_hat in found.steps]
    return [*steps, (f"label of {found.name}", data_uri(found.label.numpy()))]


def _strip(pictures: Sequence[tuple[str, str]]) -> str:
    figures = (
        f'<figure><img src="{uri}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, uri in pictures
    )
    return f'<div class="idc-strip">{"".join(figures)}</div>'
