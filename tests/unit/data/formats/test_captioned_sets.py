"""The data sets of 2023 and later with captions by models, long captions or composed queries: each one's traps, on miniature trees."""

import json
import resource
from collections import Counter

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.data.containers.values import without_spelled_breaks
from reid_ray.data.formats.composed.syncpr import target_in
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, Skipped, read_source
from reid_ray.data.image_records import asked_for
from reid_ray.errors import DataError


def read(format, path, **options):
    rows = list(read_source(SourceConfig(format=format, path=str(path), **options)))
    return [row for row in rows if isinstance(row, ImageRecord)], [row for row in rows if isinstance(row, Skipped)]


def texts(image, instruction=None):
    return [caption["text"] for caption in image.captions if instruction in (None, caption.get("instruction_id"))]


def mended(images):
    return Counter(code for image in images for code in image.mended)


def edited(file, change):
    """The JSON of a file, changed in place."""
    value = json.loads(file.read_text())
    file.write_text(json.dumps(change(value)))


# WebPerson


def test_webperson_has_two_captions_an_image_and_no_persons(trees, people):
    images, skipped = read("webperson", trees.webperson())
    assert not skipped
    assert [texts(image) for image in images[1:]] == [person[1] for person in people[1:12]]
    assert {(image.person_id, image.camera_id, image.split) for image in images} == {(None, None, None)}
    assert images[3].image_id == "000/000003.jpg"  # its path says images/ itself
    assert all(image.store.read_bytes(image.name) == person[0] for image, person in zip(images, people, strict=False))


def test_webpersons_spelled_line_breaks_are_spaces_and_counted(trees, people):
    images, _ = read("webperson", trees.webperson())
    assert texts(images[0])[0] == f"{people[0][1][0]} A red/navy coat."
    assert mended(images) == {"line_break_spelled": 1}


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(st.lists(st.from_regex(r"\A[A-Z][a-z]{2,6} [a-z]{2,6}(/[a-z]{2,6})?[.!]\Z"), min_size=1, max_size=4))
def test_a_spelled_break_between_sentences_is_one_space_and_a_slash_between_words_stays(sentences):
    for spelled in ("/n", "\\n", " /n ", "/n/n", "/n\\n"):
        assert without_spelled_breaks(spelled.join(sentences)) == " ".join(sentences)
    assert without_spelled_breaks(" ".join(sentences)) == " ".join(sentences)


def test_webpersons_list_is_found_under_any_name_if_it_is_the_only_one(trees):
    folder = trees.webperson()
    (folder / "100w.json").rename(folder / "500w.json")
    assert len(read("webperson", folder)[0]) == 12
    (folder / "notes.json").write_text("{}")
    with refused(DataError, "100w.json", "2 other *.json", "source.annotations"):
        read("webperson", folder)
    assert len(read("webperson", folder, annotations="500w.json")[0]) == 12


def test_another_list_is_no_webperson(trees):
    folder = trees.cuhk_pedes()
    with refused(DataError, "WebPerson", "reid_raw.json"):
        read("webperson", folder, annotations="reid_raw.json")


@pytest.mark.parametrize(
    "caption",
    [
        "a BLACK/navy bag",
        "a (red)/navy hat",
        'a "Nike"/navy cap',
        "number 3/navy",
        "either/neither",
        "w/no bag",
        "a red /navy coat",
        "red, /navy",
        "red / navy",
    ],
)
def test_a_slash_before_a_small_letter_takes_no_letter_from_a_word(caption):
    assert without_spelled_breaks(caption) == caption


@pytest.mark.parametrize(
    ("spelled", "plain"),
    [
        ("He walks./nhe smiles.", "He walks. he smiles."),
        ("He walks./n/nhe smiles.", "He walks. he smiles."),
        ("/nhe walks.", "he walks."),
        ("A hat/nHe walks/n", "A hat He walks"),
        ("One\\n2 bags", "One 2 bags"),
        ("He walks. /n /nhe smiles.", "He walks. he smiles."),
        ("a coat \\nand a hat", "a coat and a hat"),
    ],
)
def test_a_spelled_break_goes_in_one_piece_wherever_it_stands(spelled, plain):
    assert without_spelled_breaks(spelled) == plain


# SYNTH-PEDES, HAM-PEDES


@pytest.mark.parametrize("name", ["synthpedes_dataset.json", "synthpedes-dataset.json"])
def test_synth_pedes_is_read_under_both_names_with_both_kinds_of_captions(trees, people, name):
    images, skipped = read("synth_pedes", trees.synth_pedes(name))
    assert not skipped
    assert [len(texts(image, "captions")) for image in images] == [2, 3] * 12
    assert [texts(image, "prompt_caption") for image in images[:1]] == [["A person with the attributes of image 0."]]
    assert [image.person_id for image in images] == [index // 4 for index in range(24)]
    assert {image.split for image in images} == {None}
    assert json.loads(images[0].attributes)["attributes"] == ["man,black hair,black shirt,pink shorts,black shoes,unknown"]
    assert images[13].store.read_bytes(images[13].name) == people[13][0]


SHAPES = {
    "published": (lambda pairs: pairs, None),
    "texts": (lambda pairs: {path: two[0] for path, two in pairs.items()}, "text_for_list"),
    "objects": (lambda pairs: {path: {"caption1": two[0], "caption2": two[1]} for path, two in pairs.items()}, "object_for_list"),
    "one-key records": (lambda pairs: [{path: two} for path, two in pairs.items()], "records_for_object"),
    "records": (lambda pairs: [{"file_path": path, "captions": two} for path, two in pairs.items()], "records_for_object"),
    "elsewhere": (lambda pairs: {f"/data/SYNTH-PEDES/{path}": two for path, two in pairs.items()}, "path_of_elsewhere"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ham_pedes_is_read_in_any_shape_and_says_which(trees, shape):
    folder = trees.ham_pedes()
    change, found = SHAPES[shape]
    edited(folder / "HAM_PEDES.json", change)
    images, skipped = read("ham_pedes", folder)
    assert not skipped
    assert [image.image_id for image in images] == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    assert texts(images[5])[0] == f"First of {images[5].image_id}, he walks."
    assert mended(images) == ({found: 24} if found else {})
    assert {image.person_id for image in images} == {None}


def test_what_is_no_caption_of_ham_pedes_is_counted(trees):
    folder = trees.ham_pedes()
    edited(
        folder / "HAM_PEDES.json",
        lambda pairs: [*({path: two} for path, two in pairs.items()), 3, {"captions": ["a"]}, {"x": 4}, {"../y": []}],
    )
    images, skipped = read("ham_pedes", folder)
    assert len(images) == 24
    assert [row.reason for row in skipped] == ["bad_annotation"] * 3 + ["unsafe_path"]


def test_ham_pedes_takes_images_that_lie_elsewhere(trees, tmp_path):
    folder = trees.ham_pedes()
    (tmp_path / "captions").mkdir()
    (folder / "HAM_PEDES.json").rename(tmp_path / "captions" / "captions_by_ham.json")
    images, _ = read("ham_pedes", tmp_path / "captions", images=str(folder))
    assert all(image.store.read_bytes(image.name) for image in images)


# MALS


def test_mals_labels_of_minus_one_are_not_known(trees):
    images, skipped = read("mals", trees.mals())
    assert not skipped
    assert len(images) == 12
    labels = [json.loads(image.attributes)["label"] if image.attributes else None for image in images]
    assert labels[0] == [1, 0] * 13 + [None]
    assert labels[1] == [1, 0] * 13 + [1]
    assert labels[5] is labels[11] is None
    assert mended(images) == {"label_not_known": 4, "label_unusable": 2}
    with refused(DataError, "gene_attrs"):
        read("mals", trees.webperson())


# UFine6926, UFine3C, Interactive-PEDES


def test_ufine_takes_splits_sources_and_any_number_of_captions(trees):
    images, skipped = read("ufine6926", trees.ufine6926())
    assert not skipped
    assert Counter(image.split for image in images) == {"train": 32, "test": 16}
    assert {len(image.captions) for image in images} == {2}
    assert images[0].image_id == "images/1.jpg"
    images, skipped = read("ufine3c", trees.ufine3c())
    assert not skipped
    assert {image.split for image in images} == {"test"}
    assert mended(images) == {"no_split_key": 24}
    assert [len(image.captions) for image in images[:3]] == [1, 2, 3]
    assert json.loads(images[0].attributes) == {"source": "UFine6926"}


def test_interactive_pedes_tells_its_descriptions_apart_and_keeps_the_dialogue(trees, people):
    images, skipped = read("interactive_pedes", trees.interactive_pedes())
    assert not skipped
    assert Counter(image.split for image in images) == {"train": 8, "val": 4, "test": 4}
    kinds = [(caption["kind"], caption.get("instruction_id")) for caption in images[0].captions]
    assert kinds == [("human", None), ("static", "initial_description"), ("static", "fine-grained_description")]
    assert json.loads(images[1].attributes) == {"questions": ["What does the person wear?"], "answers": [people[1][1][1]]}
    assert images[1].store.read_bytes(images[1].name) == people[1][0]


# ITCPR, SynCPR


def test_itcpr_keeps_instances_and_what_a_query_asks_with_its_image(trees, people):
    images, skipped = read("itcpr", trees.itcpr())
    assert not skipped
    assert Counter(image.split for image in images) == {"query": 4, "gallery": 8}
    asked = images[0].captions
    assert [caption["text"] for caption in asked] == people[0][1]  # the image asks twice
    assert {(caption["status"], caption["reason"]) for caption in asked} == {
        ("failed", "composed_query: asks with its image for instance 100")
    }
    instances = [json.loads(image.attributes)["instance_id"] for image in images]
    assert instances[:4] == [100, 101, 102, 103]
    assert instances[-2:] == [None, None]  # distractors
    assert [image.person_id for image in images[:4]] == [0, 1, 2, 3]
    assert images[1].image_id == "query/Celeb-reID/000/1.jpg"
    assert all(image.store.read_bytes(image.name) for image in images)
    (trees.root / "ITCPR" / "gallery.json").unlink()
    with refused(DataError, "gallery.json", "ITCPR"):
        read("itcpr", trees.root / "ITCPR")


def test_syncpr_gives_both_images_their_own_captions_and_the_edit_to_nobody(trees, people):
    images, skipped = read("syncpr", trees.syncpr())
    assert not skipped
    assert len(images) == 12
    usable = [[caption["text"] for caption in image.captions if caption["status"] == "ok"] for image in images]
    assert usable == [[person[1][0]] for person in people[:12]]
    assert [json.loads(image.attributes)["role"] for image in images] == ["reference", "target"] * 6
    edits = [caption for image in images for caption in image.captions if caption["status"] == "failed"]
    assert len(edits) == 6
    assert edits[0]["reason"] == 'composed_query: asks with its image for image "test1/sub_img/img_right/0_right.png" of cpr_id 0'


def test_an_image_of_several_triplets_of_syncpr_comes_once_with_all_that_is_asked_with_it(trees):
    folder = trees.syncpr()
    entries = json.loads((folder / "SynCPR.json").read_text())
    first, second, third = entries[:3]
    again = {**second, **{name: first[name] for name in ("reference_image_path", "reference_caption")}, "cpr_id": 70}
    chained = {**third, "reference_image_path": first["target_image_path"], "reference_caption": "Said otherwise."}
    (folder / "SynCPR.json").write_text(json.dumps([first, again, chained]))
    images, skipped = read("syncpr", folder)
    assert not skipped
    told = {image.image_id: [(caption["status"], caption["text"]) for caption in image.captions] for image in images}
    assert len(told) == len(images) == 4
    assert told[first["reference_image_path"]] == [
        ("ok", first["reference_caption"]),
        ("failed", first["edit_caption"]),
        ("failed", second["edit_caption"]),
    ]
    assert told[first["target_image_path"]] == [
        ("ok", first["target_caption"]),
        ("ok", "Said otherwise."),
        ("failed", third["edit_caption"]),
    ]
    asked = [asked_for(caption) for image in images for caption in image.captions if caption["status"] == "failed"]
    assert sorted(map(target_in, asked)) == sorted((each["target_image_path"], each["cpr_id"]) for each in (first, again, chained))


# All of them


@pytest.mark.slow
def test_a_list_of_many_rows_costs_no_memory(tmp_path):
    """The file of 22 MB streams: read whole, it would show."""
    (tmp_path / "images").mkdir()
    text = "A person walks along a street and looks at a phone. " * 10
    with (tmp_path / "100w.json").open("w") as file:
        file.write("[")
        for index in range(20_000):
            file.write(("," if index else "") + json.dumps({f"{index}.jpg": {"caption1": text, "caption2": text}}))
        file.write("]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(1 for _ in read_source(SourceConfig(format="webperson", path=str(tmp_path))))
    assert rows == 20_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 12_000  # KiB
