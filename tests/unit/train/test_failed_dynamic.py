"""Which static captions stand in for dynamic ones that failed: those of the same image and captioner, each once."""

import pytest

from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import TableWriter
from reid_ray.train.failed_dynamic import STAND_IN_COLUMNS, StandIns, count_stand_ins, find_stand_ins


def caption(name: str, image: str, kind: str, captioner: str | None = "q", status: str = "ok", seed: int | None = 0) -> dict:
    text = None if status == "failed" else f"text of {name}"
    return {"caption_id": name, "image_id": image, "kind": kind, "captioner": captioner, "status": status, "seed": seed, "text": text}


ROWS = [
    caption("s1", "i1", "static"),
    caption("d1", "i1", "dynamic", status="failed"),
    caption("s2", "i2", "static"),
    caption("d2", "i2", "dynamic"),
    caption("d3", "i3", "dynamic", status="failed"),  # its static one failed, too
    caption("s3", "i3", "static", status="failed"),
    caption("x3", "i3", "static", captioner="other"),
    caption("d4", "i4", "dynamic", captioner=None, status="failed", seed=None),
    caption("s4", "i4", "static", captioner=None, seed=None),
    caption("r1", "i1", "rewrite"),
    caption("s5", "i1", "static", seed=1),  # of another run
    caption("s6", "i5", "static", captioner=None, seed=None),
]


@pytest.fixture
def tables(tmp_path):
    """Two tables: a failed caption and its stand-in need not stand in one."""
    for name, rows in (("a", ROWS[::2]), ("b", ROWS[1::2])):
        with TableWriter(tmp_path / name, CAPTIONS) as writer:
            writer.append(table_of(CAPTIONS, rows))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_a_failed_dynamic_caption_is_replaced_by_its_captioners_static_one(tables):
    found = find_stand_ins(tables, kinds=["static", "dynamic"])
    rows = found.applied(table_of(CAPTIONS, ROWS)).to_pylist()
    assert [row["caption_id"] for row in rows] == [
        "s1",
        "s2",
        "d2",
        "d3",
        "s3",
        "x3",
        "s4",
        "r1",
        "s5",
        "s6",
        "s1 (stand-in)",
        "s4 (stand-in)",
    ]
    assert [(row["kind"], row["text"], row["image_id"]) for row in rows[-2:]] == [
        ("dynamic", "text of s1", "i1"),
        ("dynamic", "text of s4", "i4"),
    ]
    assert count_stand_ins(found.applied(table_of(CAPTIONS, ROWS))["caption_id"]) == 2
    few = found.applied(table_of(CAPTIONS, ROWS).select(STAND_IN_COLUMNS))
    assert few.num_rows == len(rows)


@pytest.mark.parametrize("repeated", ["d1", "s1"])
def test_a_caption_said_twice_has_one_stand_in_and_no_row_is_lost_or_made(tmp_path, repeated):
    rows = [row for row in ROWS[:3] for _ in range(1 + (row["caption_id"] == repeated))]
    table = table_of(CAPTIONS, [row | {"caption_id": f"{row['caption_id']}-{number}"} for number, row in enumerate(rows)])
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(table)
    found = find_stand_ins([str(tmp_path / "captions")], kinds=["static", "dynamic"]).applied(table)
    assert found.num_rows == len(rows) == 4
    assert count_stand_ins(found["caption_id"]) == 1


@pytest.mark.parametrize("kinds", [["dynamic"], ["static", "dynamic"]])
def test_a_captioner_that_was_asked_for_dynamic_captions_alone_has_its_replacement_once(tmp_path, kinds):
    """It wrote a static caption only where a dynamic one failed, which trains as what it is where static ones train."""
    rows = [
        caption("d1", "i1", "dynamic", status="failed"),
        caption("s1", "i1", "static"),
        caption("d2", "i2", "dynamic"),
        caption("d3", "i3", "dynamic", status="failed"),
        caption("s3", "i3", "static", status="failed"),
        caption("s2", "i2", "static", captioner="of both"),
        caption("e1", "i1", "dynamic", captioner="of both", status="failed"),
        caption("t1", "i1", "static", captioner="of both"),
    ]
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, rows))
    found = find_stand_ins([str(tmp_path / "captions")], kinds=kinds).applied(table_of(CAPTIONS, rows)).to_pylist()
    assert len(found) == len(rows)
    learnt = sorted(row["text"] for row in found if row["status"] == "ok" and row["kind"] in kinds and row["captioner"] == "q")
    assert learnt == ["text of d2", "text of s1"]
    assert len([row for row in found if row["kind"] == "dynamic" and row["text"] == "text of t1"]) == 1


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_it_matters_nothing_how_the_rows_are_batched(tmp_path, at_once):
    rows = [
        caption(f"{kind}{number}", "i1", kind, status=status)
        for kind, status in (("dynamic", "failed"), ("static", "ok"))
        for number in range(3)
    ]
    rows += [caption("s", "i2", "static"), caption("d", "i2", "dynamic")]
    for order in (rows, rows[::-1]):
        table = table_of(CAPTIONS, order)
        with TableWriter(tmp_path / order[0]["caption_id"], CAPTIONS) as writer:
            writer.append(table)
        found = find_stand_ins([str(tmp_path / order[0]["caption_id"])], kinds=["static", "dynamic"])
        parts = [found.applied(table.slice(start, at_once)) for start in range(0, len(order), at_once)]
        after = sorted(row["caption_id"] for part in parts for row in part.to_pylist())
        assert len(after) == len(rows)
        assert after == sorted(found.applied(table)["caption_id"].to_pylist())
        assert len([name for name in after if name.endswith("(stand-in)")]) == 1


def test_without_dynamic_captions_nothing_stands_in(tables):
    table = table_of(CAPTIONS, ROWS)
    assert find_stand_ins(tables, kinds=["static", "human"]).applied(table) is table
    assert StandIns().applied(table) is table
    found = find_stand_ins(tables, kinds=["dynamic"])
    assert found.applied(table.slice(0, 0)).num_rows == 0
