"""The mining job without a model, and its actor with a scripted one."""

import json
from collections import Counter

import pyarrow as pa
import pytest
import yaml
from refusals import refused

from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.mine.config import MineJob, PatternWriterConfig
from reid_ray.caption.mine.job import PatternWriter, run_mine
from reid_ray.caption.mine.patterns import check_template
from reid_ray.config.common import OutputConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import TableWriter

PATTERN = "The [person/woman/man] wears [clothing description] and has [hair description]."


@pytest.fixture
def captions(tmp_path):
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(SyntheticPeople(SyntheticConfig(identities=120, images_per_identity=1)).caption_table())
    return str(tmp_path / "captions")


def job(captions, tmp_path, **values):
    return MineJob(captions=captions, writer=PatternWriterConfig(variants=0), output=OutputConfig(path=str(tmp_path / "out")), **values)


@pytest.mark.slow
def test_rules_alone_give_usable_templates_and_every_caption_is_counted(captions, tmp_path):
    run_mine(job(captions, tmp_path, max_templates=60))
    templates = yaml.safe_load((tmp_path / "out" / "templates.yaml").read_text())["templates"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(templates) == 60
    assert len({t["id"] for t in templates}) == len({t["text"] for t in templates}) == 60
    assert all(check_template(t["text"]) is None for t in templates)
    assert Counter(t["origin"] for t in templates) == report["templates"]
    assert set(report["templates"]) == {"captions", "order", "opening"}
    assert report["captions"]["read"] == 240 == report["captions"]["written"] + sum(report["captions"]["failed"].values())
    again = tmp_path / "again"
    run_mine(job(captions, again, max_templates=60))
    assert (again / "out" / "templates.yaml").read_bytes() == (tmp_path / "out" / "templates.yaml").read_bytes()


def test_no_captions_of_the_wanted_kind_is_an_error(captions, tmp_path):
    with refused(DataError, "status ok", "static"):
        run_mine(job(captions, tmp_path, kinds=("static",)))


def test_captions_that_give_no_template_are_no_success(tmp_path):
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        rows = SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=1)).caption_table().to_pylist()
        writer.append(table_of(CAPTIONS, [row | {"text": "Nothing to see here, move along."} for row in rows]))
    with refused(DataError, "8 captions"):
        run_mine(job(str(tmp_path / "captions"), tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_templates_that_are_there_are_kept_where_reuse_is_asked(captions, tmp_path):
    reuse = OutputConfig(path=str(tmp_path / "out"), if_exists="reuse")
    first, second = (run_mine(job(captions, tmp_path).model_copy(update={"output": reuse})) for _ in range(2))
    assert first["run_id"] == second["run_id"]


@pytest.mark.parametrize(
    ("answer", "wording"),
    [
        (f'Sure! Here it is:\n\n"{PATTERN}"\n\nNote: slots kept.', PATTERN),
        (f"Sentence: {PATTERN}", PATTERN),
        ("I have no idea.\nMore.", "I have no idea."),
        (None, ""),
    ],
)
def test_the_actor_takes_the_line_that_holds_the_pattern(answer, wording):
    class Scripted:
        def chat(self, conversations, keys):
            assert PATTERN in conversations[0][0]["content"]
            return [Reply(answer) for _ in keys]

    writer = PatternWriter(PatternWriterConfig(), engine=Scripted())
    assert writer(pa.table({"key": ["k"], "text": [PATTERN]}))["text"].to_pylist() == [wording]
