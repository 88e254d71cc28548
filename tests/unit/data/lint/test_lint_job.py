"""Lint: every rule fires on its fault and on nothing else, and the report shows it."""

import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from refusals import refused

from reid_ray.data.formats.config import READERS
from reid_ray.data.lint.caption_text import RULES, caption_fault, least_tokens
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint
from reid_ray.data.lint.published_sizes import PUBLISHED, SOURCES
from reid_ray.data.perceptual_hash import near_pairs, perceptual_hash
from reid_ray.errors import DataError

MAX_PIXELS = 10**7


def lint(path, out, format="rstpreid", name="mini", **options):
    source = {"format": format, "path": str(path), **({"name": name} if name else {}), **options.pop("source", {})}
    config = {"source": source, "output": {"path": str(out), "if_exists": "replace"}, "load": {"processes": 0}, **options}
    run_lint(LintJob.model_validate(config))
    report = json.loads((out / "lint.json").read_text())
    return {finding["rule"]: finding for finding in report["findings"]}, report


@pytest.fixture
def rstp(trees):
    """RSTPReid in miniature, and a way to change its entries."""
    folder = trees.rstpreid()
    file = folder / "data_captions.json"

    def change(edit):
        entries = json.loads(file.read_text())
        edit(entries)
        file.write_text(json.dumps(entries))

    return folder, change


def picture(people, index=0):
    return Image.open(io.BytesIO(people[index][0])).convert("RGB")


def jpeg(image, quality=90):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_a_clean_set_has_no_finding(rstp, tmp_path):
    findings, report = lint(rstp[0], tmp_path / "out")
    assert findings == {}
    assert report["splits"] == {split: {"images": 16, "identities": 4, "captions": 32} for split in ("test", "train", "val")}
    assert "nothing found" in (tmp_path / "out" / "lint.html").read_text()


def _caption(text):
    return lambda entries: entries[3]["captions"].__setitem__(0, text)


def _repeat_caption(entries):
    entries[0]["captions"][0] = "A man in a red coat."
    entries[20]["captions"][1] = "a man in a  RED coat"


def _move_image(entries):
    entries[2]["split"] = entries[3]["split"] = "test"


def _lonely(entries):
    entries[1]["id"] = 12


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("caption_code", _caption("function show(x) { return x; }")),
        ("caption_template", _caption("A woman with [hair description] in a coat.")),
        ("caption_script", _caption("一个穿着红色外套的男人正在街上走路")),
        ("caption_no_text", _caption("asdf qwrt zxcv bnmk hjkl")),
        ("caption_short", _caption("red coat")),
        ("null_caption", _caption(None)),
        ("empty_caption", _caption("  ")),
        ("caption_long", _caption("a man in a red coat, " * 11)),
        ("caption_not_text", _caption({"text": "a man"})),
        ("caption_across_identities", _repeat_caption),
        ("identity_across_splits", _move_image),
        ("one_image_identity", _lonely),
    ],
)
def test_each_fault_in_the_captions_fires_its_rule_alone(rstp, tmp_path, rule, edit):
    folder, change = rstp
    change(edit)
    findings, _ = lint(folder, tmp_path / "out")
    assert set(findings) == {rule}
    assert findings[rule]["count"] == 1
    assert len(findings[rule]["examples"]) == 1


@pytest.mark.parametrize(
    ("rule", "content"),
    [("image_missing", None), ("image_empty", b""), ("image_not_an_image", b"hello"), ("image_truncated", "cut")],
)
def test_each_unusable_image_fires_its_rule(rstp, people, tmp_path, rule, content):
    file = rstp[0] / "imgs" / json.loads((rstp[0] / "data_captions.json").read_text())[5]["img_path"]
    file.unlink()
    if content is not None:
        file.write_bytes(people[5][0][:-300] if content == "cut" else content)
    findings, report = lint(rstp[0], tmp_path / "out")
    assert set(findings) == {rule}
    assert sum(report["unusable"].values()) == 1


# Those whose images are no files, or that have several layouts, are linted by the same rows; tests/unit/data/formats reads them.
OTHERWISE_KEPT = {"cuhk03", "luperson", "luperson_mllm", "folder", "webdataset", "parquet"}


@pytest.mark.slow
@pytest.mark.parametrize("format", sorted(READERS.keys() - OTHERWISE_KEPT))
def test_every_published_layout_is_linted_and_its_one_damaged_image_is_found(trees, tmp_path, format):
    folder = getattr(trees, format)()
    before, whole = lint(folder, tmp_path / "before", format=format)
    assert "image_truncated" not in before
    last = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))[-1]
    last.write_bytes(last.read_bytes()[:-300])
    findings, report = lint(folder, tmp_path / "after", format=format)
    assert findings["image_truncated"]["count"] == 1
    assert sum(report["unusable"].values()) == sum(whole["unusable"].values()) + 1  # Market-1501 has junk


def test_gaps_in_ids_are_counted(rstp, tmp_path):
    folder, change = rstp
    change(lambda entries: [entry.__setitem__("id", entry["id"] + 5) for entry in entries[40:]])
    findings, _ = lint(folder, tmp_path / "out")
    assert set(findings) == {"gap_in_ids"}
    assert "5 numbers" in findings["gap_in_ids"]["message"]
    assert findings["gap_in_ids"]["examples"][0]["text"] == "no identity from 10 to 14"


@pytest.mark.parametrize(("other", "rule"), [(1, "duplicate_image"), (40, "duplicate_image_across")])
def test_identical_images_within_and_across_identities(rstp, tmp_path, other, rule):
    names = [entry["img_path"] for entry in json.loads((rstp[0] / "data_captions.json").read_text())]
    (rstp[0] / "imgs" / names[other]).write_bytes((rstp[0] / "imgs" / names[0]).read_bytes())
    findings, _ = lint(rstp[0], tmp_path / "out")
    assert set(findings) == {rule}
    assert findings[rule]["examples"][0]["image_ids"] == [names[0], names[other]]


@pytest.mark.parametrize(("other", "rule"), [(1, "near_duplicate"), (40, "near_duplicate_across")])
def test_encoded_again_scaled_and_brightened_images_are_near_duplicates(rstp, people, tmp_path, other, rule):
    names = [entry["img_path"] for entry in json.loads((rstp[0] / "data_captions.json").read_text())]
    changed = ImageEnhance.Brightness(picture(people).resize((64, 128))).enhance(1.05)
    (rstp[0] / "imgs" / names[other]).write_bytes(jpeg(changed, quality=80))
    findings, _ = lint(rstp[0], tmp_path / "out")
    assert set(findings) == {rule}
    assert [sorted(example["image_ids"]) for example in findings[rule]["examples"]] == [sorted([names[0], names[other]])]


def test_published_counts_are_compared_by_data_set_name(rstp, tmp_path):
    findings, _ = lint(rstp[0], tmp_path / "out", name=None)
    assert set(findings) == {"published_count"}
    assert findings["published_count"]["count"] == 9
    assert "train images 16, not 18505; train identities 4, not 3701" in findings["published_count"]["message"]
    assert set(PUBLISHED) == set(SOURCES)


def test_msmt17s_shared_val_is_a_note_and_market_junk_is_no_warning(trees, tmp_path):
    findings, _ = lint(trees.msmt17(), tmp_path / "msmt", "msmt17", None)
    assert findings["identity_across_splits"]["level"] == "note"
    assert findings["identity_across_splits"]["count"] == 8
    findings, _ = lint(trees.market1501(), tmp_path / "market", "market1501")
    assert {rule: findings[rule]["level"] for rule in ("image_junk", "image_no_image_file")} == {
        "image_junk": "note",
        "image_no_image_file": "note",
    }
    assert "identity_across_splits" not in findings


@pytest.mark.parametrize("if_exists", ["replace", "reuse"])
def test_a_set_without_a_usable_image_gets_its_report_and_an_error_every_time(tmp_path, if_exists):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_text("no image")
    for _ in range(2):
        with refused(DataError, "out/lint.html"):
            lint(tmp_path / "crops", tmp_path / "out", "folder", output={"path": str(tmp_path / "out"), "if_exists": if_exists})
        assert json.loads((tmp_path / "out" / "lint.json").read_text())["unusable"] == {"not_an_image": 1}


def test_names_and_texts_that_are_no_unicode_are_reported_escaped_with_their_pictures(people, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    for name, data in ((b"caf\xe9.jpg", people[0][0]), (b"a.jpg", people[0][0]), (b"bad\xe9.jpg", b"x")):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(data)
    findings, _ = lint(folder, tmp_path / "out", "folder")
    assert findings["image_not_an_image"]["examples"][0]["image_ids"] == ["bad\\xe9.jpg"]
    assert findings["duplicate_image"]["examples"][0]["image_ids"] == ["a.jpg", "caf\\xe9.jpg"]
    assert (tmp_path / "out" / "lint.html").read_text().count("data:image/jpeg") == 2


def test_captions_of_half_characters_are_reported_escaped(rstp, tmp_path):
    folder, change = rstp
    change(_caption("\ud800 \ud800"))
    findings, _ = lint(folder, tmp_path / "out")
    assert any("\\ud800" in example["text"] for finding in findings.values() for example in finding["examples"])


def test_the_page_shows_pictures_and_escapes_texts(rstp, tmp_path):
    folder, change = rstp
    change(_caption("<script>alert('x')</script> a man"))
    lint(folder, tmp_path / "out")
    page = (tmp_path / "out" / "lint.html").read_text()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    pictures = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 1
    assert pictures[0].startswith("data:image/jpeg;base64,/9j/")
    assert "script" not in {tag for tag, _ in tags}
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_sentences_about_people_pass_and_rules_have_words():
    for text in (
        "A woman with short hair wears a blue t-shirt with a print (white flowers), and jeans.",
        "He's carrying a black & white bag in his left hand; 1990s style, size 3/4.",
        "A first-class look: the man lets a grey scarf hang, returning home.",
        "Une femme porte un manteau beige très élégant.",
    ):
        assert caption_fault(text, "LATIN") is None
    assert caption_fault("一个穿着红色外套的男人正在街上走路", "CJK") is None
    assert caption_fault("A man in a coat.", "CJK") == "caption_script"
    assert caption_fault("She wears \ufffd\ufffd shoes", "LATIN") == "caption_no_text"
    assert caption_fault("red red red red red red red", "LATIN") == "caption_no_text"
    assert set(RULES) >= {"caption_code", "caption_template", "caption_script", "caption_no_text", "caption_short"}


@pytest.mark.slow
def test_tokens_are_counted_at_least_as_clips_own_tokenizer_counts_them():
    import open_clip  # here, for it takes most of a second

    words = open_clip.SimpleTokenizer()
    for text in (
        "A woman with short hair wears a blue t-shirt with a print (white flowers), and jeans.",
        "He's carrying a black & white bag that isn't his, 1990s style, size 3/4 ... _x_ they'll say; don't!",
        "Une femme porte un manteau beige tr\u00e8s \u00e9l\u00e9gant \U0001f9e5.",
        "\u4e00\u4e2a\u7a7f\u7740\u7ea2\u8272\u5916\u5957\u7684\u7537\u4eba\u6b63\u5728\u8857\u4e0a\u8d70\u8def",
    ):
        assert 0.3 * (2 + len(words.encode(text))) < least_tokens(text) <= 2 + len(words.encode(text))
    assert least_tokens("a man in a red coat") == 8 == 2 + len(words.encode("a man in a red coat"))


def test_the_longest_caption_that_a_model_reads_is_no_finding(rstp, tmp_path):
    folder, change = rstp
    change(_caption("a man in a red coat with dots, " * 8))
    assert set(lint(folder, tmp_path / "fits", context=74)[0]) == set()
    assert set(lint(folder, tmp_path / "long", context=73)[0]) == {"caption_long"}


@pytest.mark.slow
def test_near_pairs_equal_a_comparison_of_all_with_all():
    rng = np.random.default_rng(3)
    base_HB = rng.integers(0, 256, (120, 16), dtype=np.uint8)
    bits = np.unpackbits(base_HB, axis=1)
    near = []
    for row, flips in zip(bits, rng.integers(0, 12, 120), strict=True):
        changed = row.copy()
        changed[rng.choice(128, flips, replace=False)] ^= 1
        near.append(changed)
    hash_NB = np.unique(np.concatenate([base_HB, np.packbits(np.array(near), axis=1)]), axis=0)
    unpacked = np.unpackbits(hash_NB, axis=1).astype(int)
    distance = np.abs(unpacked[:, None] - unpacked[None]).sum(-1)
    for limit in (0, 3, 7):
        pairs, complete = near_pairs(hash_NB, limit)
        expected = [(i, j) for i, j in zip(*np.nonzero(distance <= limit), strict=True) if i < j]
        assert complete
        assert [tuple(pair) for pair in pairs] == expected


@pytest.mark.slow
def test_a_hash_that_is_everywhere_is_searched_within_bounds():
    hash_NB = np.zeros((3000, 16), dtype=np.uint8)
    hash_NB[:, :2] = np.arange(3000, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    pairs, complete = near_pairs(hash_NB, 1)
    assert not complete
    assert 0 < len(pairs) < 3000 * 64


def test_the_hash_finds_truncated_images_and_ignores_scale(people):
    from reid_ray.data.images import BadImageError

    large, small = picture(people).resize((128, 256)), picture(people)
    flips = np.unpackbits(np.frombuffer(perceptual_hash(jpeg(large), MAX_PIXELS), np.uint8)) != np.unpackbits(
        np.frombuffer(perceptual_hash(jpeg(small), MAX_PIXELS), np.uint8)
    )
    assert flips.sum() <= 7
    with pytest.raises(BadImageError, match="truncated"):
        perceptual_hash(people[0][0][:-200], MAX_PIXELS)


def test_a_tokenizer_counts_exactly_and_brings_its_context(rstp, tmp_path):
    """Against the tokenizer itself: a caption of as many tokens as its model reads, and one of one more."""
    from reid_ray.model.dual.tokenizer import train_tokenizer

    folder, change = rstp
    words = train_tokenizer(["a man in a red coat and a blue hat"] * 20, vocab_size=300, context=24)
    words.save_pretrained(tmp_path / "model")
    fits = next(text for text in (f"The man in a red coat {'x' * n}" for n in range(99)) if len(words(text)["input_ids"]) == 24)

    def say(entries):
        entries[3]["captions"][0] = f"{fits}x"
        entries[4]["captions"][0] = fits

    change(say)
    options = {"tokenizer": str(tmp_path / "model")}
    findings = lint(folder, tmp_path / "out", **options)[0]
    longer = [
        text
        for row in json.loads((folder / "data_captions.json").read_text())
        for text in row["captions"]
        if len(words(text)["input_ids"]) > 24
    ]
    assert fits not in longer
    assert findings["caption_long"]["count"] == len(longer)
    assert "of 24 tokens" in findings["caption_long"]["message"]
    assert "tokenizer" in findings["caption_long"]["message"]
    assert "caption_long" not in lint(folder, tmp_path / "out", context=4000, **options)[0]
    with refused(DataError, "holds no tokenizer"):
        lint(folder, tmp_path / "none", tokenizer=str(tmp_path))


@pytest.mark.slow
def test_what_a_reader_set_right_and_what_a_composed_query_asks_are_notes(trees, tmp_path):
    findings, _ = lint(trees.webperson(), tmp_path / "out", format="webperson")
    assert (findings["mended_line_break_spelled"]["count"], findings["mended_line_break_spelled"]["level"]) == (1, "note")
    findings, report = lint(trees.itcpr(), tmp_path / "itcpr", format="itcpr")
    assert (findings["composed_query"]["count"], findings["composed_query"]["level"]) == (5, "note")
    assert {split["captions"] for split in report["splits"].values()} == {0}
    findings, _ = lint(trees.ufine6926(), tmp_path / "long", format="ufine6926")
    assert findings["caption_long"]["count"] > 0
