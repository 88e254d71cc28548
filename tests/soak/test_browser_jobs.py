"""The page in headless Chromium over the service's jobs: running, done, failed, cancelled, after a reload, a thousand of them; tables."""

import io
import time

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browsers import axe_core
from page_services import EVIL
from page_steps import open_admin

from reid_ray.serve.adding.job_folder import JobFolder, JobStatus

pytestmark = [pytest.mark.slow, pytest.mark.soak("browser")]


def pictures(service, count, *broken):
    """So many pictures of an upload, and files that are none."""
    return [(f"{n}.jpg", row["thumbnail"]) for n, row in enumerate(service.newest[:count])] + [(name, b"no picture") for name in broken]


def sent(service, *parts):
    """A job of somebody else: fields and files of a form."""
    reply = httpx.post(f"{service.url}/v1/jobs", files=parts, timeout=30)
    assert reply.status_code == 202, reply.text
    return reply.json()["job_id"]


def table_of(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def of_another_encoder():
    """A table of embedded rows, whose job fails."""
    vectors, reason = pa.array([[72**-0.5] * 72], pa.list_(pa.float32())), pa.array([None], pa.string())
    return table_of(item_id=["x"], embedding=vectors, kind=["image"], status=["ok"], reason=reason, encoder_fingerprint=["other"])


def ended(service, job):
    found = httpx.get(f"{service.url}/v1/jobs/{job}?wait=30", timeout=60).json()
    assert found["state"] in ("done", "failed", "cancelled")
    return found


def choose(section, field, *files):
    section.locator(field).set_input_files([{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files])
    section.get_by_role("button", name="Add", exact=True).click()


@pytest.fixture
def three(own_gallery):
    """A service with a job that is done and refused something, one that failed, and one that runs."""
    broken = f"broken{EVIL}.jpg".replace('"', "'")
    ended(own_gallery, sent(own_gallery, *(("image", file) for file in pictures(own_gallery, 2, broken))))
    ended(own_gallery, sent(own_gallery, ("table", ("t.parquet", of_another_encoder()))))
    own_gallery.go.clear()
    sent(own_gallery, *(("image", file) for file in pictures(own_gallery, 20)))
    return own_gallery


def runs(section):
    section.get_by_text("1 job runs").wait_for()


def test_jobs_of_anybody_are_listed_the_latest_first_until_they_end(three, tab):
    page = tab(three).open()
    section = open_admin(page, "jobs")
    runs(section)
    rows = section.locator(".jobs > li")
    assert rows.count() == 3
    texts = rows.all_inner_texts()
    assert [word in text for word, text in zip(("running", "failed", "done"), texts, strict=True)] == [True] * 3
    assert "0 of 20 done" in texts[0]
    assert "encoder" in texts[1]
    assert "3 of 3 done, 2 added, 1 refused" in texts[2]
    rows.nth(2).get_by_text("What was refused: 1").click()
    rows.nth(2).locator("details li").wait_for()
    assert "<script>" in rows.nth(2).locator("details li").inner_text(), "a name is text, whatever it is"
    assert page.evaluate("'taken' in window") is False
    three.go.set()
    section.get_by_text("No job runs. Pictures: done, 20 of 20 done, 20 added, 0 refused.").wait_for(timeout=20_000)
    assert rows.first.locator("progress").is_hidden()
    page.keyboard.press("Escape")
    page.wait_for_function(
        "count => document.querySelector('#status').textContent.includes(`${count} pictures`)", arg=len(three.newest) + 20
    )


def test_a_job_is_cancelled_by_the_keyboard_after_it_was_asked_whether(three, tab):
    page = tab(three).open()
    section = open_admin(page, "jobs")
    runs(section)
    button = section.get_by_role("button", name="Cancel")
    assert button.count() == 1, "what has ended is not cancelled"
    button.focus()
    page.keyboard.press("Enter")
    section.get_by_role("button", name="Cancel: sure?").wait_for()
    page.keyboard.press("Enter")
    section.get_by_text("Ends after its batch").wait_for()
    three.go.set()
    section.get_by_text("No job runs. Pictures: cancelled").wait_for()
    here = "document.activeElement === document.querySelector('.jobs > li')"
    assert page.evaluate(here), "the button is gone, the focus is on its job"


def test_a_job_of_this_page_is_found_again_after_a_reload(own_gallery, tab):
    own_gallery.go.clear()
    page = tab(own_gallery).open()
    section = open_admin(page, "add")
    choose(section, "#add-files", *pictures(own_gallery, 3))
    section.get_by_text("0 of 3 pictures done").wait_for()
    page.reload()
    page.wait_for_selector(".card")
    section = open_admin(page, "add")
    section.get_by_role("button", name="All jobs").click()
    runs(page.locator("#admin-jobs"))
    assert page.evaluate("document.activeElement.textContent") == "Jobs", "the focus is where the list is"
    own_gallery.go.set()
    page.get_by_text("3 of 3 done, 3 added, 0 refused").first.wait_for()


def test_what_is_being_added_is_cancelled_where_it_was_begun(own_gallery, tab):
    own_gallery.go.clear()
    page = tab(own_gallery).open()
    section = open_admin(page, "add")
    choose(section, "#add-files", *pictures(own_gallery, 20))
    section.get_by_text("0 of 20 pictures done").wait_for()
    section.get_by_role("button", name="Cancel").click()
    own_gallery.go.set()
    section.get_by_text("Cancelled: ").wait_for()
    assert section.locator("[role=alert]").count() == 0


def test_an_upload_is_cancelled_while_it_is_sent_and_leaving_then_is_asked_about(own_gallery, tab):
    view = tab(own_gallery)
    page = view.open()
    page.route("**/v1/jobs", lambda route: None)  # never answered
    section = open_admin(page, "table")
    section.locator("#add-table-file").set_input_files(
        [{"name": "t.parquet", "mimeType": "application/octet-stream", "buffer": table_of(image_id=["a"])}]
    )
    section.get_by_role("button", name="Add", exact=True).focus()
    page.keyboard.press("Enter")
    section.get_by_text("Sending t.parquet, 1 KiB").wait_for()
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("setTimeout(() => location.reload())")
    while not asked:
        page.wait_for_timeout(50)
    assert asked == ["beforeunload"]
    assert page.evaluate("document.activeElement.textContent") == "Cancel", "Add cannot be pressed now: the focus is on what can"
    page.keyboard.press("Enter")
    section.get_by_text("Cancelled: 0 rows added before.").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "status"
    assert section.locator("[role=alert]").count() == 0
    view.faults = [fault for fault in view.faults if not fault.startswith("dialog: ")]


def test_a_list_that_the_service_does_not_answer_for_is_asked_for_again(three, tab):
    page = tab(three).open()
    section = open_admin(page, "jobs")
    runs(section)
    busy = lambda route: route.fulfill(status=503, json={"detail": "busy"}, headers={"Retry-After": "1"})  # noqa: E731
    page.route("**/v1/jobs**", busy)
    section.get_by_text("The service is busy.").wait_for()
    assert section.locator(".jobs > li").count() == 3, "what is known stays"
    page.unroute("**/v1/jobs**", busy)
    three.go.set()
    section.get_by_text("No job runs. Pictures: done").wait_for(timeout=20_000)
    assert section.locator("[role=alert]").count() == 0


def test_a_table_is_added_with_its_columns_and_its_refusals(own_gallery, tab):
    page = tab(own_gallery).open()
    section = open_admin(page, "table")
    section.get_by_text("image_id or item_id").wait_for()
    images = [row["thumbnail"] for row in own_gallery.newest[:2]]
    choose(
        section, "#add-table-file", ("people.parquet", table_of(item_id=["t1", "t2", "t3"], image=[*images, b"none"], camera_id=[78] * 3))
    )
    section.get_by_text("2 rows added, 1 refused:").wait_for(timeout=20_000)
    assert "t3: not_an_image" in section.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function(
        "count => document.querySelector('#status').textContent.includes(`${count} pictures`)", arg=len(own_gallery.newest) + 2
    )
    assert "camera 78" in page.locator(".card").first.inner_text()


@pytest.mark.parametrize(
    ("data", "said"), [(b"a,b\n1,2\n", "cannot be read as Parquet"), (table_of(image_id=["a"]), "nor columns image and image_id")]
)
def test_a_table_that_cannot_be_taken_is_refused_in_words(data, said, own_gallery, tab):
    page = tab(own_gallery).open()
    section = open_admin(page, "table")
    choose(section, "#add-table-file", ("people.parquet", data))
    section.locator("[role=alert]").wait_for()
    assert said in section.locator("[role=alert]").inner_text()
    assert section.get_by_role("button", name="Add", exact=True).is_enabled()
    assert section.get_by_role("button", name="Cancel").is_hidden()


def test_a_table_whose_job_fails_says_why(own_gallery, tab):
    page = tab(own_gallery).open()
    section = open_admin(page, "table")
    choose(section, "#add-table-file", ("rows.parquet", of_another_encoder()))
    section.get_by_text("The job failed.").wait_for()


def test_a_thousand_jobs_come_by_pages(own_gallery, tab):
    now = time.time()
    for n in range(1_000):
        folder = JobFolder(own_gallery.jobs / f"{n:032x}")
        folder.path.mkdir()
        refused = [{"file": f"{at}.jpg", "item_id": "", "reason": "not_an_image: no picture"} for at in range(50)]
        folder.write_status(
            JobStatus(f"{n:032x}", "pictures", "me", now - n, 1, state="done", total=50, done=50, refused_count=50, refused=refused)
        )
    own_gallery.go.clear()
    page = tab(own_gallery).open()
    sizes = []
    page.on("response", lambda reply: sizes.append(len(reply.body())) if "/v1/jobs" in reply.url else None)
    section = open_admin(page, "jobs")
    section.get_by_text("No job runs").wait_for()
    assert section.locator(".jobs > li").count() == 20
    section.get_by_role("button", name="Earlier jobs").click()
    section.locator(".jobs > li").nth(39).wait_for()
    assert max(sizes) < 100_000
    times = section.locator(".jobs h3").all_inner_texts()
    assert len(times) == 40
    assert section.locator(".jobs > li").last.locator("details li").count() == 0, "what was refused is asked for when it is opened"


@pytest.mark.parametrize("role", ["write", "admin"])
def test_writers_see_jobs_and_searchers_do_not(role, guarded_gallery, tab):
    page = tab(guarded_gallery).open()
    page.wait_for_selector("#login[open]")
    page.fill("#token", guarded_gallery.tokens[role])
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    section = open_admin(page, "jobs")
    section.get_by_text("There are no jobs").wait_for()
    assert page.locator("#admin-audit").count() == (role == "admin")


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"width": 360, "height": 640}], ids=str)
def test_axe_finds_nothing_while_jobs_run_have_failed_and_are_refused(look, three, tab):
    view, axe, found = tab(three, **look), axe_core(), {}
    page = view.open()

    def look_at(state):
        page.wait_for_timeout(250)
        found[state] = view.violations(axe)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state

    section = open_admin(page, "jobs")
    runs(section)
    section.get_by_text("What was refused: 1").click()
    section.locator(".jobs details li").wait_for()
    look_at("running, failed, done")
    section.get_by_role("button", name="Cancel").click()
    look_at("sure?")
    page.keyboard.press("Escape")
    section = open_admin(page, "add")
    choose(section, "#add-files", *pictures(three, 3, "broken.jpg"))
    section.get_by_text("0 of 4 pictures done").wait_for()
    look_at("adding")
    three.go.set()
    section.get_by_text("3 pictures added, 1 refused").wait_for(timeout=20_000)
    look_at("added and refused")
    page.keyboard.press("Escape")
    section = open_admin(page, "table")
    choose(section, "#add-table-file", ("t.parquet", b"none"))
    section.locator("[role=alert]").wait_for()
    look_at("a table refused")
    assert {state: problems for state, problems in found.items() if problems} == {}
