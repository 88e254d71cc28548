"""What the index job gathers from its actors: every image in one place, every failure on disk and counted, one encoder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from reid_ray.config import Section
from reid_ray.errors import DataError
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.embed_stream import ENCODER, THUMBNAIL
from reid_ray.retrieval.index.job import FAILED_FOLDER, _collect
from reid_ray.retrieval.index.thumbnails import ThumbnailReader
from reid_ray.storage import JobOutput, read_table


class Config(Section):
    pass


def batch(numbers: list[int], *, encoder: str = "e") -> pa.Table:
    """Every fifth image failed."""
    rows = [
        {"item_id": f"{n}", "kind": "image", "image_id": f"{n}"}
        | ({"status": "failed", "reason": f"{'truncated' if n % 2 else 'missing'}: why"} if n % 5 == 0 else {"status": "ok"})
        | {"embedding": None if n % 5 == 0 else [float(n), 1.0]}
        for n in numbers
    ]
    thumbnails = [None if n % 5 == 0 else f"jpeg {n}".encode() for n in numbers]
    table = table_of(EMBEDDINGS, rows).append_column(THUMBNAIL, pa.array(thumbnails, pa.binary()))
    return table.append_column(ENCODER, pa.array([encoder] * len(numbers), pa.string()))


def test_every_image_is_a_vector_an_item_and_a_thumbnail_of_one_row_or_a_failure_that_is_counted(tmp_path):
    batches = [batch([1, 2, 5, 3]), batch([10]), batch([]), batch([0, 4, 6])]
    with JobOutput("index", tmp_path / "out", Config()) as output:
        vector_ND, items, fingerprint = _collect(batches, output, 8)
        assert output.counts.as_dict() == {"read": 8, "written": 5, "failed": {"missing": 2, "truncated": 1}}
        thumbnails = ThumbnailReader(output.folder)
        rows = [1, 2, 3, 4, 6]
        assert fingerprint == "e"
        assert vector_ND[:, 0].tolist() == rows
        assert items["item_id"].to_pylist() == [f"{n}" for n in rows]
        assert [thumbnails[at] for at in range(len(thumbnails))] == [f"jpeg {n}".encode() for n in rows]
        failed = read_table(output.folder / FAILED_FOLDER, EMBEDDINGS)
        assert failed["item_id"].to_pylist() == ["5", "10", "0"]


def test_an_encoder_that_is_another_one_in_the_middle_is_refused(tmp_path):
    with pytest.raises(DataError, match="encoder changed"), JobOutput("index", tmp_path / "out", Config()) as output:
        _collect([batch([1, 2]), batch([3], encoder="another")], output, 3)
    assert not (tmp_path / "out").exists()


def test_nothing_that_can_be_embedded_gives_no_vectors_and_every_reason(tmp_path):
    with JobOutput("index", tmp_path / "out", Config()) as output:
        vector_ND, items, _ = _collect([batch([0, 5])], output, 2)
        assert (len(vector_ND), items.num_rows) == (0, 0)
        assert vector_ND.dtype == np.float32
        assert output.counts.as_dict() == {"read": 2, "written": 0, "failed": {"missing": 1, "truncated": 1}}
