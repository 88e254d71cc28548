"""The page in headless Chromium for everybody: the keyboard alone, a phone, both colour schemes, less motion, axe-core in every state."""

import pytest
from browsers import axe_core
from page_steps import asked, ids, open_admin, search

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]
AXE = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}, "phone": {"width": 360, "height": 640}}


def test_everything_is_reached_by_the_keyboard(gallery, tab):
    page = tab(gallery).open()
    focus = "(() => { const e = document.activeElement; return e.id || e.className || e.textContent; })()"
    assert page.evaluate(focus) == "text"
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    page.wait_for_selector("#grid[aria-busy=false] .score")
    page.keyboard.press("ArrowDown")
    here = "document.activeElement.closest('.card')?.dataset.id"
    shown = ids(page)
    across = page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    for key, place in [
        ("ArrowRight", 1),
        ("ArrowDown", 1 + across),
        ("ArrowUp", 1),
        ("End", len(shown) - 1),
        ("Home", 0),
        ("ArrowRight", 1),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(here) == shown[place], key
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
    assert ring == "solid3px", "what has the focus is seen to have it"
    page.keyboard.press("s")
    assert page.inner_text("#chosen strong") == "1 picture selected"
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.evaluate(here) == shown[1], "closed, the focus is back where it was"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "More like this"
    question = asked(page, lambda: page.keyboard.press("Enter"))
    assert question["clues"][-1]["item"] == shown[1]
    assert page.evaluate(here) == ids(page)[0], "new hits take the focus of those that are gone"
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
    for section in ("add", "table", "jobs", "remove", "generations", "audit"):
        open_admin(page, section)
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
    search(page, "a red jacket")
    page.locator(".pick input").first.check()
    look_at("hits and a selection")
    asked(page, lambda: page.locator(".card").nth(1).get_by_role("button", name="More like this").click())
    look_at("clues")
    page.locator(".look").first.click()
    page.get_by_role("button", name="Why is this a hit?").click()
    page.locator("dialog[open] canvas").wait_for()
    look_at("enlarged and explained")
    page.keyboard.press("Escape")
    for name in ("past", "settings"):
        page.click(f"#show-{name}")
        look_at(name)
        page.keyboard.press("Escape")
    for section in ("add", "table", "jobs", "remove", "erasures", "generations", "audit"):
        open_admin(page, section)
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
