"""The page opens in a real browser, searches and shows hits, without a fault or a breach of its policy. More: `make soak PART=browser`."""

import pytest
from browsers import Tab, chromium
from page_services import page_service

pytestmark = pytest.mark.slow


def test_the_page_searches_in_a_browser(tmp_path):
    with chromium() as browser, page_service(tmp_path) as service:
        tab = Tab(browser, service.url)
        page = tab.open()
        assert page.locator(".card").first.get_attribute("data-id") == service.newest[0]["item_id"]
        page.fill("#text", "red")
        page.press("#text", "Enter")
        page.wait_for_selector(".score")
        assert tab.faults == []
