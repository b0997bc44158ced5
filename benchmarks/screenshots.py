"""Pictures of the page of ``idc serve`` for docs/, as wide as a desk's screen and a phone's: a digit, and it attacked.

    python benchmarks/screenshots.py [--out docs]

It takes Chromium, gradio and playwright (the extra ``dev``).
"""

import argparse
import io
from pathlib import Path

from browser import attack, drop, free_port, opened
from common import MODELS, ROOT
from PIL import Image

from idc import data
from idc.commands.serve import serving
from idc.storage.files import whole_file

WIDTHS = (1200, 400)
DIGIT, EPS = 2, 26  # of the test digits, and 255ths: what the demo's model answers otherwise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    out = parser.parse_args().out
    digit = io.BytesIO()
    Image.fromarray(data.load("digits", split="test", limit=10).images[DIGIT, 0].numpy()).save(digit, "png")
    with serving(MODELS["digits"], examples="digits", port=free_port()) as address:
        for width in WIDTHS:
            with opened(address, width) as page:
                drop(page, digit.getvalue())
                page.locator("#answer-said figure").first.wait_for()
                attack(page, EPS)
                page.locator("#attacked-said figure").first.wait_for()
                page.mouse.move(0, 0)
                shot = Image.open(io.BytesIO(page.screenshot(full_page=True, animations="disabled")))
            file = out / f"page-{width}.png"
            with whole_file(file) as part:  # in 256 colours: half of the bytes
                shot.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(part, "png", optimize=True)
            print(f"{file}: {shot.width}x{shot.height}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
