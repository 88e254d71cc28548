"""What people do on the page of the search service, as tests do it: search, open a part, wait until it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SHOWN = "ids => JSON.stringify([...document.querySelectorAll('.card')].map(card => card.dataset.id)) === JSON.stringify(ids)"
"""Whether exactly these items are shown, in this order."""


def ids(page: Any) -> list[str]:
    """The items that are shown."""
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.id)")


def search(page: Any, text: str) -> None:
    """Search by a text, until its hits are there."""
    page.fill("#text", text)
    with page.expect_response("**/v1/search"):
        page.press("#text", "Enter")
    page.wait_for_selector("#grid[aria-busy=false] .score")


def settled(page: Any) -> None:
    """Wait for what is being asked."""
    page.wait_for_selector("#grid[aria-busy=false]")


def asked(page: Any, act: Callable[[], object]) -> dict[str, Any]:
    """What a search asks after an act."""
    with page.expect_request("**/v1/search") as sent:
        act()
    question: dict[str, Any] = sent.value.post_data_json
    sent.value.response()
    settled(page)
    return question


def open_admin(page: Any, section: str) -> Any:
    """A section of the part for writers and administrators."""
    page.click("#show-admin")
    page.wait_for_selector("dialog[open]")
    if section != "add":
        page.locator(f"#admin-{section} > summary").click()
    return page.locator(f"#admin-{section}")
