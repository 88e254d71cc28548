"""Draws the pictures of docs/own_crops_pictures.md anew, of drawn people: `python tests/shared/journey_screenshots.py docs`."""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browsers import Tab, chromium
from page_screenshots import keep
from PIL import Image

from reid_ray.rehearse.published import write_crops

ROOT = Path(__file__).resolve().parents[2]
_TERMINAL = "margin:0;padding:18px;background:#1b1f24;color:#e6e6e6;font:15px/1.5 monospace;white-space:pre-wrap"
NAMES = ("terminal", "first", "like", "picture", "why")
_WIDTH = 900
_READY = re.compile(r"serve: open (http://[\d.:]+)/")


@contextmanager
def searched(folder: Path, *words: str) -> Iterator[tuple[str, list[str]]]:
    """The address of a search that runs in `folder`, and what the command said."""
    command = [sys.executable, "-u", str(ROOT / "jobs" / "search.py"), *words, "serve.serve.port=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        for line in process.stdout:
            said.append(line.rstrip().replace(f"{folder}/", ""))
            if (found := _READY.match(line)) is not None:
                break
        try:
            yield found[1], said
        finally:
            process.send_signal(signal.SIGINT)


def main(place: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        folder = Path(scratch)
        write_crops(folder / "crops", identities=24)
        with searched(folder, "crops") as (url, said):
            tab = Tab(browser, url, width=1180, height=740)
            page = tab.open()
            keep(page, place / "journey_first.jpg")
            page.locator(".card").nth(2).get_by_role("button", name="More like this").click()
            page.wait_for_selector(".score")
            keep(page, place / "journey_like.jpg")
            page = tab.open()
            page.locator("input[type=file]").first.set_input_files(next((folder / "crops").rglob("*.jpg")))
            page.wait_for_selector(".score")
            keep(page, place / "journey_picture.jpg")
            page.locator(".look").first.click()
            page.get_by_role("button", name="Why is this a hit?").click()
            page.locator("dialog[open] canvas").wait_for()
            keep(page, place / "journey_why.jpg")
            shell = Tab(browser, url, width=1180, height=200).page
            lines = html.escape("\n".join(["$ reid-ray search crops", *said]))
            shell.set_content(f'<body style="margin:0"><pre style="{_TERMINAL}">{lines}</pre>')
            keep(shell, place / "journey_terminal.jpg")
    for name in NAMES:
        with Image.open(place / f"journey_{name}.jpg") as shot:
            small = shot.resize((_WIDTH, shot.height * _WIDTH // shot.width), Image.Resampling.LANCZOS)
        small.save(place / f"journey_{name}.jpg", quality=70, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
