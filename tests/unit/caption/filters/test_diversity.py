"""Diversity numbers against naive definitions."""

import math
import random
from collections import Counter

import pytest

from reid_ray.caption.filters.diversity import DiversityMeter, distinct_n, entropy_share, self_bleu
from reid_ray.caption.filters.validation import words_of
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople


def naive_self_bleu(texts):
    """BLEU-4 by its definition, every text against every other one."""
    scores = []
    for i, text in enumerate(texts):
        words = words_of(text)
        references = [words_of(t) for j, t in enumerate(texts) if j != i]
        log_sum = 0.0
        for n in range(1, 5):
            own = Counter(zip(*(words[k:] for k in range(n)), strict=False))
            counts = [Counter(zip(*(r[k:] for k in range(n)), strict=False)) for r in references]
            matches = sum(min(c, max(r[g] for r in counts)) for g, c in own.items())
            log_sum += 0.25 * math.log((matches if matches else 0.1) / max(1, sum(own.values())))
        closest = min((len(r) for r in references), key=lambda length: (abs(length - len(words)), length))
        scores.append(math.exp(log_sum) * (1 if len(words) >= closest else math.exp(1 - closest / len(words))))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_equals_its_definition(seed):
    rng = random.Random(seed)
    texts = [" ".join(rng.choice(["red", "blue", "coat", "hat", "man", "the", "a"]) for _ in range(rng.randint(1, 14))) for _ in range(25)]
    assert self_bleu(texts) == pytest.approx(naive_self_bleu(texts), abs=1e-12)


@pytest.mark.slow
def test_self_bleu_of_human_captions_equals_its_definition():
    texts = [text for pair in SyntheticPeople(SyntheticConfig(identities=30, images_per_identity=1)).captions() for text in pair]
    assert self_bleu(texts) == pytest.approx(naive_self_bleu(texts), abs=1e-12)


def test_extremes():
    assert self_bleu(["a man in a red coat"] * 5) == pytest.approx(1)
    assert self_bleu([]) == self_bleu(["one"]) == 0
    assert distinct_n([], 2) == 0
    assert distinct_n(["a b c", "a b d"], 2) == 3 / 4
    assert entropy_share({"a": 5, "b": 5}, 2) == pytest.approx(1)
    assert entropy_share({"a": 5}, 2) == 0
    assert DiversityMeter().result().captions == 0


def test_the_meter_does_not_depend_on_the_order_of_rows():
    rows = [(f"k{i}", f"a man number {i % 700} in a coat", f"dynamic/t{i % 7:02d}") for i in range(2000)]
    results = []
    for seed in (None, 1, 2):
        shuffled = list(rows)
        if seed is not None:
            random.Random(seed).shuffle(shuffled)
        meter = DiversityMeter(sample=100, templates=[f"dynamic/t{i:02d}" for i in range(10)])
        for start in range(0, 2000, 300):
            meter.add(*zip(*shuffled[start : start + 300], strict=True))
        results.append(meter.result())
    assert results[0] == results[1] == results[2]
    assert results[0].repeated == 1300
    assert results[0].sampled == 100
    assert results[0].template_coverage == 0.7
    assert results[0].template_entropy == pytest.approx(math.log(7) / math.log(10), abs=1e-3)
    assert results[0].words_histogram == {7: 2000}


def test_templated_captions_are_less_varied_than_human_ones():
    people = SyntheticPeople(SyntheticConfig(identities=300, images_per_identity=1))
    human = [pair[0] for pair in people.captions()]
    templated = [
        f"The {t['gender']} is wearing a {t['upper_color']} {t['upper']} and {t['lower_color']} {t['lower']}." for t in people.attributes()
    ]
    assert distinct_n(human, 2) > distinct_n(templated, 2)
    assert self_bleu(human) < self_bleu(templated)
