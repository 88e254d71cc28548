"""The images that a model has seen, written beside its weights so that no score on them passes for one on unseen people.

Knows tables and roles; not models or scores. What a score shares with them is for reid_ray.retrieval.evaluate.exposure to find.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.records import SEEN, content_hash64
from reid_ray.train.feed.splits import Roles


def write_seen(path: Path, images: pa.Table, roles: Roles, used_N: np.ndarray) -> None:
    """Write a table of SEEN, 12 bytes an image.

    Args:
        path: the file.
        images: columns image_sha256, dataset and person_id of N images.
        roles: what each is for.
        used_N: which have a caption and could be read, bool.
    """
    with pq.ParquetWriter(path, SEEN, compression="zstd") as writer:
        for role, here_N in (("train", roles.train_N), ("val", roles.val_N)):
            rows = images.filter(pa.array(here_N & used_N))
            columns = [
                pa.array([role] * rows.num_rows, pa.string()),
                content_hash64(rows["image_sha256"]),
                rows["dataset"],
                rows["person_id"],
            ]
            writer.write_table(pa.table(columns, schema=SEEN))
