"""`reid-ray gallery`: from the embed job's tables to a search, an erasure and its receipt, by words alone."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.gallery_command import gallery_command

DIM = 8


@pytest.fixture
def tables(tmp_path):
    """Twelve pictures of four persons on two cameras, a text, a failed row and an edited picture, as the embed job writes them."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(15):
        vector = rng.normal(size=DIM)
        rows.append(
            {
                "item_id": f"crop-{number}",
                "kind": "text" if number == 12 else "image",
                "embedding": None if number == 13 else (vector / np.linalg.norm(vector)).tolist(),
                "status": "failed" if number == 13 else "ok",
                "person_id": number // 3,
                "camera_id": number % 2,
                "synthetic": number == 14,
            }
        )
    table = pa.Table.from_pylist(rows, pa.schema(list(EMBEDDINGS)))
    table = table.append_column("encoder_fingerprint", pa.array(["e"] * len(rows)))
    table = table.append_column("thumbnail", pa.array([b"jpeg %d" % number for number in range(15)], pa.binary()))
    (tmp_path / "embedded").mkdir()
    pq.write_table(table, tmp_path / "embedded" / "part.parquet")
    return str(tmp_path / "embedded")


@pytest.fixture
def said(tables, tmp_path, capsys):
    """Calls the command on a filled gallery; returns (exit code, lines of standard output, standard error)."""
    gallery = str(tmp_path / "gallery")

    def call(verb, *rest):
        capsys.readouterr()
        code = gallery_command([verb, gallery, *rest])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    code, lines, _ = call("add", tables)
    assert code == 0
    assert "added 12, is_a_text 1, failed 1, synthetic 1" in lines[-1]
    call.gallery = gallery
    return call


def ids_of(lines):
    return [line.split()[2] for line in lines]


def test_what_the_embed_job_wrote_is_found_by_likeness_under_filters_and_once_a_person(said):
    code, lines, _ = said("search", "--like", "crop-3", "-k", "20")
    assert code == 0
    assert sorted(ids_of(lines)) == sorted(f"crop-{number}" for number in range(12) if number != 3)
    _, lines, _ = said("search", "--like", "crop-3", "-k", "20", "--where", "camera_id=0", "--where", 'person_id={"to": 2}')
    assert sorted(ids_of(lines)) == sorted(f"crop-{number}" for number in range(9) if number % 2 == 0)
    _, lines, _ = said("search", "--like", "crop-3", "-k", "20", "--one-per", "person_id")
    assert [line.count("person_id") for line in lines] == [1] * 4
    assert said("facets", "person_id", "--where", "camera_id=1")[1] == ["person_id: 1 2, 3 2, 0 1, 2 1"]


def test_an_erased_person_is_gone_from_every_file_with_a_receipt_and_does_not_come_back_by_a_snapshot(said, tmp_path):
    said("snapshot", "before")
    code, lines, _ = said("erase", "--where", "person_id=1", "--request", "letter-7", "--now")
    assert code == 0
    assert "3 items erased: gone from every file" in lines[0]
    receipt = json.loads((tmp_path / "gallery" / "receipts" / "letter-7.json").read_text())
    assert receipt["items"] == len(set(receipt["digests"])) == 3
    held = b"".join(path.read_bytes() for path in (tmp_path / "gallery").rglob("*") if path.is_file())
    assert [b"crop-%d" % number in held for number in (2, 3, 4, 5, 6)] == [True, False, False, False, True]
    said("restore", "before")
    _, lines, _ = said("search", "--like", "crop-0", "-k", "20")
    assert {"crop-3", "crop-4", "crop-5"}.isdisjoint(ids_of(lines))
    assert said("verify")[0] == 0


def test_a_file_that_was_changed_is_named(said, tmp_path):
    said("compact")
    vectors = next((tmp_path / "gallery").rglob("vectors.npy"))
    vectors.chmod(0o644)
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(bytes(data))
    code, _, problem = said("verify")
    assert code == 2
    assert str(vectors) in problem


def test_a_search_goes_on_where_its_last_line_says_and_away_from_what_is_not_wanted(said):
    whole = ids_of(said("search", "--like", "crop-3", "-k", "20")[1])
    _, lines, _ = said("search", "--like", "crop-3", "-k", "4")
    assert ids_of(lines[:-1]) == whole[:4]
    _, following, _ = said("search", "--like", "crop-3", "-k", "20", *lines[-1].split()[-2:])
    assert ids_of(following) == whole[4:]
    _, lines, _ = said("search", "--like", "crop-3", "-k", "20", "--unlike", whole[0], "--unlike-weight", "3", "--exact")
    assert set(ids_of(lines)) == set(whole[1:])
    assert ids_of(lines) != whole[1:]
    assert said("search", "--like", "crop-3", "--rerank", "9")[0] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("delete",), "--where"),
        (("delete", "--where", "zone=gate"), "zone"),
        (("search", "--like", "nobody"), "nobody"),
        (("erase", "--where", 'item_id="nobody"', "--request", "letter-7"), "facets"),
        (("search", "--like", "crop-1", "--where", "camera_id=one"), "camera_id"),
        (("search", "--like", "crop-1", "-k", "0"), "k is 0"),
        (("search", "--text", "a red coat"), "--encoder"),
        (("search", "--unlike", "crop-1"), "--like"),
        (("search", "--like", "crop-1", "--cursor", "nonsense"), "cursor"),
        (("search", "--like", "crop-1", "--rerank", "9", "--cursor", "nonsense"), "--rerank"),
        (("restore", "yesterday"), "yesterday"),
        (("snapshot", "../elsewhere"), "../elsewhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(said, words, named):
    code, _, problem = said(*words)
    assert code == 2
    assert problem.startswith("error: ")
    assert named in problem


def test_ids_that_are_no_items_are_named_and_times_are_dates(said):
    (line,) = said("search", "--like", "crop-3", "-k", "1")[1][:1]
    assert re.search(r'"added_s": "20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"', line)
    assert said("search", "--like", "crop-3", "-k", "1", "--where", 'added_s={"to": "2020-01-01T00:00:00Z"}')[1] == [
        f"no item passes; which values there are says: reid-ray gallery facets {said.gallery} added_s"
    ]
    _, lines, _ = said("delete", "--id", "crop-3", "--id", "nobody")
    assert "1 of 2 items deleted" in lines[0]
    assert lines[1] == "gallery: not among the items: nobody"
    _, lines, _ = said("erase", "--id", "somebody", "--id", "crop-4", "--request", "letter-8")
    assert lines[1].endswith(": somebody")
    assert len(said("delete", "--id", "crop-5")[1]) == 1


def test_vectors_of_another_encoder_are_refused_and_so_is_a_second_writer(said, tables, tmp_path, monkeypatch):
    monkeypatch.setattr("reid_ray.retrieval.gallery_command._WAIT_S", 0.1)
    table = pq.read_table(tables).drop_columns(["encoder_fingerprint"])
    (tmp_path / "other").mkdir()
    pq.write_table(table.append_column("encoder_fingerprint", pa.array(["f"] * table.num_rows)), tmp_path / "other" / "part.parquet")
    code, _, problem = said("add", str(tmp_path / "other"))
    assert (code, "encoder f" in problem) == (2, True)
    from reid_ray.gallery.gallery_writer import GalleryWriter

    with GalleryWriter(said.gallery):
        code, _, problem = said("delete", "--id", "crop-1")
    assert (code, "another run writes" in problem) == (2, True)
    assert "choose another GALLERY" in problem


@pytest.mark.slow
def test_a_gallery_goes_over_to_another_encoder_by_its_tables_and_keeps_what_it_knows_of_everybody(said, tmp_path):
    table = pq.read_table(tmp_path / "embedded" / "part.parquet")
    turned = [None if vector is None else [*vector[1:], vector[0]] for vector in table["embedding"].to_pylist()]
    place = table.schema.get_field_index("embedding")
    table = table.set_column(place, table.schema.field(place), pa.array(turned, table.schema.field(place).type))
    table = table.set_column(table.schema.get_field_index("encoder_fingerprint"), "encoder_fingerprint", pa.array(["better"] * len(table)))
    table = table.set_column(table.schema.get_field_index("person_id"), "person_id", pa.array([99] * len(table)))
    (tmp_path / "again").mkdir()
    pq.write_table(table, tmp_path / "again" / "part.parquet")
    _, before, _ = said("search", "--like", "crop-3", "-k", "12")
    assert said("delete", "--id", "crop-0")[0] == 0
    assert said("snapshot", "older")[0] == 0
    code, lines, _ = said("reencode", str(tmp_path / "again"))
    assert (code, "11 items with a vector of encoder better" in lines[-1], "2 vectors of no item" in lines[-1]) == (0, True, True)
    _, after, _ = said("search", "--like", "crop-3", "-k", "12")
    hits = [[line.split(maxsplit=1)[1] for line in lines if line.split()[0].isdigit()] for lines in (before, after)]
    assert len(hits[1]) == 10
    assert hits[1] == [hit for hit in hits[0] if "crop-0 " not in hit]  # scores, person and time of adding
    assert said("verify")[0] == 0
    code, _, error = said("reencode", str(tmp_path / "again"))
    assert (code, "already" in error) == (2, True)
    code, _, error = said("add", str(tmp_path / "embedded"))
    assert (code, "encoder e" in error) == (2, True)
    assert said("restore", "older")[0] == 0
    _, lines, _ = said("info")
    assert any("encoder e;" in line for line in lines)


@pytest.mark.slow
def test_what_may_take_long_shows_how_far_it_is_and_ends_where_it_said(said):
    said("snapshot", "before")
    for words in (["erase", "--id", "crop-1", "--now"], ["delete", "--id", "crop-2"], ["compact"], ["verify"]):
        code, _, problem = said(*words)
        assert code == 0, problem
        bars = re.findall(rf"^{words[0]}: (\d+)/(\d+) \[", problem, re.MULTILINE)
        if words[0] == "delete":
            assert not bars
        else:
            assert bars
            assert bars[-1][0] == bars[-1][1] != "0"
