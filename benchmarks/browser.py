"""Debian's Chromium, driven by playwright, and the page of ``idc serve`` in it."""

import base64
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DROPPED = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const moved = new DataTransfer();
    moved.items.add(new File([bytes], name, {type: "image/png"}));
    return moved;
}"""


def chromium() -> str | None:
    """The path of the browser, if there is one."""
    return shutil.which("chromium")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def opened(address: str, width: int = 1200, height: int = 900) -> Iterator[Any]:
    """A playwright page at ``address``; ``requests`` has what it asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.requests = []
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address)
        page.locator("#attack").wait_for()
        yield page
        browser.close()


def drop(page: Any, raw: bytes, name: str = "image.png") -> None:
    """Drop a file on the page, in place of what lies there."""
    if (there := page.locator("#image button[aria-label='Clear'], #image button[title='Clear']")).count():
        there.first.click()
    zone = page.locator("#image input[type=file]").locator("xpath=..")
    moved = page.evaluate_handle(DROPPED, [base64.b64encode(raw).decode(), name])
    zone.dispatch_event("drop", {"dataTransfer": moved})


def attack(page: Any, eps: int) -> None:
    number = page.locator("#eps input[type=number]")
    number.fill(str(eps))
    number.blur()
    page.locator("#attack").click()
