"""Draws the screenshots of docs/page.md anew, of synthetic people: `python tests/shared/page_screenshots.py docs`."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from browsers import Tab, chromium
from page_services import page_service
from PIL import Image


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser, page_service(Path(scratch)) as service:
        page = Tab(browser, service.url, width=1180, height=740).open("?q=a+red+jacket")
        page.wait_for_selector(".facet label")
        page.locator(".card").nth(1).get_by_role("button", name="More like this").click()
        page.wait_for_selector(".clue img")
        page.locator(".pick input").nth(2).check()
        keep(page, folder / "page_search.jpg")
        page.locator(".look").first.click()
        page.get_by_role("button", name="Why is this a hit?").click()
        page.locator("dialog[open] canvas").wait_for()
        keep(page, folder / "page_enlarged.jpg")
        phone = Tab(browser, service.url, width=360, height=700, color_scheme="dark").open("?q=blue")
        phone.wait_for_selector(".score")
        keep(phone, folder / "page_phone.jpg")


def keep(page: Any, file: Path) -> None:
    """A small JPEG of what is shown, once the pictures are there."""
    page.wait_for_function("() => [...document.images].every((image) => image.complete || image.loading === 'lazy')")
    page.wait_for_timeout(400)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(file, quality=72, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
