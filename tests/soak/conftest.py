"""What tests of the page share: a browser, the service over a gallery of synthetic people, tabs that note what goes wrong in them."""

import pytest
from browsers import Tab, chromium
from page_services import page_service


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
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
