"""An encoder in half precision gives nearly the vectors of single precision, and unit ones."""

import numpy as np
import pytest
from PIL import Image

from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.half_precision import with_precision

TEXTS = ["a man in a red coat", "a woman with a white bag", "a child in blue jeans"]


@pytest.fixture(scope="module")
def encoder():
    return build_dual_encoder(ModelConfig(image_height=32, image_width=16), TEXTS, seed=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_moves_a_vector_a_little_and_leaves_it_a_unit_vector(encoder, precision):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 20, 3), np.uint8)) for _ in range(8)]
    half = with_precision(encoder, precision, device="cpu")
    for found_ND, exact_ND in (
        (half.encode_images(pictures), encoder.encode_images(pictures)),
        (half.encode_texts(TEXTS), encoder.encode_texts(TEXTS)),
        (half.encode_and_measure(TEXTS)[0], encoder.encode_texts(TEXTS)),
    ):
        assert found_ND.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found_ND, axis=1), 1, atol=1e-6)
        cosine_N = (found_ND * exact_ND).sum(axis=1)
        assert (cosine_N > 0.999).all()
        assert np.abs(found_ND - exact_ND).max() > 1e-6  # it is not the same arithmetic
    np.testing.assert_array_equal(half.encode_and_measure(TEXTS)[1], encoder.encode_and_measure(TEXTS)[1])
    assert (half.dim, half.context, half.reads_texts, half.fingerprint) == (
        encoder.dim,
        encoder.context,
        encoder.reads_texts,
        encoder.fingerprint,
    )


def test_single_precision_is_the_encoder_itself(encoder):
    assert with_precision(encoder, "float32", device="cpu") is encoder
