"""What ``idc serve`` does: a page on this machine that answers for the images dropped into it."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from idc import data as datasets
from idc.commands.predict import default_device
from idc.data.decoding import decode
from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.serving.answering import draws_of
from idc.text import default_eps

HOST, PORT = "127.0.0.1", 7860
UPLOADS = "GRADIO_TEMP_DIR"
MAX_FILE = 20 * 2**20  # bytes of an upload
EXAMPLES = 12
_DARK = 0.25  # median of the examples below which one paints white on black


@contextmanager
def serving(
    model: str,
    *,
    examples: str | None = None,
    host: str = HOST,
    port: int = PORT,
    draws: int | None = None,
    one_step: bool = False,
    mirrored: bool = False,
) -> Iterator[str]:
    """Serve the page inside; gives its address.

    Args:
        model: a saved IDC, as ``IDC.from_pretrained`` finds it.
        examples: "digits", or a folder or pattern of images, of which up to 12 are offered.
        host: the address it is bound to; "0.0.0.0" is all of this machine's.
        draws: of the noise in an answer, by default 10 if it draws any.
        one_step: the answer after one network pass.
        mirrored: for the image and its mirror image, see ``IDC.with_answer``.

    Raises:
        IDCError: gradio is missing, the model or the examples cannot be used, several draws of an answer without noise,
            or an address that cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise IDCError("serve without gradio", "the package for the page", "pip install 'idc-classifier[serve]'")
    if not 0 < port < 2**16:
        raise IDCError(f"port {port}", "1 to 65535", "use 7860, say")
    own = IDC.from_pretrained(model, device=default_device())
    own = own.with_answer(visits=own.one_step_visits if one_step else None, mirrored=mirrored)
    draws = draws_of(own, draws)
    channels = own.input_shape[0]
    with TemporaryDirectory() as folder:
        uploads = Path(folder, "uploads")
        uploads.mkdir()
        os.environ[UPLOADS] = str(uploads)  # what is sent is gone when the page is
        files, dark = write_examples(examples, own, uploads) if examples else ([], False)
        from idc.serving.page import CSS, THEME, build

        eps, name = round(255 * default_eps("linf", channels)), Path(model).name or model
        page = build(own, name=name, draws=draws, eps=eps, examples=files, dark=dark)
        try:
            page.queue(max_size=32).launch(
                server_name=host, server_port=port, prevent_thread_lock=True, share=False, quiet=True, ssr_mode=False,
                mcp_server=False, enable_monitoring=False, inbrowser=False, footer_links=[], run_history=False,
                max_file_size=MAX_FILE, theme=THEME, css=CSS,
            )  # fmt: skip
        except OSError as error:
            remedy = "stop what uses it, or give another --port or --host"
            raise IDCError(f"{host}:{port}", "an address of this machine that is free", remedy) from error
        try:
            yield f"http://{host}:{port}"
        finally:
            page.close(verbose=False)


def write_examples(source: str, model: IDC, folder: Path) -> tuple[list[Path], bool]:
    """Up to ``EXAMPLES`` images of ``source``, spread over it, as the model sees them, as PNG files in ``folder``; and
    whether most of them is dark.

    Raises:
        IDCError: there are none that can be read.
    """
    if source == "digits":
        found = list(datasets.load(source, split="test", channels=model.input_shape[0], limit=EXAMPLES).images.numpy())
    else:
        every = datasets.images_at(Path(source))
        chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, EXAMPLES).astype(int))]
        found = [decode(file, str(file), model.input_shape) for file in chosen]
    files = []
    for index, pixels in enumerate(found):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0).squeeze()))
        files.append(folder / f"{index + 1:02}.png")
        image.save(files[-1])
    return files, bool(np.median(np.stack(found)) < _DARK * 255)
