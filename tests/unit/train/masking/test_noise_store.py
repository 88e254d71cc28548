"""The store between epochs: exact rows, bounded error, any number of workers, small."""

import numpy as np
import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.train.masking.noise_store import NoiseStore, decode, encode


def _filled(world, texts=11, tokens=6, seed=0):
    """All workers' stores after the same writes, and the codes they should hold."""
    codes = np.random.default_rng(seed).integers(0, 256, (texts, tokens)).astype(np.uint8)
    stores = [NoiseStore(texts, tokens, rank=rank, world=world) for rank in range(world)]
    order = np.random.default_rng(seed + 1).permutation(texts)
    for part in (order[:5], order[5:]):
        for store in stores:
            store.write(part, codes[part])
    return stores, codes


def _everybody(stores, rows):
    return sum(store.read(rows).astype(int) for store in stores)


def test_one_byte_is_wrong_by_at_most_four_thousandths():
    noise = np.linspace(0, 2, 10_001)
    assert np.abs(decode(encode(noise)) - noise).max() <= 1 / 254 + 1e-12
    assert np.isnan(decode(encode(np.array([np.nan])))).all()
    assert decode(encode(np.array([-0.1, 2.1]))).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("world", [1, 2, 3, 16])
def test_the_sum_over_workers_is_what_was_written(world):
    stores, codes = _filled(world)
    rows = np.array([10, 0, 3, 3, 7])
    np.testing.assert_array_equal(_everybody(stores, rows), codes[rows])
    assert sum(len(store.rows()) for store in stores) == 11


def test_a_shorter_text_leaves_nothing_of_a_longer_one():
    store = NoiseStore(2, 4)
    store.write(np.array([1]), np.array([[5, 6, 7, 8]], np.uint8))
    store.write(np.array([1]), np.array([[9, 9]], np.uint8))
    assert store.read(np.array([0, 1])).tolist() == [[0] * 4, [9, 9, 0, 0]]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 1), (3, 2), (2, 16)])
def test_another_number_of_workers_loads_the_same_levels(tmp_path, before, after):
    stores, codes = _filled(before)
    for store in stores:
        store.save(tmp_path)
    loaded = [NoiseStore(11, 6, rank=rank, world=after) for rank in range(after)]
    for store in loaded:
        store.load(tmp_path)
    np.testing.assert_array_equal(_everybody(loaded, np.arange(11)), codes)


def test_missing_mixed_or_foreign_files_are_refused(tmp_path):
    stores, _ = _filled(2)
    with refused(DataError, str(tmp_path), "0 runs"):
        stores[0].load(tmp_path)
    stores[0].save(tmp_path)
    with refused(DataError, "noise-00001-of-00002"):
        stores[0].load(tmp_path)
    stores[1].save(tmp_path)
    with refused(DataError, "11 captions", "6 tokens", "12"):
        NoiseStore(12, 6).load(tmp_path)
    NoiseStore(11, 6).save(tmp_path)
    with refused(DataError, str(tmp_path), "2 runs"):
        stores[0].load(tmp_path)


def test_four_million_captions_fit_in_a_third_of_a_gigabyte():
    stores = [NoiseStore(4_000_000, 77, rank=rank, world=8) for rank in range(8)]  # not written to, so not resident
    assert sum(store.bytes for store in stores) == 308_000_000


def test_a_row_beyond_the_store_is_an_error():
    with pytest.raises(IndexError, match="store of 2"):
        NoiseStore(2, 4).read(np.array([2]))
