"""Nested columns of the tables come back from Parquet as they were put in, nulls included."""

from __future__ import annotations

import pyarrow.parquet as pq

from reid_ray.records import EDITS, SEGMENTS, conform, table_of


def _through_parquet(schema, rows, path):
    pq.write_table(table_of(schema, rows), path)
    return conform(pq.read_table(path), schema, origin=str(path)).to_pylist()


def test_boxes_and_changed_slots_survive_a_file(tmp_path):
    found = {"image_id": "a", "slot": "upper", "source": "truth", "status": "ok", "box": [1, 2, 30, 40], "mask": b"png"}
    absent = {"image_id": "a", "slot": "hat", "source": "truth", "status": "absent", "reason": "no_pixels"}
    segments = _through_parquet(SEGMENTS, [found, absent], tmp_path / "segments.parquet")
    assert [row["box"] for row in segments] == [[1, 2, 30, 40], None]
    change = {"slot": "upper", "reference_id": "r", "mask_sha256": "m", "old": None, "new": '{"upper_color": "red"}', "read": None}
    edits = [{"edit_id": f"e{n}", "source_image_id": "a", "slots": [change] * n, "editor": "x", "status": "ok"} for n in range(3)]
    assert [row["slots"] for row in _through_parquet(EDITS, edits, tmp_path / "edits.parquet")] == [[], [change], [change] * 2]
