"""The exported table and the page: every caption accounted for, levels at the right words, text escaped."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from reid_ray.data.images import encode_jpeg
from reid_ray.errors import DataError
from reid_ray.model.dual.tokenizer import train_tokenizer
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import TableWriter, read_table
from reid_ray.train.masking.noise_aware import real_tokens, vocabulary_of
from reid_ray.train.masking.noise_command import noise_command, pictures_of
from reid_ray.train.masking.noise_export import NOISE, words_with_noise, write_noise
from reid_ray.train.masking.noise_store import NoiseStore, encode
from reid_ray.train.masking.page import noise_page, write_noise_page

TEXTS = ["A man in a red coat.", "Woman, blue jeans; a very long text that goes on", "never seen", "<b>bold</b> & co"]
CONTEXT = 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=300, context=CONTEXT)


def _store(tokenizer, rank=0, world=1):
    """Levels of every caption but the third: token i of a caption has level i / 20."""
    store, vocabulary = NoiseStore(len(TEXTS), CONTEXT, rank=rank, world=world), vocabulary_of(tokenizer)
    for row in (0, 1, 3):
        ids = np.array(tokenizer([TEXTS[row]], truncation=True, max_length=CONTEXT)["input_ids"])
        levels = np.where(real_tokens(ids, vocabulary), np.arange(ids.shape[1]) / 20, np.nan)
        store.write(np.array([row]), encode(levels))
    return store


def _texts(rows):
    return [TEXTS[row] for row in rows]


def test_each_caption_is_written_once_or_counted_over_two_workers(tokenizer, tmp_path):
    counts = [write_noise(tmp_path, _store(tokenizer, rank, 2), _texts, tokenizer, context=CONTEXT, batch=1) for rank in (0, 1)]
    assert sum(count.read for count in counts) == 4
    assert sum(count.written for count in counts) == 3
    assert sum((count.unused for count in counts), start=Counter()) == {"not_seen": 1}
    table = read_table(tmp_path, NOISE).sort_by("row")
    assert table["row"].to_pylist() == [0, 1, 3]
    for row in table.to_pylist():
        assert row["words"] == TEXTS[row["row"]].split()
        read = "".join(row["tokens"]).replace("\u0120", " ").strip()  # the byte-level mark of a space
        assert TEXTS[row["row"]].lower().startswith(read)
        np.testing.assert_allclose(row["token_noise"], (np.arange(len(row["tokens"])) + 1) / 20, atol=0.005)
    assert table["word_noise"].to_pylist()[1][-1] is None  # beyond the context
    assert table["word_noise"].to_pylist()[0][-1] is not None


def test_levels_of_other_tokens_are_counted_not_written(tokenizer, tmp_path):
    counts = write_noise(tmp_path, _store(tokenizer), lambda rows: ["a"] * len(rows), tokenizer, context=CONTEXT)
    assert counts.written == 0
    assert counts.unused == {"not_seen": 1, "other_tokens": 3}


def test_a_words_level_is_the_mean_of_its_tokens():
    words, levels = words_with_noise("red  coat!", [(0, 2), (2, 3), (3, 9), (9, 10)], [0.2, 0.4, 0.9, 0.1])
    assert words == ["red", "coat!"]
    assert levels == pytest.approx([0.3, 0.5])


def test_the_page_colours_the_noisiest_word_most_and_escapes_text(tokenizer, tmp_path):
    write_noise(tmp_path / "noise", _store(tokenizer), _texts, tokenizer, context=CONTEXT)
    pictures = {0: encode_jpeg(Image.new("RGB", (32, 64), "red")), 1: b"no picture"}
    shown = write_noise_page(tmp_path / "noise", tmp_path / "page.html", pictures=lambda rows: pictures)
    page = (tmp_path / "page.html").read_text()
    assert shown == 3
    assert page.count("data:image/jpeg;base64,") == 1  # of the other no picture is known, or it cannot be decoded
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    styles = re.findall(r"background: rgba\((\d+), \d+, \d+, ([\d.]+)\)\">(\S+?)</span>", page.split("masked more often")[1])
    red = {word: float(strength) for r, strength, word in styles if r == "208"}
    assert red["coat."] > red["red"] > 0
    assert {word for r, _, word in styles if r == "60"} >= {"A", "man"}


def test_a_caption_of_unknown_words_alone_is_rendered():
    assert "beyond" in noise_page([{"row": 0, "words": ["a"], "word_noise": [None]}], {})


def test_an_empty_table_is_refused(tokenizer, tmp_path):
    write_noise(tmp_path / "noise", NoiseStore(1, CONTEXT), lambda rows: ["x"], tokenizer, context=CONTEXT)
    with pytest.raises(DataError, match="no caption"):
        write_noise_page(tmp_path / "noise", tmp_path / "page.html", pictures=lambda rows: {})


def test_the_command_finds_each_captions_picture_in_the_tables_of_the_training(tmp_path):
    pictures = {name: encode_jpeg(Image.new("RGB", (8, 16), name)) for name in ("red", "blue", "green")}
    with TableWriter(tmp_path / "images", IMAGES) as writer:
        writer.append(table_of(IMAGES, [{"image_id": name, "image": data} for name, data in pictures.items()]))
    said = [("a", "red", "in red"), ("b", "blue", "in blue"), ("c", "green", "in red"), ("d", "gone", "of none"), ("e", "green", None)]
    rows = [{"caption_id": id, "image_id": image, "kind": "human", "text": text, "status": "ok"} for id, image, text in said]
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, rows))
    shown = [{"row": 7, "text": "in blue"}, {"row": 2, "text": "in red"}, {"row": 3, "text": "of none"}, {"row": 4, "text": "unheard of"}]
    found = pictures_of(shown, [str(tmp_path / "captions")], [str(tmp_path / "images")])
    assert found == {7: pictures["blue"], 2: pictures["red"]}


def test_the_command_says_what_it_needs(tmp_path, capsys):
    assert noise_command([str(tmp_path), str(tmp_path / "page.html")]) == 2
    assert "holds no noise/" in capsys.readouterr().err
    assert noise_command([str(tmp_path / "nope"), str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert "nope: there is no such folder" in said
    assert "masking.kind" in said
