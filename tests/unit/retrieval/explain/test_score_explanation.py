"""An explanation points at what an encoder reads: one that looks into a corner, and one that knows two words."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.retrieval.clue_sum import summed_vector
from reid_ray.retrieval.explain.picture_occlusion import grid_of, painted_over, squares_over
from reid_ray.retrieval.explain.score_explanation import MAX_WORDS, explain_score
from reid_ray.retrieval.explain.text_words import text_without, words_of
from reid_ray.retrieval.query import Clue

RED, WHITE, REST = np.eye(3, dtype=np.float32)
KNOWN = {"red": RED, "white": WHITE}


class Reader:
    """Knows the words red and white, and of a picture how red its upper right corner is; counts what it is asked."""

    dim, context, reads_texts, fingerprint = 3, 16, True, "reader"

    def __init__(self) -> None:
        self.texts = self.pictures = self.most = 0

    def encode_texts(self, texts):
        self.texts += len(texts)
        assert all(text.strip() for text in texts)
        return np.stack([unit(0.1 * REST + sum((KNOWN.get(word, 0 * REST) for word in text.lower().split()), 0 * REST)) for text in texts])

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts])

    def encode_images(self, pictures):
        self.pictures, self.most = self.pictures + len(pictures), max(self.most, len(pictures))
        reds = [np.asarray(picture)[:32, 32:, 0].mean() / 255 for picture in pictures]
        return np.stack([unit(red * RED + (1 - red) * REST) for red in reds]).astype(np.float32)


def explained(reader, clues, picture, **options):
    """The explanation of the score of a question and an item whose vector is RED; an item_id stands for RED, too."""
    vectors = [RED if clue.text is None else reader.encode_texts([clue.text])[0] for clue in clues]
    return explain_score(reader, clues, vectors, RED, picture, **options)


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture
def picture():
    """Blue but for a red upper right corner, 64 x 128."""
    made = Image.new("RGB", (64, 128), (0, 0, 255))
    made.paste((255, 0, 0), (32, 0, 64, 32))
    return made


def test_the_map_points_at_the_corner_that_the_encoder_reads(picture):
    found = explained(Reader(), [Clue(text="red")], picture)
    heat_RC = np.array(found.patches.effects)
    assert heat_RC.shape == (found.patches.rows, found.patches.columns) == (8, 4)
    top = np.argsort(-heat_RC.ravel())[:3]
    assert all(row < 2 and column >= 2 for row, column in zip(*np.unravel_index(top, heat_RC.shape), strict=True))
    assert max(np.abs(heat_RC[4:]).max(), np.abs(heat_RC[:, 0]).max()) < heat_RC[:2, 2:].min() / 4


def test_the_words_are_told_with_their_places_and_with_what_the_score_loses_without_them():
    text = "A man,  red coat; white bag."
    found = explained(Reader(), [Clue(text=text)], None)
    assert [text[each.word.start : each.word.end] for each in found.words] == ["A", "man", "red", "coat", "white", "bag"]
    effects = {each.word.word: each.effect for each in found.words}
    whole = unit(RED + WHITE + 0.1 * REST)
    assert found.score == pytest.approx(whole[0])
    assert effects["red"] == pytest.approx(whole[0] - 0.0, abs=1e-6)
    assert effects["white"] == pytest.approx(whole[0] - unit(RED + 0.1 * REST)[0])  # it stood in the way
    assert {round(effects[word], 6) for word in ("A", "man", "coat", "bag")} == {0.0}
    assert (found.patches, found.picture_score) == (None, None)


def test_a_word_of_one_clue_is_weighed_among_the_others():
    asked = [Clue(text="white coat", weight=0.5), Clue(item_id="red", weight=2.0), Clue(text="red", weight=-1.0)]
    found = explained(Reader(), asked, None)
    white, red = unit(WHITE + 0.1 * REST), unit(RED + 0.1 * REST)
    assert found.score == pytest.approx(unit(0.5 * white + 2 * RED - red)[0], abs=1e-6)
    effects = {(each.clue, each.word.word): each.effect for each in found.words}
    assert effects[0, "white"] == pytest.approx(found.score - unit(0.5 * REST + 2 * RED - red)[0], abs=1e-6)
    assert effects[2, "red"] == pytest.approx(found.score - unit(0.5 * white + 2 * RED)[0], abs=1e-6)  # a clue of one word goes with it
    assert effects[2, "red"] < 0


def test_the_only_word_carries_all_of_the_score():
    found = explained(Reader(), [Clue(text="red!")], None)
    assert [each.effect for each in found.words] == [found.score]


@pytest.mark.slow
def test_it_asks_a_bounded_number_of_texts_and_pictures_in_small_batches_and_stops_when_told(picture):
    reader = Reader()
    found = explained(reader, [Clue(text="red " * 5_000)], picture.resize((600, 1200)))
    assert (len(found.words), found.words_left_out) == (MAX_WORDS, 5_000 - MAX_WORDS)
    assert reader.texts == 1 + MAX_WORDS
    assert (reader.pictures, reader.most) == (54, 32)
    calls = []

    def twice():
        calls.append(0)
        if len(calls) > 2:
            raise TimeoutError

    stopped = Reader()
    with pytest.raises(TimeoutError):
        explained(stopped, [Clue(text="red " * 5_000)], picture, go_on=twice)
    assert (stopped.texts, stopped.pictures) == (1 + 64, 0)


def test_clues_that_cancel_out_and_an_encoder_that_gives_nan_are_refused(picture):
    with refused(DataError, "cancel out"):
        explained(Reader(), [Clue(item_id="red"), Clue(item_id="red", weight=-1)], picture)
    reader = Reader()
    reader.encode_images = lambda pictures: np.full((len(pictures), 3), np.nan, np.float32)
    with refused(DataError, "NaN"):
        explained(reader, [Clue(text="red")], picture)


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(st.integers(1, 500), st.integers(1, 500))
def test_squares_cover_every_patch_of_every_grid_and_are_few(width, height):
    rows, columns = grid_of(width, height)
    assert rows <= height
    assert columns <= width
    assert rows * columns <= 50
    squares = squares_over(rows, columns)
    assert squares.any(axis=0).all()
    assert len(squares) <= 100
    painted = painted_over(Image.new("RGB", (width, height), (9, 9, 9)), np.ones((1, rows, columns), np.bool_))
    assert painted[0].size == (width, height)


def test_what_is_painted_over_has_the_mean_colour_of_the_picture_and_the_rest_stays(picture):
    patches = np.zeros((1, 8, 4), np.bool_)
    patches[0, 0, 3] = True
    pixels = np.asarray(painted_over(picture, patches)[0])
    assert pixels[:16, 48:].reshape(-1, 3).tolist() == [[32, 0, 223]] * 256
    changed = (pixels != np.asarray(picture)).any(axis=2)
    assert changed.sum() == 256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a well-dressed woman's T-shirt", ["a", "well-dressed", "woman's", "T-shirt"]),
        ("  -- 'red' (no. 7)!", ["red", "no", "7"]),
        ("穿红衣 red", ["穿", "红", "衣", "red"]),
        ("тёмная куртка", ["тёмная", "куртка"]),
        ("🧥 !", []),
        ("", []),
    ],
)
def test_words_are_found_in_any_script(text, words):
    assert [word.word for word in words_of(text)] == words


WRITTEN = st.text(max_size=60) | st.text(st.sampled_from("ab0-' 穿衣𠀀дн!"), max_size=20)


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(WRITTEN)
@example("0-𠀀0")
@example("red穿coat")
def test_a_text_without_a_word_has_the_other_words(text):
    words = words_of(text)
    for at, word in enumerate(words):
        assert text[word.start : word.end] == word.word
        left = text_without(text, word)
        assert [each.word for each in words_of(left)] == [each.word for number, each in enumerate(words) if number != at]
        assert len(left) <= len(text) - len(word.word) + 1


def test_the_summed_vector_is_the_unit_vector_of_the_weighted_sum():
    found = summed_vector([RED, WHITE, REST], [3.0, 4.0, 0.0])
    np.testing.assert_allclose(found, [0.6, 0.8, 0.0], atol=1e-7)
