"""The tutorial on a user's own crops is run as it stands, from top to bottom, on a few drawn people, and says what it shows."""

import json
import urllib.request

import pytest
from tutorials import ROOT, PageRun, missing_line, steps_of

from reid_ray.rehearse.published import write_crops, write_footage

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "own_crops.md").read_text()
NEVER_HERE = ("hub", "GPU", "cluster")  # what a step may say that it needs and a test has not


def test_every_command_of_the_tutorial_runs_in_order_and_says_what_the_page_shows(tmp_path):
    follow_the_page(tmp_path, without=(*NEVER_HERE, "minutes"))


@pytest.mark.soak("page_commands")
def test_with_those_that_start_an_engine_it_does_too(tmp_path):
    follow_the_page(tmp_path, without=NEVER_HERE)


def follow_the_page(tmp_path, *, without):
    write_crops(tmp_path / "crops", identities=8)
    (tmp_path / "crop.jpg").write_bytes(next((tmp_path / "crops").rglob("*.jpg")).read_bytes())
    names = sorted(str(path.relative_to(tmp_path / "crops")) for path in (tmp_path / "crops").rglob("*.jpg"))
    rows = [f"{name},{'hall' if number % 4 < 2 else 'yard'},2026-03-01T08:{number:02d}:00" for number, name in enumerate(names)]
    (tmp_path / "own.csv").write_text("\n".join(["image,zone,time", *rows]) + "\n")
    write_footage(tmp_path / "videos", frames=False)
    write_crops(tmp_path / "others", identities=1)
    (tmp_path / "more").mkdir()
    max((tmp_path / "others").rglob("*.jpg")).rename(tmp_path / "more" / "new.jpg")
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    steps = [step for step in steps_of(PAGE) if not any(word in step.needs for word in without)]
    assert len(steps) >= 2
    with PageRun(tmp_path, label=say_who_is_who) as run:
        for step in steps:
            run.run(step)


def say_who_is_who(url):
    """Answer the labelling page as the pictures' names tell, until nothing is open."""
    for _ in range(1000):
        with urllib.request.urlopen(f"{url}/label/question?who=me", timeout=30) as answer:
            question = json.load(answer)["question"]
        if question is None:
            return
        one, other = (side["pictures"][0]["image_id"].rpartition("/")[2].partition("_")[0] for side in question["sides"])
        said = {"says": "same" if one == other else "different", "pictures": question["pair"], "who": "me"}
        request = urllib.request.Request(f"{url}/label/decisions", json.dumps(said).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
    raise AssertionError("the page goes on asking")


def test_a_line_that_did_not_come_or_came_too_early_is_found():
    page = "```sh\n# needs your data\nfirst one\nsecond 'two words'   # needs a hub\n```\n\n```text\na ... c\nd\n```\n"
    first, second = steps_of(page)
    assert (first.words, first.needs, first.shown) == (["first", "one"], "your data", ())
    assert (second.words, second.needs, second.shown) == (["second", "two words"], "a hub", ("a ... c", "d"))
    assert missing_line(second.shown, "x\na (b) c\ny\nd\n") is None
    assert missing_line(second.shown, "d\na b c\n") == "d"
    assert missing_line(second.shown, "a (b]\nd\n") == "a ... c"
