"""The page in headless Chromium for writers and administrators: adding, deleting, erasing, snapshots, the audit log, and who may what."""

import json

import pytest
from page_steps import ids, open_admin, search, settled

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]


def _add(page, *files):
    section = open_admin(page, "add")
    section.locator("#add-files").set_input_files([{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in files])
    return section


def test_pictures_are_added_with_what_is_known_and_what_is_no_picture_is_named(own_gallery, tab):
    page = tab(own_gallery).open()
    rows = own_gallery.newest
    section = _add(page, ("first.jpg", rows[0]["thumbnail"]), ('sec"ond.jpg', rows[1]["thumbnail"]), ("broken.jpg", b"no picture"))
    section.get_by_text("What is known of all of them").click()
    section.locator("#add-camera_id").fill("77")
    section.get_by_role("button", name="Add", exact=True).click()
    section.get_by_text("2 pictures added, 1 refused").wait_for(timeout=30_000)
    assert "broken.jpg" in section.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("count => document.querySelector('#status').textContent.includes(`${count} pictures`)", arg=len(rows) + 2)
    assert "camera 77" in page.locator(".card").first.inner_text()


def test_deleting_asks_for_the_number_and_takes_only_those(own_gallery, tab):
    page = tab(own_gallery).open()
    gone = ids(page)[1:3]
    for place in (1, 2):
        page.locator(".pick input").nth(place).check()
    page.get_by_role("button", name="Delete …").click()
    section = page.locator("#admin-remove")
    button = section.get_by_role("button", name="Delete", exact=True)
    section.locator("#remove-count").fill("3")
    assert button.is_disabled(), "another number than there are"
    section.locator("#remove-count").fill("2")
    button.click()
    section.get_by_text("2 pictures deleted").wait_for()
    page.keyboard.press("Escape")
    settled(page)
    assert not set(gone) & set(ids(page))
    assert page.locator("#chosen").is_hidden(), "what is gone is not selected"


def test_an_erasure_by_filter_gives_a_receipt(own_gallery, tab, tmp_path):
    person = own_gallery.newest[40]["person_id"]
    page = tab(own_gallery).open(f"?where={json.dumps({'person_id': [person]})}")
    count = page.locator(".card").count()
    section = open_admin(page, "remove")
    section.locator("#remove-count").fill(str(count))
    button = section.get_by_role("button", name="Erase for good")
    assert button.is_disabled(), "an erasure has a reference"
    section.locator("#remove-request").fill("letter-7")
    section.locator("#remove-now").check()
    button.click()
    section.get_by_text("letter-7").wait_for()
    page.locator("#admin-erasures > summary").click()
    with page.expect_download() as kept:
        page.get_by_role("button", name="Receipt of letter-7").click()
    kept.value.save_as(tmp_path / "receipt.json")
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert (receipt["request"], receipt["items"], receipt["done"]) == ("letter-7", count, True)
    page.keyboard.press("Escape")
    page.get_by_text("No picture passes").wait_for()


def test_what_changed_meanwhile_is_told_and_nothing_is_deleted(own_gallery, tab):
    page = tab(own_gallery).open()
    page.locator(".pick input").first.check()
    page.get_by_role("button", name="Delete …").click()
    page.route(
        "**/v1/items/delete", lambda route: route.fulfill(status=409, json={"detail": "expect: 1 items were expected, but 0 would go"})
    )
    page.locator("#remove-count").fill("1")
    page.locator("#admin-remove").get_by_role("button", name="Delete", exact=True).click()
    page.locator("#admin-remove [role=alert]").wait_for()
    assert "but 0 would go" in page.locator("#admin-remove").inner_text()


def test_snapshots_are_taken_restored_and_dropped(own_gallery, tab):
    page = tab(own_gallery).open()
    section = open_admin(page, "generations")
    section.locator("#snapshot-name").fill("before")
    section.get_by_role("button", name="Take a snapshot").click()
    section.get_by_role("button", name="Restore before").click()
    assert page.evaluate("document.activeElement.textContent") == "Restore before: sure?", "who uses the keyboard is still there"
    section.get_by_role("button", name="Restore before: sure?").click()
    section.get_by_role("button", name="Drop before").click()
    section.get_by_role("button", name="Drop before: sure?").click()
    section.get_by_text("There are no snapshots").wait_for()


def test_the_audit_log_is_shown_and_verified(own_gallery, tab):
    page = tab(own_gallery).open("?q=red")
    page.wait_for_selector(".score")
    section = open_admin(page, "audit")
    section.locator("tbody tr").first.wait_for()
    assert "search" in section.locator("table").inner_text()
    section.get_by_role("button", name="Verify the log").click()
    section.locator(".good").wait_for()


def test_a_service_with_tokens_asks_who_searches_and_shows_what_the_role_may_do(guarded_gallery, tab):
    view = tab(guarded_gallery)
    page = view.open()
    page.wait_for_selector("#login[open]")
    page.fill("#token", "a wrong one, long enough to be one")
    page.keyboard.press("Enter")
    page.wait_for_selector("#login [role=alert]")
    page.fill("#token", guarded_gallery.tokens["search"])
    page.fill("#login-purpose", "a rehearsal, naïve")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    assert page.locator("#show-admin").is_hidden(), "the role search manages nothing"
    page.wait_for_function("() => document.querySelector('.card img').naturalWidth > 0")
    search(page, "red")
    assert page.evaluate("document.cookie") == "", "no script sees the session"
    page.reload()
    page.wait_for_selector(".card")
    page.click("#show-settings")
    assert page.input_value("#purpose") == "a rehearsal, naïve"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_selector("#login[open]")
    assert page.evaluate("localStorage.getItem('reid_ray.past')") is None, "whoever logs in next does not see what was searched for"
    page.fill("#token", guarded_gallery.tokens["admin"])
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    assert page.locator("#show-admin").is_visible()
