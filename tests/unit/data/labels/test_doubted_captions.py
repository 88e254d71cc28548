"""Whoever reads captions that their maker found hardly true says so in a line, keeps it in its manifest, and hands it on."""

from __future__ import annotations

import json

import pytest
from bucket import s3_server
from PIL import Image

from reid_ray.caption.plausibility.judgement import NOT_JUDGED, PLAUSIBLE, in_words
from reid_ray.config.base import Section
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.images import encode_jpeg
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.labels.doubted_captions import DOUBTED, DOUBTED_CAPTIONS, PLAUSIBILITY, doubts_about, note_doubted
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import JobOutput, TableWriter, read_manifest


class DoubtedJob(Section):
    """A configuration of a job that does nothing."""


def judged(verdict):
    statements = [{"verdict": verdict, "words": "99% of coats are black"}, {"verdict": PLAUSIBLE, "words": "half are men"}]
    return {"verdict": verdict, "captioners": {"builtin:tiny-mllm": {"verdict": verdict, "statements": statements}}}


def captioned(place, verdict, job="caption"):
    """An output of images and captions, as a job leaves it."""
    picture = encode_jpeg(Image.new("RGB", (8, 16)))
    with JobOutput(job, place, DoubtedJob()) as out:
        with TableWriter(out.folder / "images", IMAGES) as images:
            images.append(table_of(IMAGES, [{"image_id": "a", "image": picture, "person_id": 1, "split": "train", "camera_id": 1}]))
        with TableWriter(out.folder / "captions", CAPTIONS) as captions:
            captions.append(table_of(CAPTIONS, [{"caption_id": "c", "image_id": "a", "kind": "human", "text": "a man", "status": "ok"}]))
        if verdict is not None:
            out.facts[PLAUSIBILITY] = judged(verdict)
    return str(place)


def noted(tmp_path, *tables):
    with JobOutput("train", tmp_path / "reader", DoubtedJob(), if_exists="replace") as out:
        note_doubted(out, tables)
    return read_manifest(tmp_path / "reader")["facts"].get(DOUBTED_CAPTIONS)


def test_a_line_and_a_fact_say_whose_captions_are_hardly_true_and_why(tmp_path, capsys):
    place = captioned(tmp_path / "captions", DOUBTED)
    table = f"{place}/captions"
    (found,) = noted(tmp_path, table, table, None)
    assert found == {
        "captions": table,
        "found_by": "caption",
        "run_id": read_manifest(place)["run_id"],
        "doubts": ["builtin:tiny-mllm: 99% of coats are black"],
    }
    assert found["doubts"][0] in in_words(judged(DOUBTED))
    assert capsys.readouterr().out == (
        f"train: the captions of {table} are hardly true, as the caption job found: builtin:tiny-mllm: 99% of coats are black\n"
    )


@pytest.mark.parametrize("verdict", [PLAUSIBLE, NOT_JUDGED, None])
def test_what_nobody_doubts_is_not_spoken_of(tmp_path, capsys, verdict):
    place = captioned(tmp_path / "captions", verdict)
    (tmp_path / "manifest.json").write_text(json.dumps({"facts": {PLAUSIBILITY: judged(DOUBTED)}}))  # no job's
    (tmp_path / "people").mkdir()
    assert noted(tmp_path, f"{place}/captions", str(tmp_path / "people"), str(tmp_path / "nowhere")) is None
    assert capsys.readouterr().out == ""


def test_it_travels_with_the_captions_from_job_to_job(tmp_path, capsys):
    place = captioned(tmp_path / "captions", DOUBTED)
    source = {"format": "parquet", "path": place}
    run_ingest(IngestJob.model_validate({"source": source, "load": {"processes": 0}, "output": {"path": str(tmp_path / "tables")}}))
    exported = {"tables": str(tmp_path / "tables"), "format": "cuhk_pedes", "processes": 0, "output": {"path": str(tmp_path / "out")}}
    run_export(ExportJob.model_validate(exported))
    (found,) = doubts_about(str(tmp_path / "out"))
    assert (found["captions"], found["found_by"]) == (str(tmp_path / "out"), "caption")
    said = capsys.readouterr().out
    assert f"ingest: the captions of {place} are hardly true" in said
    assert f"export: the captions of {tmp_path / 'tables'} are hardly true" in said


def test_pictures_that_are_taken_without_the_captions_are_not_spoken_of(tmp_path, capsys):
    source = {"format": "parquet", "path": f"{captioned(tmp_path / 'captions', DOUBTED)}/images"}
    run_ingest(IngestJob.model_validate({"source": source, "load": {"processes": 0}, "output": {"path": str(tmp_path / "tables")}}))
    assert "hardly true" not in capsys.readouterr().out


def test_a_judgement_of_its_own_does_not_take_away_an_earlier_one(tmp_path):
    place = captioned(tmp_path / "captions", DOUBTED)
    with JobOutput("rewrite", tmp_path / "rewritten", DoubtedJob()) as out:
        note_doubted(out, [place])
        out.facts[PLAUSIBILITY] = judged(PLAUSIBLE)
    assert [each["found_by"] for each in doubts_about(str(tmp_path / "rewritten"))] == ["caption"]


@pytest.mark.slow
def test_at_an_address_the_manifest_of_the_run_counts_that_its_pointer_names(tmp_path):
    with s3_server() as bucket:
        address = bucket.put_output(tmp_path / captioned(tmp_path / "captions", DOUBTED), "runs/captions")
        bare = bucket.put(tmp_path / "captions" / "captions", "bare")
        path, mark, options = address.partition("?")
        (found,) = doubts_about(f"{path}/captions{mark}{options}")
        assert found["found_by"] == "caption"
        assert doubts_about(bare) == []
