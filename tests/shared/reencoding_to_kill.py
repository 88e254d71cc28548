"""What kill_points.py runs: a gallery that goes over to another encoder while a snapshot of the one before and an erasure wait."""

import numpy as np
from encoders_pair import seal_vectors
from gallery_to_kill import DIM, contents, fill, ids, table, vector_of

from reid_ray.errors import DataError
from reid_ray.gallery.bulk.sealed_piece import PIECES
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.verification import faults_of

COUNT_FROM_START = True
NEW_DIM = 12
LIVING = (102, 103, 104, 106, 108)  # 107 is deleted, 101 and 105 are erased
ERASED = (101, 105)


def new_vector_of(number):
    vector = np.random.default_rng([number, 1]).normal(size=NEW_DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def before(folder):
    fill(folder / "gallery")
    with GalleryWriter(folder / "gallery") as writer:
        writer.add(table(108), encoder="e")
        writer.erase(ids(*ERASED), request="one")


def reencode(folder):
    numbers = [*LIVING, 107, *ERASED]
    sealed = [seal_vectors(folder / "gallery" / PIECES, "new", ids(*numbers), np.stack([new_vector_of(number) for number in numbers]))]
    with GalleryWriter(folder / "gallery") as writer:
        writer.reencode(folder / "gallery" / PIECES, sealed, encoder="new", dim=NEW_DIM)


def looked_at(view):
    """The encoder, and what is wrong: whoever is not found first by the vector that it has there."""
    of = {"e": vector_of, "new": new_vector_of}[view.manifest.encoder]
    found = sorted(int(each.rpartition("-")[2]) for each in view.ids())
    wrong = [number for number in found if view.search(of(number)[None], 1)[0][0].item_id != f"person-{number}"]
    wrong += [number for number in found if view.thumbnail(f"person-{number}") != b"picture-of-%d" % number]
    wrong += [number for number in found if view.get([f"person-{number}"])[0]["caption"] != f"caption-of-{number}"]
    return view.manifest.encoder, found, wrong


def after(folder):
    gallery = folder / "gallery"
    encoder, found, wrong = looked_at(GalleryView(gallery))
    try:
        reencode(folder)
        again = encoder
    except DataError:
        again = "refused"
    last, last_found, last_wrong = looked_at(GalleryView(gallery))
    with GalleryWriter(gallery) as writer:
        writer.carry_out_erasures()
        signs = [made(number).tobytes() for number in ERASED for made in (vector_of, new_vector_of)]
        signs += [each.encode() for each in ids(*ERASED)]
        left = [name for name, data in contents(gallery) if any(sign in data for sign in signs)]
        faults = faults_of(gallery)
        writer.restore("early")
        restored, restored_found, restored_wrong = looked_at(writer.view)
    return {
        "encoder": encoder,
        "again": again,
        "last": last,
        "found": [found, last_found],
        "wrong": wrong + last_wrong + restored_wrong + faults + left,
        "restored": [restored, restored_found],
        "vectors": DIM,
    }
