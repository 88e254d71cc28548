"""The page of the search service in headless Chromium, on the real application over a gallery of synthetic people: every verb, every
error, an injection, the keyboard alone, a phone, both colour schemes, and axe-core in every state. Nothing may break the content policy.
"""

import csv
import io
import json
import zipfile
from collections import Counter

import pytest
from browsers import Tab, axe_core, chromium
from page_services import EVIL, EVIL_ID, page_service

pytestmark = pytest.mark.slow
AXE = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}, "phone": {"width": 360, "height": 640}}
_EXPLANATION = {
    "score": 0.31,
    "words": [{"word": word, "start": 0, "end": 1, "effect": effect} for word, effect in (("a", 0.0), ("red", 0.2), ("jacket", -0.1))],
    "patches": {"rows": 4, "columns": 2, "effects": [[0.0, 0.1], [0.3, -0.2], [0.0, 0.0], [0.01, 0.02]]},
}
# Whether exactly these items are shown, in this order.
_SHOWN = "ids => JSON.stringify([...document.querySelectorAll('.card')].map(card => card.dataset.id)) === JSON.stringify(ids)"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    with page_service(tmp_path_factory.mktemp("gallery")) as service:
        yield service


@pytest.fixture
def own_gallery(tmp_path):
    """A service of its own, for a test that changes the gallery."""
    with page_service(tmp_path) as service:
        yield service


@pytest.fixture
def guarded_gallery(tmp_path):
    """A service with tokens."""
    with page_service(tmp_path, with_tokens=True) as service:
        yield service


@pytest.fixture
def tab(browser, request):
    """tab(service, ...) -> Tab; at the end no tab may have had a fault or a breach of the policy."""
    tabs = []

    def tab(service, **options):
        tabs.append(Tab(browser, service.url, **options))
        return tabs[-1]

    yield tab
    for each in tabs:
        each.context.close()
        assert each.faults == []


def _ids(page):
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.id)")


def _search(page, text):
    page.fill("#text", text)
    with page.expect_response("**/v1/search") as reply:
        page.press("#text", "Enter")
    page.wait_for_selector("#grid[aria-busy=false] .score")
    return reply.value


def _settled(page):
    page.wait_for_selector("#grid[aria-busy=false]")


def _asked(page, act):
    """What a search asks after an act."""
    with page.expect_request("**/v1/search") as sent:
        act()
    asked = sent.value.post_data_json
    sent.value.response()
    _settled(page)
    return asked


def test_without_a_search_the_gallery_is_shown_newest_first(gallery, tab):
    page = tab(gallery).open()
    assert _ids(page) == [row["item_id"] for row in gallery.newest[:24]]
    assert f"{len(gallery.newest)} pictures" in page.inner_text("#status")
    page.wait_for_function("() => [...document.querySelectorAll('.card img')].slice(0, 4).every(image => image.naturalWidth > 0)")


def test_a_search_is_in_the_address_and_back_forward_and_a_shared_link_find_it(gallery, tab):
    page = tab(gallery).open()
    first = _ids(page)
    _search(page, "a red jacket")
    red = _ids(page)
    assert page.url.endswith("/?q=a+red+jacket")
    _search(page, "blue trousers")
    blue = _ids(page)
    assert red != blue != first
    for go, expected, text in [("go_back", red, "a red jacket"), ("go_back", first, ""), ("go_forward", red, "a red jacket")]:
        with page.expect_response("**/v1/*"):
            getattr(page, go)()
        page.wait_for_function(_SHOWN, arg=expected)
        assert page.input_value("#text") == text
    shared = tab(gallery).open("?q=blue+trousers")
    assert _ids(shared) == blue
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

    asked = _asked(page, give)
    assert [set(clue) for clue in asked["clues"]] == [{"text", "weight"}, {"image", "weight"}]
    assert "not part of the address" in page.inner_text("#query")
    assert "x.jpg" not in page.url
    page.get_by_role("button", name="Remove “a red jacket” from the search").click()
    page.wait_for_function("() => document.querySelectorAll('.clue').length === 1")
    _settled(page)
    assert _ids(page)[0] == gallery.newest[5]["item_id"], "the same picture is found first"
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('.clue').length === 2")
    assert page.get_attribute(".clue img", "src").startswith("blob:"), "back finds the picture again"


def test_clues_have_weights_and_a_second_description_may_be_added(gallery, tab):
    page = tab(gallery).open("?q=red")
    page.get_by_role("button", name="Add another description").click()
    assert page.evaluate("document.activeElement.id") == "text"
    page.fill("#text", "a hat")
    asked = _asked(page, lambda: page.press("#text", "Enter"))
    assert asked["clues"] == [{"text": "a hat", "weight": 1}, {"text": "red", "weight": 1}]
    slider = page.get_by_label("Weight of “red”")
    slider.focus()
    asked = _asked(page, lambda: slider.press("Home"))
    assert asked["clues"][1] == {"text": "red", "weight": -1}
    shared = tab(gallery)
    asked = _asked(shared.page, lambda: shared.open(page.url.split("/")[-1]))
    assert asked["clues"] == [{"text": "a hat", "weight": 1}, {"text": "red", "weight": -1}]


def test_filters_have_the_counts_of_what_passes_and_narrow_the_search(gallery, tab):
    page = tab(gallery).open()
    cameras = Counter(row["camera_id"] for row in gallery.newest)
    box = page.locator("fieldset.facet", has_text="camera").locator("label")
    box.first.wait_for()
    shown = {label.split("\n")[0]: label.split("\n")[-1] for label in box.all_inner_texts()}
    assert shown == {str(camera): str(count) for camera, count in cameras.items()}
    asked = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.url.endswith("/v1/browse") else None)
    for camera in ("2", "3"):
        page.locator(f"#f-camera_id-{camera}").check()
        page.wait_for_selector(f"#f-camera_id-{camera}:checked")
        _settled(page)
    assert asked[-1]["where"] == {"camera_id": [2, 3]}
    assert page.inner_text("#show-filters") == "Filters (1)"
    assert set(_ids(page)) <= {row["item_id"] for row in gallery.newest if row["camera_id"] in (2, 3)}
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
    page.wait_for_function(_SHOWN, arg=expected[:24])
    page.get_by_role("button", name="Clear all filters").click()
    page.wait_for_function("() => document.querySelector('#show-filters').textContent === 'Filters'")


def test_more_like_this_and_not_this_change_the_search(gallery, tab):
    page = tab(gallery).open("?q=red")
    first = _ids(page)[0]
    asked = _asked(page, lambda: page.locator(".card").nth(0).get_by_role("button", name="More like this").click())
    assert asked["clues"] == [{"text": "red", "weight": 1}, {"item": first, "weight": 1}]
    assert first not in _ids(page), "who was asked for is no hit"
    refused = _ids(page)[0]
    asked = _asked(page, lambda: page.locator(".card").nth(0).get_by_role("button", name="Not this").click())
    assert asked["clues"][-1] == {"item": refused, "weight": -0.5}
    assert not {first, refused} & set(_ids(page))


def test_one_card_per_person(gallery, tab):
    page = tab(gallery).open("?q=red")
    asked = _asked(page, lambda: page.select_option("#one-per", "person_id"))
    assert asked["one_per"] == "person_id"
    person = {row["item_id"]: row["person_id"] for row in gallery.newest}
    persons = [person[item] for item in _ids(page)]
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
    page.route("**/v1/explain", lambda route: route.fulfill(json=_EXPLANATION))
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
    assert _ids(page) == [row["item_id"] for row in gallery.newest]


def test_a_selection_is_kept_over_searches_and_exported(gallery, tab, tmp_path):
    where = {"person_id": [gallery.evil["person_id"]]}
    page = tab(gallery).open(f"?where={json.dumps(where)}")
    evil = f"[data-id={json.dumps(EVIL_ID, ensure_ascii=False)}]"
    page.locator(f".card{evil} .pick input").check()
    assert page.inner_text("#chosen strong") == "1 picture selected"
    _search(page, "red")
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
        _search(page, text)
    page.click("#show-past")
    assert page.locator("#past li a").all_inner_texts() == ["blue", "red"]
    page.locator("#past li a").nth(1).click()
    page.wait_for_function("() => document.querySelector('#text').value === 'red'")
    page.click("#show-past")
    page.get_by_role("button", name="Clear the history").click()
    assert page.locator("#past li").count() == 0
    page.get_by_label("Keep my searches").uncheck()
    page.keyboard.press("Escape")
    _search(page, "green")
    assert page.evaluate("Object.entries(localStorage).filter(([key, value]) => value.includes('green')).length") == 0


def _open_admin(page, section):
    page.click("#show-admin")
    page.wait_for_selector("dialog[open]")
    if section != "add":
        page.locator(f"#admin-{section} > summary").click()
    return page.locator(f"#admin-{section}")


PROBLEMS = {
    401: ("Please log in", False),
    403: ("role does not allow", False),
    413: ("Too large", False),
    422: ("cannot be answered", False),
    429: ("Too many requests", True),
    500: ("failed", False),
    503: ("busy", True),
    504: ("No answer in time", False),
}


@pytest.mark.parametrize("status", PROBLEMS)
def test_every_error_is_told_in_words_and_says_what_to_do(status, gallery, tab):
    page = tab(gallery).open()
    words, comes_back = PROBLEMS[status]
    detail = "<b>because</b> of a test"
    headers = {"Retry-After": "1"} if comes_back else {}
    route = lambda route: route.fulfill(status=status, json={"detail": detail}, headers=headers)  # noqa: E731
    page.route("**/v1/search", route)
    page.fill("#text", "red")
    page.press("#text", "Enter")
    alert = page.locator("#problem [role=alert]")
    alert.wait_for()
    assert words in alert.inner_text()
    assert detail in alert.inner_text()
    assert page.locator(".card").count() == 0, "hits of another search do not stay"
    if status == 401:
        page.locator("#problem").get_by_role("button", name="Log in").click()
        page.wait_for_selector("#login[open]")
        return
    page.unroute("**/v1/search", route)
    if comes_back:
        assert "again in" in page.inner_text("#problem")
    elif status in (500, 504):
        page.get_by_role("button", name="Try again").click()
    else:
        page.press("#text", "Enter")
    page.wait_for_selector(".score")
    assert page.locator("#problem [role=alert]").count() == 0


def test_what_is_busy_for_ever_is_not_asked_for_ever(gallery, tab):
    page = tab(gallery).open()
    asked = []
    page.route(
        "**/v1/search", lambda route: (asked.append(1), route.fulfill(status=503, json={"detail": "busy"}, headers={"Retry-After": "0"}))
    )
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_function(
        "() => document.querySelector('#problem [role=alert]') && !document.querySelector('#problem').innerText.includes('again in')",
        timeout=20_000,
    )
    assert len(asked) == 6, "once, and five times more"


def test_without_a_connection_the_page_says_so_and_goes_on_when_it_is_back(gallery, tab):
    view = tab(gallery)
    page = view.open()
    view.context.set_offline(True)
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_selector("#problem [role=alert]")
    assert "No connection" in page.inner_text("#problem")
    view.context.set_offline(False)
    page.wait_for_selector(".score")


def test_an_answer_that_is_no_json_and_a_page_before_the_service_are_told(gallery, tab):
    page = tab(gallery).open()
    page.route("**/v1/search", lambda route: route.fulfill(status=200, body="<html>log in to the hotel's network</html>"))
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_selector("#problem [role=alert]")
    assert "Something other than the service answered" in page.inner_text("#problem")
    late = tab(gallery)
    late.page.route(
        "**/v1/info", lambda route: route.fulfill(status=503, json={"detail": "the service is starting"}, headers={"Retry-After": "1"})
    )
    late.page.goto(late.url)
    late.page.wait_for_selector("#problem [role=alert]")
    late.page.unroute("**/v1/info")
    late.page.wait_for_selector(".card")


def test_the_answer_of_an_earlier_search_does_not_replace_that_of_a_later_one(gallery, tab):
    page = tab(gallery).open()
    held = []
    page.route("**/v1/search", lambda route: held.append(route) if "red" in route.request.post_data else route.continue_())
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Searching')")
    page.fill("#text", "blue")
    page.press("#text", "Enter")
    page.wait_for_selector(".score")
    blue = _ids(page)
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert _ids(page) == blue


def test_markup_in_a_caption_an_id_or_a_column_stays_text(gallery, tab):
    where = json.dumps({"person_id": [gallery.evil["person_id"]]})
    page = tab(gallery).open(f"?where={where}")
    card = page.locator(f"[data-id={json.dumps(EVIL_ID, ensure_ascii=False)}]")
    assert EVIL in card.inner_text()
    card.locator(".look").click()
    page.locator("dialog[open] .track img").first.wait_for()
    assert EVIL in page.inner_text("dialog[open] blockquote")
    assert EVIL_ID in page.inner_text("dialog[open] dl")
    assert page.locator("dialog[open] .picture img").evaluate("image => image.complete && image.naturalWidth > 0")
    page.locator("dialog[open]").get_by_role("button", name="More like this").click()
    page.wait_for_selector(".clue img")
    assert page.evaluate(
        "[document.title.includes('taken'), 'taken' in window, document.querySelectorAll('main script, main b, main i').length]"
    ) == [False, False, 0]
    text = "<script>window.taken=1</script><img src=x onerror=window.taken=1>"
    page.goto(f"{gallery.url}/?q={text}&where={{&item=1~{text}")
    page.wait_for_selector("#problem [role=alert]")
    assert page.evaluate("'taken' in window") is False


def test_everything_is_reached_by_the_keyboard(gallery, tab):
    page = tab(gallery).open()
    focus = "(() => { const e = document.activeElement; return e.id || e.className || e.textContent; })()"
    assert page.evaluate(focus) == "text"
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    page.wait_for_selector("#grid[aria-busy=false] .score")
    page.keyboard.press("ArrowDown")
    here = "document.activeElement.closest('.card')?.dataset.id"
    ids = _ids(page)
    across = page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    for key, place in [("ArrowRight", 1), ("ArrowDown", 1 + across), ("ArrowUp", 1), ("End", len(ids) - 1), ("Home", 0), ("ArrowRight", 1)]:
        page.keyboard.press(key)
        assert page.evaluate(here) == ids[place], key
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
    assert ring == "solid3px", "what has the focus is seen to have it"
    page.keyboard.press("s")
    assert page.inner_text("#chosen strong") == "1 picture selected"
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.evaluate(here) == ids[1], "closed, the focus is back where it was"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "More like this"
    asked = _asked(page, lambda: page.keyboard.press("Enter"))
    assert asked["clues"][-1]["item"] == ids[1]
    assert page.evaluate(here) == _ids(page)[0], "new hits take the focus of those that are gone"
    page.focus(".skip")
    reached, stops = set(), 0
    while stops < 200 and not (stops and page.evaluate("document.activeElement === document.body")):
        reached.add(page.evaluate(focus))
        page.keyboard.press("Tab")
        stops += 1
    assert {
        "text",
        "pick",
        "show-filters",
        "show-past",
        "show-admin",
        "show-settings",
        "one-per",
        "k",
        "look",
        "more",
        "f-seen-from",
    } <= reached
    assert "Clear" in reached, "the selection's bar is reached"
    assert stops < 120, "one stop in the grid, not one for each picture"


def test_on_a_phone_the_header_is_small_and_nothing_is_cut_off(gallery, tab):
    page = tab(gallery, width=360, height=640, has_touch=True).open("?q=red")
    page.wait_for_selector(".score")

    def fits():
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        out = """[...document.querySelectorAll("button, input, select, img")]
            .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 361 && !e.closest(".track, .scroll, .unseen"))
            .map((e) => e.outerHTML)"""
        assert page.evaluate(out) == []

    assert page.evaluate("document.querySelector('header').offsetHeight") < 640 / 5
    fits()
    page.click("#show-filters")
    page.wait_for_selector(".facet label")
    fits()
    page.click("#show-filters")
    page.locator(".pick input").first.check()
    fits()
    page.locator(".look").nth(1).click()
    page.locator("dialog[open] .track img").first.wait_for()
    fits()
    page.keyboard.press("Escape")
    for section in ("add", "remove", "generations", "audit"):
        _open_admin(page, section)
        fits()
        page.keyboard.press("Escape")


def test_the_colour_scheme_follows_the_system_until_one_is_chosen(gallery, tab):
    page = tab(gallery, color_scheme="dark").open()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#show-settings")
    page.get_by_label("light", exact=True).check()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.wait_for_selector(".card")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_whoever_asks_for_less_motion_gets_none(gallery, tab):
    page = tab(gallery, reduced_motion="reduce").open()
    moving = """[...document.querySelectorAll("*")].map((e) => getComputedStyle(e))
        .filter((style) => parseFloat(style.transitionDuration) > 0 || parseFloat(style.animationDuration) > 0).length"""
    assert page.evaluate(moving) == 0


@pytest.mark.parametrize("look", AXE)
def test_axe_finds_nothing_in_any_state(look, gallery, tab):
    axe = axe_core()
    view = tab(gallery, **AXE[look])
    page = view.open()
    found = {}

    def look_at(state):
        page.wait_for_timeout(250)
        found[state] = view.violations(axe)

    look_at("the gallery")
    if page.locator("#filters").is_hidden():
        page.click("#show-filters")
    page.wait_for_selector(".facet label")
    look_at("filters")
    page.click("#show-filters")
    _search(page, "a red jacket")
    page.locator(".pick input").first.check()
    look_at("hits and a selection")
    _asked(page, lambda: page.locator(".card").nth(1).get_by_role("button", name="More like this").click())
    look_at("clues")
    page.route("**/v1/explain", lambda route: route.fulfill(json=_EXPLANATION))
    page.locator(".look").first.click()
    page.get_by_role("button", name="Why is this a hit?").click()
    page.locator("dialog[open] canvas").wait_for()
    look_at("enlarged and explained")
    page.keyboard.press("Escape")
    for name in ("past", "settings"):
        page.click(f"#show-{name}")
        look_at(name)
        page.keyboard.press("Escape")
    for section in ("add", "remove", "erasures", "generations", "audit"):
        _open_admin(page, section)
        look_at(f"admin: {section}")
        page.keyboard.press("Escape")
    page.route("**/v1/search", lambda route: route.fulfill(status=401, json={"detail": "log in"}))
    page.fill("#text", "blue")
    page.press("#text", "Enter")
    page.wait_for_selector("#problem [role=alert]")
    look_at("a problem")
    page.locator("#problem").get_by_role("button", name="Log in").click()
    look_at("login")
    assert {state: problems for state, problems in found.items() if problems} == {}


def _add(page, *files):
    section = _open_admin(page, "add")
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
    gone = _ids(page)[1:3]
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
    _settled(page)
    assert not set(gone) & set(_ids(page))
    assert page.locator("#chosen").is_hidden(), "what is gone is not selected"


def test_an_erasure_by_filter_gives_a_receipt(own_gallery, tab, tmp_path):
    person = own_gallery.newest[40]["person_id"]
    page = tab(own_gallery).open(f"?where={json.dumps({'person_id': [person]})}")
    count = page.locator(".card").count()
    section = _open_admin(page, "remove")
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
    section = _open_admin(page, "generations")
    section.locator("#snapshot-name").fill("before")
    section.get_by_role("button", name="Take a snapshot").click()
    section.get_by_role("button", name="Restore before").click()
    section.get_by_role("button", name="Restore before: sure?").click()
    section.get_by_role("button", name="Drop before").click()
    section.get_by_role("button", name="Drop before: sure?").click()
    section.get_by_text("There are no snapshots").wait_for()


def test_the_audit_log_is_shown_and_verified(own_gallery, tab):
    page = tab(own_gallery).open("?q=red")
    page.wait_for_selector(".score")
    section = _open_admin(page, "audit")
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
    _search(page, "red")
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
