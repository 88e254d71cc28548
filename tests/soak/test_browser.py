"""The page of the search service in headless Chromium, on the real application over a gallery of synthetic people: every verb of searching.

Nothing may break the content policy, in any test; the other files of this part: errors, access by everybody, managing the gallery.
"""

import csv
import io
import json
import zipfile
from collections import Counter

import pytest
from page_services import EVIL, EVIL_ID
from page_steps import SHOWN, asked, ids, search, settled

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]


def test_without_a_search_the_gallery_is_shown_newest_first(gallery, tab):
    page = tab(gallery).open()
    assert ids(page) == [row["item_id"] for row in gallery.newest[:24]]
    assert f"{len(gallery.newest)} pictures" in page.inner_text("#status")
    page.wait_for_function("() => [...document.querySelectorAll('.card img')].slice(0, 4).every(image => image.naturalWidth > 0)")


def test_a_search_is_in_the_address_and_back_forward_and_a_shared_link_find_it(gallery, tab):
    page = tab(gallery).open()
    first = ids(page)
    search(page, "a red jacket")
    red = ids(page)
    assert page.url.endswith("/?q=a+red+jacket")
    search(page, "blue trousers")
    blue = ids(page)
    assert red != blue != first
    for go, expected, text in [("go_back", red, "a red jacket"), ("go_back", first, ""), ("go_forward", red, "a red jacket")]:
        with page.expect_response("**/v1/*"):
            getattr(page, go)()
        page.wait_for_function(SHOWN, arg=expected)
        assert page.input_value("#text") == text
    shared = tab(gallery).open("?q=blue+trousers")
    assert ids(shared) == blue
    assert "blue trousers" in shared.title()


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_searches_alone_and_with_words(way, gallery, tab):
    page = tab(gallery).open()
    jpeg = gallery.newest[5]["thumbnail"]
    page.fill("#text", "a red jacket")

    def give():
        if way == "choose":
            page.set_input_files("#files", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": jpeg})
        else:
            page.evaluate(
                """([way, bytes]) => { const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "x.jpg", { type: "image/jpeg" }));
                const options = { bubbles: true, cancelable: true, [way === "drop" ? "dataTransfer" : "clipboardData"]: data };
                document.body.dispatchEvent(way === "drop" ? new DragEvent(way, options) : new ClipboardEvent(way, options)); }""",
                [way, list(jpeg)],
            )

    question = asked(page, give)
    assert [set(clue) for clue in question["clues"]] == [{"text", "weight"}, {"image", "weight"}]
    assert "not part of the address" in page.inner_text("#query")
    assert "x.jpg" not in page.url
    page.get_by_role("button", name="Remove “a red jacket” from the search").click()
    page.wait_for_function("() => document.querySelectorAll('.clue').length === 1")
    settled(page)
    assert ids(page)[0] == gallery.newest[5]["item_id"], "the same picture is found first"
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('.clue').length === 2")
    assert page.get_attribute(".clue img", "src").startswith("blob:"), "back finds the picture again"


def test_clues_have_weights_and_a_second_description_may_be_added(gallery, tab):
    page = tab(gallery).open("?q=red")
    page.get_by_role("button", name="Add another description").click()
    assert page.evaluate("document.activeElement.id") == "text"
    page.fill("#text", "a hat")
    question = asked(page, lambda: page.press("#text", "Enter"))
    assert question["clues"] == [{"text": "a hat", "weight": 1}, {"text": "red", "weight": 1}]
    slider = page.get_by_label("Weight of “red”")
    slider.focus()
    question = asked(page, lambda: slider.press("Home"))
    assert question["clues"][1] == {"text": "red", "weight": -1}
    shared = tab(gallery)
    question = asked(shared.page, lambda: shared.open(page.url.split("/")[-1]))
    assert question["clues"] == [{"text": "a hat", "weight": 1}, {"text": "red", "weight": -1}]


def test_filters_have_the_counts_of_what_passes_and_narrow_the_search(gallery, tab):
    page = tab(gallery).open()
    cameras = Counter(row["camera_id"] for row in gallery.newest)
    box = page.locator("fieldset.facet", has_text="camera").locator("label")
    box.first.wait_for()
    shown = {label.split("\n")[0]: label.split("\n")[-1] for label in box.all_inner_texts()}
    assert shown == {str(camera): str(count) for camera, count in cameras.items()}
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/v1/browse") else None)
    for camera in ("2", "3"):
        page.locator(f"#f-camera_id-{camera}").check()
        page.wait_for_selector(f"#f-camera_id-{camera}:checked")
        settled(page)
    assert sent[-1]["where"] == {"camera_id": [2, 3]}
    assert page.inner_text("#show-filters") == "Filters (1)"
    assert set(ids(page)) <= {row["item_id"] for row in gallery.newest if row["camera_id"] in (2, 3)}
    splits = Counter(row["split"] for row in gallery.newest if row["camera_id"] in (2, 3))
    told = page.locator("fieldset.facet", has_text="split").locator("label").all_inner_texts()
    assert {label.split("\n")[0]: int(label.split("\n")[-1]) for label in told} == splits
    low, high = sorted(row["seen"] for row in gallery.newest)[10:60:49]
    page.fill("#f-seen-from", low.isoformat()[:19])
    page.press("#f-seen-from", "Tab")
    page.wait_for_function("() => document.querySelector('#show-filters').textContent === 'Filters (2)'")
    page.fill("#f-seen-to", high.isoformat()[:19])
    page.press("#f-seen-to", "Tab")
    expected = [row["item_id"] for row in gallery.newest if row["camera_id"] in (2, 3) and low <= row["seen"] <= high]
    page.wait_for_function(SHOWN, arg=expected[:24])
    page.get_by_role("button", name="Clear all filters").click()
    page.wait_for_function("() => document.querySelector('#show-filters').textContent === 'Filters'")


def test_more_like_this_and_not_this_change_the_search(gallery, tab):
    page = tab(gallery).open("?q=red")
    first = ids(page)[0]
    question = asked(page, lambda: page.locator(".card").nth(0).get_by_role("button", name="More like this").click())
    assert question["clues"] == [{"text": "red", "weight": 1}, {"item": first, "weight": 1}]
    assert first not in ids(page), "who was asked for is no hit"
    refused = ids(page)[0]
    question = asked(page, lambda: page.locator(".card").nth(0).get_by_role("button", name="Not this").click())
    assert question["clues"][-1] == {"item": refused, "weight": -0.5}
    assert not {first, refused} & set(ids(page))


def test_one_card_per_person(gallery, tab):
    page = tab(gallery).open("?q=red")
    question = asked(page, lambda: page.select_option("#one-per", "person_id"))
    assert question["one_per"] == "person_id"
    person = {row["item_id"]: row["person_id"] for row in gallery.newest}
    persons = [person[item] for item in ids(page)]
    assert len(persons) == len(set(persons)) > 10


def test_an_enlarged_picture_has_its_metadata_caption_and_track(gallery, tab):
    page = tab(gallery).open()
    row = gallery.newest[3]
    page.locator(".look").nth(3).click()
    dialog = page.locator("dialog[open]")
    dialog.locator(".track img").first.wait_for()
    text = dialog.inner_text()
    assert all(str(value) in text for value in (row["item_id"], row["caption"], row["camera_id"], row["split"]))
    same = [other for other in gallery.newest if other["person_id"] == row["person_id"]]
    assert dialog.locator(".track li").count() == len(same)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("id => document.querySelector('dialog[open] dd').textContent === id", arg=gallery.newest[4]["item_id"])
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_an_explanation_marks_the_words_and_lays_a_heat_map_over_the_picture(gallery, tab):
    page = tab(gallery).open("?q=a+red+jacket")
    page.locator(".look").first.click()
    page.get_by_role("button", name="Why is this a hit?").click()
    canvas = page.locator("dialog[open] canvas")
    canvas.wait_for()
    assert page.locator(".weighed span").count() == 3
    picture = page.locator(".picture img").bounding_box()
    assert canvas.bounding_box() == picture
    page.get_by_label("Heat map over the picture").uncheck()
    assert not canvas.is_visible()


def test_paging_shows_every_item_once(gallery, tab):
    page = tab(gallery).open()
    while page.locator("#more").is_visible():
        before = page.locator(".card").count()
        page.click("#more")
        page.wait_for_function("before => document.querySelectorAll('.card').length > before", arg=before)
        assert page.evaluate("document.activeElement.closest('.card').dataset.id") == gallery.newest[before]["item_id"]
    assert ids(page) == [row["item_id"] for row in gallery.newest]


def test_a_selection_is_kept_over_searches_and_exported(gallery, tab, tmp_path):
    where = {"person_id": [gallery.evil["person_id"]]}
    page = tab(gallery).open(f"?where={json.dumps(where)}")
    evil = f"[data-id={json.dumps(EVIL_ID, ensure_ascii=False)}]"
    page.locator(f".card{evil} .pick input").check()
    assert page.inner_text("#chosen strong") == "1 picture selected"
    search(page, "red")
    page.locator(f".card:not({evil}) .pick input").first.check()
    assert page.inner_text("#chosen strong") == "2 pictures selected"

    def exported(name):
        with page.expect_download() as kept:
            page.get_by_role("button", name=name).click()
        kept.value.save_as(tmp_path / "file")
        return (tmp_path / "file").read_bytes()

    rows = json.loads(exported("Export as JSON"))
    assert rows[0]["item_id"] == EVIL_ID
    assert rows[1]["score"] is not None
    assert all({"score", "generation", "camera_id", "caption"} <= set(row) for row in rows)
    table = list(csv.DictReader(io.StringIO(exported("Export as CSV").decode())))
    assert table[0]["item_id"] == f"'{EVIL_ID}", "no spreadsheet takes it for a formula"
    assert table[0]["caption"] == EVIL
    with zipfile.ZipFile(io.BytesIO(exported("Export as zip"))) as archive:
        assert archive.testzip() is None
        assert archive.read(archive.namelist()[1]) == gallery.evil["thumbnail"]


def test_the_history_is_this_browsers_and_can_be_cleared_and_switched_off(gallery, tab):
    page = tab(gallery).open()
    for text in ("red", "blue"):
        search(page, text)
    page.click("#show-past")
    assert page.locator("#past li a").all_inner_texts() == ["blue", "red"]
    page.locator("#past li a").nth(1).click()
    page.wait_for_function("() => document.querySelector('#text').value === 'red'")
    page.click("#show-past")
    page.get_by_role("button", name="Clear the history").click()
    assert page.locator("#past li").count() == 0
    page.get_by_label("Keep my searches").uncheck()
    page.keyboard.press("Escape")
    search(page, "green")
    assert page.evaluate("Object.entries(localStorage).filter(([key, value]) => value.includes('green')).length") == 0
