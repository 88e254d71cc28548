"""What kill_points.py runs: a gallery that adopts two sealed pieces; whoever comes after it makes and adopts them again."""

import numpy as np
import pyarrow as pa
from gallery_to_kill import DIM, vector_of

from reid_ray.gallery.bulk.sealed_piece import PIECES, read_piece, seal_piece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.items import checked_items
from reid_ray.gallery.verification import faults_of

COUNT_FROM_START = True
ROWS = {"first": "bc", "second": "a"}


def items(ids):
    vectors = np.stack([vector_of(ord(each)) for each in ids])
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    return pa.table({"item_id": list(ids), "embedding": array})


def before(folder):
    create_gallery(folder / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(folder / "gallery") as writer:
        writer.add(items("ab"), encoder="e")


def adopt(folder):
    pieces = folder / "gallery" / PIECES
    with GalleryWriter(folder / "gallery") as writer:
        sealed = []
        for name, ids in ROWS.items():
            batch = checked_items(items(ids), origin=name)
            there = read_piece(pieces, name)
            made = {"dim": DIM, "config": GalleryConfig(), "schema": batch.rows.schema, "counts": {}}
            sealed.append(there or seal_piece(pieces, name, [batch], len(batch), **made))
        writer.adopt(pieces, sealed, encoder="e")


def after(folder):
    first = GalleryView(folder / "gallery").ids()
    adopt(folder)
    second = GalleryView(folder / "gallery").ids()
    return {"first": first, "second": second, "faults": faults_of(folder / "gallery"), "pieces": (folder / "gallery" / PIECES).exists()}
