"""What kills are tried on: a gallery that adds, deletes, erases, seals, compacts, and goes back to a snapshot; a folder or an address."""

import numpy as np
import pyarrow as pa

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.verification import faults_of
from reid_ray.storage.object_store.object_client import ObjectFolder

COUNT_FROM_START = True
DIM = 8


def vector_of(number):
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def table(*numbers):
    vectors = np.stack([vector_of(number) for number in numbers])
    return pa.table(
        {
            "item_id": [f"person-{number}" for number in numbers],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM),
            "thumbnail": pa.array([b"picture-of-%d" % number for number in numbers], pa.binary()),
            "caption": [f"caption-of-{number}" for number in numbers],
            "person_id": list(numbers),
        }
    )


def ids(*numbers):
    return [f"person-{number}" for number in numbers]


def before(folder):
    fill(folder / "gallery")


def write(folder):
    work(folder / "gallery", lambda name: (folder / f"acknowledged-{name}").touch())


def after(folder):
    said = {file.name.removeprefix("acknowledged-") for file in folder.glob("acknowledged-*")}
    found = faults_after(folder / "gallery", said)
    return {**found, "hidden": sorted(each.name for each in (folder / "gallery").iterdir() if each.name.startswith("."))}


def fill(gallery):
    create_gallery(gallery, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=4, merge_rows=12))
    with GalleryWriter(gallery) as writer:
        writer.add(table(101, 102, 103, 104), encoder="e")
        writer.add(table(105, 106, 107), encoder="e")
        writer.snapshot("early")
        writer.delete(ids(107))


def work(gallery, acknowledge):
    with GalleryWriter(gallery) as writer:
        writer.add(table(108), encoder="e")
        acknowledge("add-108")
        writer.erase(ids(101, 105), request="one")
        acknowledge("erase-101")
        acknowledge("erase-105")
        writer.delete(ids(102))
        acknowledge("delete-102")
        writer.add(table(109, 110, 111, 112), encoder="e")  # seals
        acknowledge("add-110")
        writer.erase(ids(109), request="two")
        acknowledge("erase-109")
        writer.carry_out_erasures()
        acknowledge("carried")
        writer.compact()
        writer.add(table(113), encoder="e")
        acknowledge("add-113")


def faults_after(gallery, said):
    """What is wrong with a gallery whose writer was killed once these writes were acknowledged: nothing, by kind."""
    first = living(GalleryView(gallery))
    left_early = remnants(gallery, {101, 105, 109}) if "carried" in said else []
    with GalleryWriter(gallery) as writer:
        second = living(writer.view)
        writer.carry_out_erasures()
        erased = {number for number in (101, 105, 109) if number not in second}
        left = remnants(gallery, erased)
        again = living(GalleryView(gallery))
        writer.restore("early")
        restored = living(writer.view)
        faults = faults_of(gallery)
    must = {int(each.rpartition("-")[2]) for each in said if each.startswith("add")}
    must_not = {int(each.rpartition("-")[2]) for each in said if each.startswith(("erase", "delete"))}
    return {
        "lost": sorted((must - must_not) - first),
        "back": sorted(must_not & (first | second | again)),
        "erased_in_snapshot": sorted(restored & erased),
        "changed_by_opening": sorted(first ^ second) + sorted(second ^ again),
        "old_lost": sorted({103, 104, 106} - again),
        "remnants": left + left_early,
        "faults": faults,
    }


def living(view):
    found = {int(each.rpartition("-")[2]) for each in view.ids()}
    for number in found:
        hit = view.search(vector_of(number)[None], 1)[0][0]
        assert hit.item_id == f"person-{number}", "a wrong id"
        assert view.thumbnail(hit.item_id) == b"picture-of-%d" % number, "a wrong picture"
    return found


def remnants(gallery, numbers):
    """Files or objects in which anything of some people can still be read."""
    found = []
    for name, data in contents(gallery):
        for number in numbers:
            vector = vector_of(number)
            signs = [b"person-%d" % number, b"picture-of-%d" % number, b"caption-of-%d" % number, vector.tobytes()]
            if any(sign in data for sign in [*signs, vector.astype(np.float16).tobytes()]):
                found.append(f"{name}: {number}")
    return found


def contents(gallery):
    """(name, bytes) of each file of a folder, or object of an address."""
    if "://" not in str(gallery):
        return [(path.name, path.read_bytes()) for path in gallery.rglob("*") if path.is_file()]
    objects = ObjectFolder(gallery)
    return [(each.name, objects.read(each.name).data) for each in objects.listed()]
