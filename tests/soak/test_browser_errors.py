"""The page in headless Chromium when something is wrong: every error, no connection, answers out of order, markup in a gallery."""

import json

import pytest
from page_services import EVIL, EVIL_ID
from page_steps import ids

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]


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
    sent = []
    page.route(
        "**/v1/search", lambda route: (sent.append(1), route.fulfill(status=503, json={"detail": "busy"}, headers={"Retry-After": "0"}))
    )
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_function(
        "() => document.querySelector('#problem [role=alert]') && !document.querySelector('#problem').innerText.includes('again in')",
        timeout=20_000,
    )
    assert len(sent) == 6, "once, and five times more"


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


def test_a_search_whose_connection_breaks_is_asked_for_once_more_and_a_change_is_not(gallery, tab):
    page, sent = tab(gallery).open(), []

    def broken_at_first(route):
        sent.append(route.request.url.rpartition("/v1/")[2])
        route.abort("connectionreset") if len(sent) == 1 else route.continue_()

    page.route("**/v1/search", broken_at_first)
    page.fill("#text", "red")
    page.press("#text", "Enter")
    page.wait_for_selector(".score")
    assert (sent, page.query_selector("#problem [role=alert]")) == (["search", "search"], None)
    sent.clear()
    page.route("**/v1/items/delete", broken_at_first)
    deleting = "async () => (await import(new URL('page/api.js', document.baseURI))).deleteItems({ ids: [] }).catch((e) => e.status)"
    assert (page.evaluate(deleting), sent) == (0, ["items/delete"])


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
    blue = ids(page)
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert ids(page) == blue


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
