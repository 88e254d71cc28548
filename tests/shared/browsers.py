"""A headless Chromium for tests of the page, through Playwright, and axe-core; a test that lacks one is skipped and says how to get it.

Playwright comes with `pip install reid-ray[browser]`; Chromium from the system (`apt-get install chromium`) or from `playwright install
chromium`; axe-core from `npm install axe-core` (in the folder in which the tests run, or AXE_CORE names its axe.min.js).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# What a page says of a policy that it breaks, where the test reads it.
_LISTEN = "addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sample}`))"
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed: pip install playwright")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Tests run as root in containers, where Chromium's sandbox does not start.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def axe_core() -> str:
    """axe-core's source; the test is skipped where there is none."""
    places = [os.environ.get("AXE_CORE"), "node_modules/axe-core/axe.min.js", "/usr/share/javascript/axe-core/axe.min.js"]
    path = next((path for place in places if place and (path := Path(place)).is_file()), None)
    if path is None:
        pytest.skip("axe-core is not here: npm install axe-core, or AXE_CORE=/path/to/axe.min.js")
    return path.read_text(encoding="utf-8")


class Tab:
    """A tab of a browser on a service's page, which notes what goes wrong in it."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, height: int = 850, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.add_init_script(_LISTEN)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.url, self.faults = url, []
        self.page.on("pageerror", lambda error: self.faults.append(f"fault: {error}"))
        self.page.on("console", self._console)
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))

    def _console(self, message: Any) -> None:
        # Chromium itself notes each reply that is an error, and each that did not come.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(f"{message.type}: {message.text}")

    def open(self, address: str = "") -> Any:
        """The page at an address, once pictures (or a problem) are shown."""
        self.page.goto(f"{self.url}/{address}")
        self.page.wait_for_selector(".card, .problem, dialog[open]")
        return self.page

    def violations(self, axe: str) -> list[str]:
        """What axe-core finds in the page as it is now."""
        self.page.evaluate(f"{axe}; 0")
        found = self.page.evaluate("(rules) => axe.run(document, rules)", _RULES)["violations"]
        return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]
