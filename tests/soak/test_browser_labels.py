"""The labelling page in headless Chromium: answered by keys and buttons, told in words, and accessible."""

from contextlib import closing
from types import SimpleNamespace

import pytest
from browsers import axe_core
from drawn_crops import near_duplicate_crops

from reid_ray.serve.process.http_thread import bound_socket, running_server
from reid_ray.serve.same_person.decision_log import DecisionLog
from reid_ray.serve.same_person.label_desk import LabelDesk
from reid_ray.serve.same_person.label_routes import label_application
from reid_ray.serve.same_person.look_alikes import look_alikes

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]


@pytest.fixture
def asked(tmp_path, tab):
    """(page, tab, log): the page with its first question."""
    near_duplicate_crops(tmp_path / "images")
    with closing(DecisionLog(tmp_path / "said.jsonl")) as log, bound_socket("127.0.0.1", 0) as listening:
        alike = look_alikes(str(tmp_path / "images"), embeddings=None, neighbours=3, least=0.5, most=100, tracks=False)
        with running_server(label_application(LabelDesk(alike, log)), listening):
            view = tab(SimpleNamespace(url=f"http://127.0.0.1:{listening.getsockname()[1]}"))
            view.page.goto(f"{view.url}/")
            view.page.wait_for_selector(".sides")
            yield view.page, view, log


def said(log):
    log.refresh()
    return [decision.says for decision in log.decisions]


def test_three_pairs_are_answered_by_keys_and_the_last_answer_is_taken_back(asked):
    page, _, log = asked
    page.wait_for_function("() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    for key, left in (("s", 2), ("d", 1), ("s", 0)):
        page.keyboard.press(key)
        page.wait_for_function(f"() => document.getElementById('progress').innerText.includes('{left} pair')")
    assert "Nothing is open" in page.inner_text("#question")
    assert page.is_disabled("#same")
    page.keyboard.press("u")
    page.wait_for_selector(".sides")
    assert said(log) == ["same", "different", "same", "undo"]


def test_a_picture_is_taken_out_by_its_button(asked):
    page, _, log = asked
    page.click("#same")
    page.wait_for_function("() => document.getElementById('progress').innerText.includes('2 pairs')")
    page.click("#undo")
    page.wait_for_function("() => document.getElementById('progress').innerText.includes('3 pairs')")
    assert page.get_by_role("button", name="Take").count() == 0  # of a picture alone there is nothing to be taken out of
    assert said(log) == ["same", "undo"]


def test_a_server_that_is_gone_is_told_and_nothing_breaks_the_rules_of_accessibility(asked):
    page, view, log = asked
    assert view.violations(axe_core()) == []
    page.route("**/label/decisions", lambda route: route.abort())
    page.keyboard.press("s")
    page.wait_for_selector("#problem .problem")
    assert "does not answer" in page.inner_text("#problem")
    page.unroute("**/label/decisions")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("() => !document.querySelector('#problem .problem')")
    assert said(log) == []
