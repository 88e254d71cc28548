"""Captioned data sets go round: ingested, exported and ingested again they are the same tables, whatever their captions and ids say."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.export.layouts import WRITERS
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table

ROUND = {"ufine6926": "UFine6926_Annotations.json", "ufine3c": "UFine3C_Annotations.json", "webperson": "100w.json"}
ROUND |= {"synth_pedes": "synthpedes_dataset.json", "cuhk_pedes": "reid_raw.json", "icfg_pedes": "ICFG-PEDES.json"}
ROUND |= {"rstpreid": "data_captions.json", "ham_pedes": "HAM_PEDES.json", "mals": "gene_attrs/g_attrs.json"}
ROUND |= {"interactive_pedes": "Interactive-PEDES_interactive_annos.json", "itcpr": "query.json", "syncpr": "SynCPR.json"}
TEXTS = st.text(min_size=1, max_size=30).filter(str.strip) | st.sampled_from(["A man.", "a\u2028b", "\U0001f9e5 coat", 'a "quoted" \\ one'])


def ingest(format, path, out):
    config = {"source": {"format": format, "path": str(path)}, "output": {"path": str(out)}, "load": {"processes": 0}}
    return run_ingest(IngestJob.model_validate(config))


def export(tables, format, out):
    return run_export(ExportJob.model_validate({"tables": str(tables), "format": format, "output": {"path": str(out)}, "processes": 0}))


def tables_of(out):
    return [
        read_table(out / name, schema).sort_by(key)
        for name, schema, key in (("images", IMAGES, "image_id"), ("captions", CAPTIONS, "caption_id"))
    ]


def goes_round(format, folder, work):
    shutil.rmtree(work, ignore_errors=True)
    ingest(format, folder, work / "tables")
    manifest = export(work / "tables", format, work / "back")
    assert manifest["counts"]["written"] == manifest["counts"]["read"]
    again = ingest(format, work / "back", work / "again")
    assert again["counts"]["written"] == again["counts"]["read"]
    for before, after in zip(tables_of(work / "tables"), tables_of(work / "again"), strict=True):
        assert after.drop_columns([name for name in ("path",) if name in after.column_names]).equals(
            before.drop_columns([name for name in ("path",) if name in before.column_names])
        )


# Layouts that test_export_job.py takes round: without captions, in several files, or in containers.
ELSEWHERE = {"market1501", "dukemtmc", "msmt17", "cuhk03", "cuhk03_images", "luperson", "luperson_mllm", "webdataset"}


def test_every_layout_that_is_written_goes_round_somewhere():
    assert set(ROUND) | ELSEWHERE == set(WRITERS)


@pytest.mark.parametrize("format", ROUND)
def test_a_published_tree_goes_round(trees, tmp_path, format):
    goes_round(format, getattr(trees, format)(), tmp_path / "work")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["ufine6926", "webperson", "synth_pedes", "interactive_pedes"])
def test_any_captions_and_persons_go_round(trees, tmp_path, format):
    """The first six entries of a tree, with other captions, persons and attributes."""
    folder = getattr(trees, format)()
    file = folder / ROUND[format]
    published = json.loads(file.read_text())[:6]

    @settings(max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.lists(TEXTS, min_size=1, max_size=4), st.integers(-3, 10**15)), min_size=6, max_size=6))
    def fuzz(said):
        entries = []
        for entry, (texts, person) in zip(published, said, strict=True):
            if format == "webperson":
                entries.append({next(iter(entry)): {f"caption{number}": text for number, text in enumerate(texts, 1)}})
            else:
                entries.append({**entry, "captions": texts, "id": person})
        file.write_text(json.dumps(entries))
        goes_round(format, folder, tmp_path / "work")

    fuzz()


@pytest.mark.parametrize(
    ("format", "key"),
    [
        ("synth_pedes", "attributes"),
        ("synth_pedes", "prompt_caption"),
        ("ufine3c", "source"),
        ("mals", "label"),
        ("interactive_pedes", "questions"),
    ],
)
def test_what_an_entry_does_not_say_it_does_not_say_afterwards(trees, tmp_path, format, key):
    folder = getattr(trees, format)()
    for file in folder.glob("gene_attrs/*.json" if format == "mals" else ROUND[format]):
        file.write_text(
            json.dumps([{name: value for name, value in entry.items() if name != key} for entry in json.loads(file.read_text())])
        )
    goes_round(format, folder, tmp_path / "work")
    written = json.loads((tmp_path / "work" / "back" / ROUND[format]).read_text())
    assert not [entry for entry in written if entry.get(key)]


def test_a_caption_that_would_come_back_as_another_is_counted_and_not_written(trees, tmp_path):
    folder = trees.cuhk_pedes()
    file = folder / ROUND["cuhk_pedes"]
    entries = json.loads(file.read_text())
    entries[0]["captions"] = ["A red /navy coat.", "A coat./nA hat."]
    file.write_text(json.dumps(entries))
    ingest("cuhk_pedes", folder, tmp_path / "tables")
    manifest = export(tmp_path / "tables", "webperson", tmp_path / "back")
    assert manifest["facts"]["captions"]["left_out"]["reads_as_line_break"] == 1
    ingest("webperson", tmp_path / "back", tmp_path / "again")
    before, after = (read_table(tmp_path / name / "captions", CAPTIONS)["text"].to_pylist() for name in ("tables", "again"))
    assert sorted(after) == sorted(text for text in before if text is not None and "/nA" not in text)


@pytest.mark.slow
def test_composed_queries_go_round_where_images_repeat_and_instances_differ(trees, tmp_path):
    folder = trees.itcpr()
    queries, gallery = (json.loads((folder / name).read_text()) for name in ("query.json", "gallery.json"))
    queries.append({**queries[0], "instance_id": 777, "caption": "In a hat."})  # the same picture asks for other clothes
    gallery.append({**queries[1], "instance_id": -1})  # and one is to be found, too
    del gallery[-1]["caption"]
    for name, entries in (("query.json", queries), ("gallery.json", gallery)):
        (folder / name).write_text(json.dumps(entries))
    goes_round("itcpr", folder, tmp_path / "itcpr")
    back = [json.loads((tmp_path / "itcpr" / "back" / name).read_text()) for name in ("query.json", "gallery.json")]
    for before, after, keys in zip((queries, gallery), back, (("caption", "instance_id"), ("person_id", "instance_id")), strict=True):
        assert sorted(tuple(str(entry[key]) for key in keys) for entry in after) == sorted(
            tuple(str(entry[key]) for key in keys) for entry in before
        )
    folder = trees.syncpr()
    file = folder / "SynCPR.json"
    triplets = json.loads(file.read_text())
    triplets.append(
        {**triplets[-1], "target_image_path": triplets[0]["target_image_path"], "target_caption": triplets[0]["target_caption"]}
    )
    file.write_text(json.dumps(triplets))
    goes_round("syncpr", folder, tmp_path / "syncpr")
    assert len(json.loads((tmp_path / "syncpr" / "back" / "SynCPR.json").read_text())) == len(triplets)


@pytest.mark.slow
def test_what_no_composed_query_is_made_of_is_counted(trees, tmp_path):
    ingest("cuhk_pedes", trees.cuhk_pedes(), tmp_path / "tables")
    for format in ("itcpr", "syncpr"):
        with refused(DataError, "no row can be written", format):
            export(tmp_path / "tables", format, tmp_path / format)
    ingest("syncpr", trees.syncpr(), tmp_path / "syncpr")
    (trees.root / "SynCPR" / "SynCPR.json").unlink()
    images = read_table(tmp_path / "syncpr" / "images", IMAGES)
    for part in (tmp_path / "syncpr" / "images").iterdir():
        part.unlink()
    pq.write_table(images.slice(0, 3), tmp_path / "syncpr" / "images" / "part.parquet")  # a triplet and a reference without its target
    manifest = export(tmp_path / "syncpr", "syncpr", tmp_path / "back")
    assert len(json.loads((tmp_path / "back" / "SynCPR.json").read_text())) == 1
    assert manifest["facts"]["captions"]["written"] == 3
    assert manifest["facts"]["captions"]["left_out"]["in_no_triplet"] == 2


def test_mals_keeps_one_caption_an_image_and_counts_the_others(trees, tmp_path):
    ingest("cuhk_pedes", trees.cuhk_pedes(), tmp_path / "tables")
    manifest = export(tmp_path / "tables", "mals", tmp_path / "mals")
    written, left_out = manifest["facts"]["captions"]["written"], manifest["facts"]["captions"]["left_out"]
    again = ingest("mals", tmp_path / "mals", tmp_path / "again")
    assert written == again["facts"]["captions"]["written"] == manifest["counts"]["written"]
    assert written + left_out["second_caption"] == read_table(tmp_path / "tables" / "captions", CAPTIONS).num_rows


@pytest.mark.slow
def test_people_of_another_data_set_find_their_place(trees, tmp_path):
    """An export from tables that came from elsewhere: ids stay, what the layout has no word for is counted."""
    ingest("cuhk_pedes", trees.cuhk_pedes(), tmp_path / "tables")
    persons = {row["image_id"]: row["person_id"] for row in read_table(tmp_path / "tables" / "images", IMAGES).to_pylist()}
    for format, lost in (("synth_pedes", {}), ("ufine6926", {"split_not_in_layout": 8}), ("ufine3c", {"split_not_in_layout": 40})):
        assert export(tmp_path / "tables", format, tmp_path / format)["counts"]["failed"] == lost
        ingest(format, tmp_path / format, tmp_path / f"{format}_again")
        rows = read_table(tmp_path / f"{format}_again" / "images", IMAGES).to_pylist()
        assert len(rows) == 48 - sum(lost.values())
        assert {row["image_id"]: row["person_id"] for row in rows}.items() <= persons.items()
    assert json.loads((tmp_path / "ufine3c" / ROUND["ufine3c"]).read_text())[0]["source"] == "CUHK-PEDES"
