"""The real sentence encoder: closer meanings score higher, and batching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from reid_ray.caption.filters.faithfulness import SentenceEncoder
from reid_ray.model.model_files import resolve_model

pytestmark = pytest.mark.slow

ORIGINAL = "A woman in a red coat and blue jeans is carrying a black handbag."
PARAPHRASE = "Carrying a black bag, the woman wears blue denim trousers and a red coat."
SWAPPED = "A man in a green jacket and white shorts is carrying a yellow umbrella."
UNRELATED = "The parliament will vote on the annual budget next Thursday."


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(resolve_model("builtin:minilm-l6-v2"), batch_size=2)


def test_a_paraphrase_scores_above_another_person_above_another_subject(encoder):
    same, paraphrase, swapped, unrelated = encoder.score([ORIGINAL] * 4, [ORIGINAL, PARAPHRASE, SWAPPED, UNRELATED])
    assert same == pytest.approx(1, abs=1e-5)
    assert 1 > paraphrase > swapped > unrelated
    assert paraphrase >= 0.6 > unrelated


def test_padding_does_not_change_an_embedding(encoder):
    texts = [ORIGINAL, "A man.", UNRELATED, PARAPHRASE + " " + SWAPPED]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_no_pairs_give_no_scores_and_long_texts_are_cut(encoder):
    assert encoder.score([], []).shape == (0,)
    assert encoder.score([ORIGINAL * 300], [ORIGINAL * 301]) == pytest.approx(1, abs=1e-4)
