"""Tar shards as other programs write them: every member ends in a record or in a counted row, wherever it lies and whatever it is."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from collections import Counter

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import shard

from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source


def read(folder, **options):
    rows = list(read_source(SourceConfig(format="webdataset", path=str(folder), **options)))
    return [row for row in rows if isinstance(row, ImageRecord)], [row for row in rows if not isinstance(row, ImageRecord)]


def texts(image):
    return [caption["text"] for caption in image.captions]


def reasons(skipped):
    return [(row.image_id, row.reason) for row in skipped]


def js(**fields):
    return json.dumps(fields).encode()


SAMPLES = {
    f"{index}.{suffix}": data
    for index in range(4)
    for suffix, data in (("jpg", b"image %d" % index), ("txt", b"Person number %d." % index), ("json", js(person_id=index)))
}


@pytest.mark.parametrize(
    "order",
    [
        list(SAMPLES),
        sorted(SAMPLES, key=lambda name: name[2:]),
        sorted(SAMPLES, key=lambda name: name[2:], reverse=True),
        ["0.jpg", "1.jpg", "0.txt", "1.txt", "1.json", "0.json", "2.jpg", "3.json", "2.txt", "3.txt", "2.json", "3.jpg"],
    ],
    ids=["neighbours", "by suffix", "texts first", "interleaved"],
)
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_members_in_any_order_are_whole_samples(tmp_path, order, mode):
    shard(tmp_path / "0.tar", [(name, SAMPLES[name]) for name in order], mode)
    images, skipped = read(tmp_path)
    assert not skipped
    assert sorted((row.image_id, row.person_id, row.data, *texts(row)) for row in images) == [
        (f"{index}.jpg", index, b"image %d" % index, f"Person number {index}.") for index in range(4)
    ]


def test_links_are_their_targets_and_links_out_of_the_shard_are_counted(tmp_path):
    files = tmp_path / "c"
    files.mkdir()
    for name, data in {"0001.jpg": b"one", "0002.txt": b"A man.", "0003.jpg": b"three"}.items():
        (files / name).write_bytes(data)
    os.link(files / "0001.jpg", files / "0002.jpg")
    for name, target in {"0004.jpg": "0003.jpg", "0005.jpg": "0004.jpg", "0006.jpg": "/etc/passwd", "0007.jpg": "0007.jpg"}.items():
        (files / name).symlink_to(target)
    (tmp_path / "s").mkdir()
    subprocess.run(["tar", "-C", files, "--sort=name", "-cf", tmp_path / "s" / "0.tar", *sorted(os.listdir(files))], check=True)
    images, skipped = read(tmp_path / "s")
    assert [(row.image_id, row.data, texts(row)) for row in images] == [
        ("0001.jpg", b"one", []),
        ("0002.jpg", b"one", ["A man."]),
        ("0003.jpg", b"three", []),
        ("0004.jpg", b"three", []),
        ("0005.jpg", b"three", []),
    ]
    assert reasons(skipped) == [("0006.jpg", "link_outside"), ("0007.jpg", "link_outside")]
    assert "symbolic link to /etc/passwd, which is not in the shard" in skipped[0].detail


def test_a_text_that_links_out_of_the_shard_leaves_no_unlabelled_image(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.addfile(member("a.jpg", 1), io.BytesIO(b"x"))
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = tarfile.SYMTYPE, "../labels/a.json"
        tar.addfile(link)
    images, skipped = read(tmp_path)
    assert not images
    assert reasons(skipped) == [("a.jpg", "link_outside")]


def member(name, size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def test_folders_are_nothing_and_devices_and_pipes_are_counted(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.addfile(member("a", kind=tarfile.DIRTYPE))
        tar.addfile(member("a/0.jpg", 1), io.BytesIO(b"x"))
        tar.addfile(member("a/1.jpg", kind=tarfile.CHRTYPE))
        tar.addfile(member("a/2.jpg", kind=tarfile.FIFOTYPE))
        tar.addfile(member("a/3.dat", 1), io.BytesIO(b"x"))
        tar.addfile(member("a/._0.jpg", 1), io.BytesIO(b"x"))
    images, skipped = read(tmp_path)
    assert [row.image_id for row in images] == ["a/0.jpg"]
    assert reasons(skipped) == [("a/1.jpg", "not_a_file"), ("a/2.jpg", "not_a_file"), ("a/3.dat", "no_image_file")]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_long_and_odd_come_as_they_are(tmp_path, format):
    names = ["x" * 80 + "/" + "y" * 90 + ".JPG", "张三/café 😀.jpg", "./here.PNG"]
    shard(tmp_path / "0.tar", [(name, b"x") for name in names], format=format)
    assert [row.image_id for row in read(tmp_path)[0]] == names


@pytest.mark.parametrize("form", ["--format=gnu", "--format=pax", "--format=posix --sparse-version=0.0"])
def test_sparse_members_are_read_whole(tmp_path, form):
    (tmp_path / "c").mkdir()
    content = b"begin" + bytes(1 << 20) + b"end"
    with open(tmp_path / "c" / "a.jpg", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 20, os.SEEK_CUR)
        file.write(b"end")
    (tmp_path / "c" / "b.jpg").write_bytes(b"plain")
    (tmp_path / "s").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "c", *form.split(), "-S", "-cf", tmp_path / "s" / "0.tar", "a.jpg", "b.jpg"], check=True)
    images, skipped = read(tmp_path / "s")
    assert not skipped
    assert [row.data for row in images] == [content, b"plain"]


def test_a_name_that_is_there_twice_is_one_image_or_none(tmp_path):
    same = [("a.jpg", b"1"), ("a.txt", b"One."), ("a.jpg", b"1"), ("a.txt", b"One.")]
    differ = [("b.jpg", b"1"), ("b.txt", b"A woman in a red coat."), ("b.jpg", b"2"), ("b.txt", b"A man in a blue suit.")]
    shard(tmp_path / "0.tar", [*same, *differ, ("c.jpg", b"3")])
    images, skipped = read(tmp_path)
    assert [(row.image_id, texts(row)) for row in images] == [("a.jpg", ["One."]), ("c.jpg", [])]
    assert reasons(skipped) == [("a.jpg", "repeated_member"), ("a.txt", "repeated_member")] + [("b.jpg", "repeated_member")] * 2
    assert [caption["text"] for caption in skipped[2].captions] == ["A woman in a red coat.", "A man in a blue suit."]


def test_names_with_dots_have_webdatasets_key(tmp_path):
    single = [("v.1.jpg", b"1"), ("v.1.txt", b"One."), ("w.left.jpg", b"2"), ("w.json", js(person_id=7))]
    with_mask = [("m.jpg", b"3"), ("m.mask.png", b"4"), ("m.txt", b"Three.")]
    many = [("n.1.jpg", b"5"), ("n.1.txt", b"Five."), ("n.2.jpg", b"6"), ("n.2.txt", b"Six.")]
    shard(tmp_path / "0.tar", [*single, *with_mask, *many, ("o.jpg", b"7"), ("o.cls", b"1")])
    images, skipped = read(tmp_path)
    assert [(row.image_id, row.person_id, texts(row)) for row in images] == [
        ("v.1.jpg", None, ["One."]),
        ("w.left.jpg", 7, []),
        ("m.jpg", None, ["Three."]),
        ("o.jpg", None, []),
    ]
    assert reasons(skipped) == [
        ("m.mask.png", "several_images"),
        ("n.1.jpg", "several_images"),
        ("n.2.jpg", "several_images"),
        ("o.cls", "no_image_file"),
    ]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"txt": b"One.\n", "json": js(caption="One.")}, ["One."]),
        ({"txt": b"One.\n", "caption": b"One."}, ["One."]),
        ({"json": js(caption="One.", captions=["One.", "Two."])}, ["One.", "Two."]),
        ({"json": js(captions=["Same.", "Same."])}, ["Same.", "Same."]),
        ({"txt": b"One.", "json": js(captions=["Two."])}, ["One.", "Two."]),
        ({"txt": b"", "json": js(caption=None)}, [""]),
        ({"txt": b"One.", "json": js(caption=None)}, ["One."]),
        ({"txt": "\ufeffÉin".encode()}, ["Éin"]),
        ({"txt": "Ein".encode("utf-16")}, ["Ein"]),
        ({"txt": b"caf\xe9"}, [None]),
        ({"json": b'\xef\xbb\xbf{"caption": NaN}'}, [None]),
        ({"json": js(captions=None)}, [None]),
    ],
)
def test_one_caption_is_one_caption(tmp_path, members, expected):
    shard(tmp_path / "0.tar", [("a.jpg", b"x"), *((f"a.{suffix}", data) for suffix, data in members.items())])
    (image,), skipped = read(tmp_path)
    assert not skipped
    assert texts(image) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "is no JSON"),
        (b"[1]", "is a list, not an object"),
        (js(person_id="p1"), "person_id is 'p1', not a whole number"),
        (js(camera_id=1.5), "camera_id is 1.5"),
        (b'{"person_id": 1, "person_id": 2}', "says person_id more than once"),
        (b"[" * 100_000, "nested too deeply"),
        ('{"a": "é"}'.encode("latin-1"), "no UTF-8 text"),
    ],
)
def test_a_json_that_cannot_be_meant_is_a_counted_row_with_its_texts(tmp_path, data, words):
    shard(tmp_path / "0.tar", [("a.JPG", b"x"), ("a.txt", b"One."), ("a.json", data)])
    images, (skipped,) = read(tmp_path)
    assert not images
    assert (skipped.image_id, skipped.reason) == ("a.JPG", "bad_annotation")
    assert words in skipped.detail
    assert texts(skipped) == ["One."]


def test_ids_and_splits_of_other_writers_are_understood(tmp_path):
    shard(tmp_path / "0.tar", [("a.JPG", b"x"), ("a.json", js(person_id="0007", camera_id=2.0, split="Train", caption="One."))])
    (image,), _ = read(tmp_path)
    assert (image.image_id, image.person_id, image.camera_id, image.split) == ("a.JPG", 7, 2, "train")


def test_shards_are_known_by_any_of_their_suffixes_and_one_that_cannot_be_unpacked_is_counted(tmp_path):
    for index, (suffix, mode) in enumerate({"TAR": "w", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.items()):
        shard(tmp_path / f"{index}.{suffix}", [(f"{index}.jpg", b"x")], mode)
    (tmp_path / "9.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 600)
    images, skipped = read(tmp_path)
    assert [row.image_id for row in images] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert reasons(skipped) == [("9.tar.zst", "broken_shard")]
    assert "zstd" in skipped[0].detail


def test_joined_shards_are_read_to_the_end(tmp_path):
    parts = [shard(tmp_path / f"{index}", [(f"{index}.jpg", b"x")]).read_bytes() for index in range(3)]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    images, skipped = read(tmp_path)
    assert [row.image_id for row in images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert not skipped


def whole_shard(folder):
    return shard(
        folder / "whole", [(f"{index}.{suffix}", b"%d" % index * 700) for index in range(6) for suffix in ("jpg", "txt")]
    ).read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_shard_that_breaks_off_no_sample_comes_without_its_text(tmp_path, packed):
    data = whole_shard(tmp_path)
    data = gzip.compress(data) if packed else data
    for cut in range(1, len(data) - (0 if packed else 10_240), 97 if not packed else 7):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        images, skipped = read(tmp_path)
        assert [len(image.captions) for image in images] == [1] * len(images)
        assert Counter(row.reason for row in skipped) == {"broken_shard": 1}


def test_of_a_shard_by_suffix_that_breaks_off_no_image_passes_for_unlabelled(tmp_path):
    names = [f"{index}.jpg" for index in range(6)] + [f"{index}.txt" for index in range(6)]
    data = shard(tmp_path / "whole", [(name, b"x") for name in names]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: 512 * 2 * 9 + 100])
    images, skipped = read(tmp_path)
    assert [(image.image_id, len(image.captions)) for image in images] == [("0.jpg", 1), ("1.jpg", 1)]
    assert {row.reason for row in skipped} == {"broken_shard"}
    assert {row.image_id for row in skipped} == {"cut.tar", "3.jpg", "4.jpg", "5.jpg"}


@pytest.mark.parametrize("content", [b"", bytes(20_000), b"no tar" * 1000, b"\x28\xb5\x2f\xfd" + b"x" * 600, b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_tar_is_a_counted_row(tmp_path, content):
    shard(tmp_path / "0.tar", [("a.jpg", b"x")])
    (tmp_path / "1.tar").write_bytes(content)
    os.mkfifo(tmp_path / "2.tar")
    images, skipped = read(tmp_path)
    assert len(images) == 1
    assert reasons(skipped) == [("1.tar", "broken_shard"), ("2.tar", "broken_shard")]


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 30_000), st.binary(min_size=1, max_size=600)), min_size=1, max_size=8), st.booleans(), st.booleans()
)
def test_any_damage_ends_in_rows(tmp_path, damage, packed, pax):
    names = ["ä" * 120 + ".jpg" if pax else "a.jpg", "b.jpg", "b.txt", "c.jpg", "c.json"]
    data = bytearray(shard(tmp_path / "whole", [(name, b"1" * 700) for name in names]).read_bytes())
    data = bytearray(gzip.compress(bytes(data))) if packed else data
    for place, junk in damage:
        at = place % len(data)
        data[at : at + len(junk)] = junk
    (tmp_path / "0.tar").write_bytes(data)
    images, skipped = read(tmp_path)
    assert len(images) + len(skipped) <= 20


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path):
    data = bytearray(shard(tmp_path / "whole", [("é" * 200 + ".jpg", b"x"), ("b.jpg", b"x")], format=tarfile.PAX_FORMAT).read_bytes())
    data[124:136] = b"77777777777\0"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    (tmp_path / "0.tar").write_bytes(data)
    _, skipped = read(tmp_path)
    assert reasons(skipped) == [("0.tar", "broken_shard")]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shard(tmp_path):
    def peak(samples):
        shard(tmp_path / f"{samples}" / "0.tar", ((f"{n:07d}.{s}", b"x" * 100) for n in range(samples) for s in ("jpg", "txt")))
        tracemalloc.start()
        for _ in read_source(SourceConfig(format="webdataset", path=str(tmp_path / f"{samples}"))):
            pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(3000) < peak(600) + (1 << 18)
