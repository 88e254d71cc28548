"""What weights have seen of a score: pictures by content and look, identities by name, texts by words; roles and weights told apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.data.seen_binding import bound_schema
from reid_ray.data.seen_rows import all_seen, image_rows, seen_by, text_rows, with_source
from reid_ray.records import IMAGES, table_of, text_hash64
from reid_ray.retrieval.evaluate.exposure import SEARCHED, exposure, exposure_of, exposure_sentence, unseen
from reid_ray.retrieval.index.near_hashes import NearHashes
from reid_ray.storage import write_json

NONE = {"images": 0, "near": 0, "identities": 0, "texts": None}


def image(
    name: str, person: int | None, *, dataset: str = "Market-1501", source: str | None = None, look: str | None = None, flipped: int = 0
) -> dict:
    """An image whose content is its name and whose look is `look`, but for some bits."""
    content = hashlib.sha256(name.encode()).hexdigest()
    bits = np.unpackbits(np.frombuffer(hashlib.md5((look or name).encode()).digest(), np.uint8))
    bits[:flipped] ^= 1
    taken_from = None if source is None else json.dumps({"hat": "none", "source": source})
    labels = {"dataset": dataset, "person_id": person, "attributes": taken_from}
    return {"image_id": name, "image_sha256": content, **labels, "look": np.packbits(bits)}


def rows(role: str, images: list[dict] | tuple = (), texts: list[str] | tuple = ()) -> pa.Table:
    table = table_of(IMAGES, [{name: value for name, value in each.items() if name != "look"} for each in images])
    hash_NB = np.stack([each["look"] for each in images]) if images else np.zeros((0, 16), np.uint8)
    texts_M = text_hash64(pa.array(list(texts), pa.string()))
    return pa.concat_tables([image_rows(role, with_source(table), hash_NB), text_rows(role, texts_M)])


def asked(gallery, *, train=(), val=(), said=(), queries=None):
    seen = [rows("train", train, said), rows("val", val)]
    return exposure(seen, rows("", gallery), None if queries is None else rows("", (), queries))


def test_a_gallery_of_unseen_people_is_said_to_be_one():
    found = asked([image("g1", 1), image("g2", 2)], train=[image("t", 7)], val=[image("v", 8)], said=["a man"])
    assert (found["images"], found["identities"], found["train"], found["val"]) == (2, 2, NONE, NONE)
    assert found["marks"] == []
    assert unseen(found) is True
    assert "WARNING" not in exposure_sentence(found)
    assert SEARCHED in exposure_sentence(found)  # and no more is said not to be there


def test_the_same_picture_under_another_name_and_data_set_is_found():
    copy = {**image("t", 1, dataset="mine"), "image_id": "renamed.jpg"}
    found = asked([image("t", 9), image("g", 9)], train=[copy])
    assert found["train"] == {**NONE, "images": 1}
    assert found["marks"] == ["SEEN"]
    assert "WARNING" in exposure_sentence(found)


def test_a_picture_encoded_again_is_found_by_its_look_and_one_that_differs_more_is_not():
    found = asked([image("a", 1, look="x", flipped=7), image("b", 2, look="x", flipped=8)], train=[image("t", 3, look="x")])
    assert found["train"] == {**NONE, "near": 1}
    assert found["marks"] == ["SEEN"]
    blank = np.zeros(16, np.uint8)
    flat = asked([{**image("a", 1), "look": blank}], train=[{**image("b", 2), "look": blank}])
    assert (flat["train"]["near"], flat["marks"]) == (0, [])  # pictures of one colour look alike and are nobody


def test_near_hashes_are_those_of_comparing_all_with_all():
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 256, (300, 16), dtype=np.uint8)
    theirs = np.repeat(ours, 2, axis=0)
    for row in theirs:
        row[:] = np.packbits(np.unpackbits(row) ^ np.isin(np.arange(128), rng.choice(128, rng.integers(0, 14), replace=False)))
    distance_MN = np.unpackbits(theirs[:, None] ^ ours[None], axis=2).sum(axis=2)
    found = set(zip(*(side.tolist() for side in NearHashes(ours).pairs(theirs)), strict=True))
    assert found == set(zip(*(side.tolist() for side in np.nonzero(distance_MN <= 7)), strict=True))
    assert 200 < len(found) < 600


def test_another_picture_of_a_trained_identity_is_found():
    found = asked([image("g1", 1), image("g2", 2)], train=[image("t", 2)], val=[image("v", 1)])
    assert (found["train"], found["val"]) == ({**NONE, "identities": 1}, {**NONE, "identities": 1})


def test_equal_numbers_of_two_data_sets_are_two_identities_and_those_of_synthetic_people_may_be():
    named = [image("g", 1, dataset="a")]
    assert asked(named, train=[image("t", 1, dataset="b")], said=["x"])["marks"] == []
    drawn = [image("s", 2, dataset="synthetic")]
    again, others = (asked(drawn, train=[image("u", person, dataset="synthetic")], said=["x"]) for person in (2, 3))
    assert (again["train"]["identities"], again["marks"], others["marks"]) == (0, ["UNKNOWN"], [])
    nameless = [{**image("n", 1), "dataset": None}]
    assert asked(nameless, train=[image("t", 5)], said=["x"])["marks"] == ["UNKNOWN"]


def test_a_query_that_was_trained_on_is_found_by_its_words():
    found = asked([image("g", 1)], train=[image("t", 2)], said=["A man in a red coat."], queries=["a MAN, in a red coat", "another"])
    assert (found["queries"]["texts"], found["queries"]["train"]["texts"]) == (2, 1)
    assert found["marks"] == ["TEXTS"]
    assert "1 of 2 texts" in exposure_sentence(found)


def test_data_sets_that_share_sources_are_named_by_provenance_alone():
    found = asked([image("g", 1, dataset="RSTPReid")], train=[image("t", 1, dataset="ICFG-PEDES")])
    assert found["train"] == NONE
    assert found["marks"] == ["OVERLAP"]
    assert "MSMT17" in exposure_sentence(found)


@pytest.mark.parametrize(
    ("learnt", "asked_of", "shared"),
    [
        (("CUHK-PEDES", None), ("UFine3C", "CUHK-PEDES"), "UFine3C holds pictures of CUHK-PEDES"),
        (("cuhk_pedes", None), ("UFine3C", "CUHK-PEDES"), "UFine3C holds pictures of cuhk_pedes"),
        (("ICFG-PEDES", None), ("UFine3C", "RSTPReid"), "both hold pictures of MSMT17"),
        (("UFine6926", None), ("UFine3C", "RSTPReid"), None),  # this one was not taken from there
        (("ITCPR", "PRCC"), ("PRCC", None), "ITCPR holds pictures of PRCC"),
        (("ITCPR", "PRCC"), ("LaST", None), None),
        (("LUPerson-NL", None), ("LUPerson", None), "both hold pictures of the videos of LUPerson"),
        (("SYNTH-PEDES", None), ("LUPerson-MLLM", None), "both hold pictures of the videos of LUPerson"),
        (("HAM-PEDES", None), ("SYNTH-PEDES", None), "HAM-PEDES holds pictures of SYNTH-PEDES"),
        (("mine", "CUHK-PEDES"), ("CUHK-PEDES", None), None),  # what others call a source may be anything
    ],
)
def test_pictures_that_a_data_set_took_from_another_are_named_by_that_one(learnt, asked_of, shared):
    (had, had_of), (shown, shown_of) = learnt, asked_of
    found = asked([image("g", 1, dataset=shown, source=shown_of)], train=[image("t", 2, dataset=had, source=had_of)], said=["x"])
    assert found["marks"] == ([] if shared is None else ["OVERLAP"])
    assert shared is None or shared in exposure_sentence(found)


def test_of_a_mixed_data_set_whose_table_does_not_say_where_pictures_come_from_that_is_unknown():
    found = asked([image("g", 1, dataset="UFine3C")], train=[image("t", 2, dataset="CUHK-PEDES")], said=["x"])
    assert found["marks"] == ["UNKNOWN"]


def test_pictures_that_are_not_at_hand_are_compared_by_identity_and_that_is_said():
    named = table_of(IMAGES, [{"image_id": "t", "dataset": "Market-1501", "person_id": 3}])
    found = exposure([rows("train", [image("t", 3)], ["x"])], image_rows("", named, None))
    assert found["train"] == {"images": None, "near": None, "identities": 1, "texts": None}
    assert found["marks"] == ["SEEN", "UNKNOWN"]


def _weights(folder: Path, *tables: pa.Table, of: str | None = "w") -> Path:
    """A folder of weights with the fingerprint w, and what the weights `of` have seen."""
    folder.mkdir()
    write_json(folder / "manifest.json", {"kind": "dual-encoder", "fingerprint": "w"})
    if tables:
        pq.write_table(pa.concat_tables(tables).cast(bound_schema(of)), folder / "seen.parquet")
    return folder


def test_what_weights_saw_before_is_inherited_and_what_is_not_recorded_is_never_called_clean(tmp_path):
    first = _weights(tmp_path / "first", rows("train", [image("t1", 1)], ["x"]))
    own = _weights(tmp_path / "own", rows("train", [image("t2", 2)], ["y"]))
    hub = _weights(tmp_path / "hub")
    gallery = rows("", [image("t1", 1), image("g", 5)])
    for before, marks in (
        ({}, []),
        ({"first": first}, ["SEEN"]),
        ({"hub": hub}, ["UNKNOWN"]),
        ({"first": first, "hub": hub}, ["SEEN", "UNKNOWN"]),
    ):
        published = _weights(tmp_path / f"out{len(list(tmp_path.iterdir()))}", *all_seen(own, before))
        for chain in (seen_by(published), all_seen(published, {})):
            found = exposure(chain, gallery)
            assert found["marks"] == marks, before
            assert unseen(found) is {(): True, ("UNKNOWN",): None}.get(tuple(marks), False)
            assert ("hub" in exposure_sentence(found)) is ("hub" in before)
    further = exposure(all_seen(_weights(tmp_path / "further", rows("train", [image("t3", 3)], ["z"])), {"out": published}), gallery)
    assert further["marks"] == ["SEEN", "UNKNOWN"]  # two trainings back, and as little known as before


def test_weights_that_do_not_tell_are_not_called_clean(tmp_path):
    found = exposure(seen_by(_weights(tmp_path / "model")), rows("", [image("g", 1)]))
    assert (found["recorded"], found["marks"], unseen(found)) == (False, ["UNKNOWN"], None)
    assert "none of" not in exposure_sentence(found)


def _older(images: int) -> dict:
    shared = {role: {"images": images, "identities": 0} for role in ("train", "val")}
    return {"exposure": {"recorded": True, "images": 2, "identities": 2, **shared}}


@pytest.mark.parametrize(
    ("older", "marks"),
    [
        ({"r1": 1.0}, ["UNKNOWN"]),
        ({"exposure": {"recorded": False}}, ["UNKNOWN"]),
        (_older(0), ["UNKNOWN"]),
        (_older(1), ["SEEN", "UNKNOWN"]),
    ],
)
def test_results_of_older_versions_say_what_they_know(older, marks):
    found = exposure_of(older)
    assert found["marks"] == marks
    assert exposure_sentence(found)


def test_a_table_that_an_older_version_wrote_tells_contents_and_that_it_knows_no_more(tmp_path):
    columns = ["role", "content", "dataset", "person_id"]
    older = _weights(tmp_path / "older")
    pq.write_table(rows("train", [image("t", 1)]).select(columns), older / "seen.parquet")
    assert exposure(seen_by(older), rows("", [image("t", 9)]))["marks"] == ["SEEN", "UNKNOWN"]
    assert exposure(seen_by(older), rows("", [image("g", 9)]))["marks"] == ["UNKNOWN"]


def test_a_record_vouches_for_no_other_weights_that_come_to_lie_beside_it(tmp_path):
    """Of others it tells nothing; where either does not say whose it is, what it tells is kept, and that there may be more."""
    clean, leaky = rows("", [image("g", 5)]), rows("", [image("t", 1)])
    own, other, older = (_weights(tmp_path / str(of), rows("train", [image("t", 1)], ["x"]), of=of) for of in ("w", "v", None))
    unnamed = _weights(tmp_path / "unnamed", rows("train", [image("t", 1)], ["x"]))
    (unnamed / "manifest.json").unlink()
    for folder, of_clean, of_leaky in (
        (own, [], ["SEEN"]),
        (other, ["UNKNOWN"], ["UNKNOWN"]),
        (older, ["UNKNOWN"], ["SEEN", "UNKNOWN"]),
        (unnamed, ["UNKNOWN"], ["SEEN", "UNKNOWN"]),
    ):
        assert exposure(seen_by(folder), clean)["marks"] == of_clean, folder
        assert exposure(seen_by(folder), leaky)["marks"] == of_leaky, folder
    merged = _weights(tmp_path / "merged", rows("train", [image("t", 1)], ["x"]))
    for facts, marks in (({"weights": "w"}, ["SEEN"]), ({"weights": "v"}, ["UNKNOWN"]), ({}, ["SEEN", "UNKNOWN"])):
        write_json(merged / "manifest.json", {"job": "merge", "fingerprint": "of the configuration", "facts": facts})
        assert exposure(seen_by(merged), leaky)["marks"] == marks, facts
    further = _weights(tmp_path / "further", *all_seen(own, {"init": other}))
    assert exposure(seen_by(further), clean)["marks"] == ["UNKNOWN"]  # and so it is inherited
