"""From samples of captions and their pictures to a verdict: each statement with its number, its limit and whether it is doubted.

Knows limits and how sure a number is; the statistics are evidence.py's. A statement is doubted where its number is beyond the limit by more
than chance explains (three standard deviations), and not judged where too little was to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reid_ray.caption.plausibility.config import PlausibilityConfig
from reid_ray.caption.plausibility.crop_looks import CropLooks
from reid_ray.caption.plausibility.drawn_captions import CaptionSamples
from reid_ray.caption.plausibility.evidence import (
    CommonestValue,
    Facets,
    color_agreement,
    commonest,
    contradictions,
    pair_score,
    picture_information,
    same_text,
)
from reid_ray.caption.plausibility.facets import GENDER, UPPER_COLOR, facets_of
from reid_ray.data.labels.doubted_captions import DOUBTED, doubts_in

PLAUSIBLE, NOT_JUDGED = "plausible", "not judged"
_SURE = 3.0  # standard deviations

PairScores = Callable[[Sequence[str], Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Texts and image ids, side by side -> their unit vectors."""


@dataclass(frozen=True)
class Statement:
    """One statement about one captioner's captions.

    Args:
        what: what was measured.
        value: the number.
        limit: where doubt begins.
        of: how many captions or pairs it was seen on.
        verdict: plausible, doubted or not judged.
        words: it in words.
    """

    what: str
    value: float
    limit: float
    of: int
    verdict: str
    words: str


@dataclass(frozen=True)
class TrustedScore:
    """The pair score of captions that are true.

    Args:
        value: 0.5 is chance.
        of: how many captions it was seen on.
    """

    value: float
    of: int

    @property
    def is_above_chance(self) -> bool:
        """Whether the encoder tells their pictures from others at all."""
        return self.value - _deviation(self.of) > 0.5

    def level(self, share: float) -> float:
        """What others must reach."""
        return 0.5 + share * (self.value - 0.5)


def trusted_score(samples: CaptionSamples, pictures: CropLooks, scores: PairScores) -> TrustedScore:
    """Of the captions of pictures that the samples kept, one a picture, whoever made them."""
    rows = {image_id: row for row, image_id in enumerate(pictures.image_ids)}
    pictured = [(rows[image_id], text) for maker in samples.makers for image_id, text in _pairs(samples, maker) if image_id in rows]
    return TrustedScore(*_scored(pictured, pictures, scores)) if pictured else TrustedScore(0.5, 0)


def judge(
    samples: CaptionSamples,
    pictures: CropLooks,
    limits: PlausibilityConfig,
    *,
    scores: PairScores | None = None,
    trusted: TrustedScore | None = None,
) -> dict[str, Any]:
    """The manifest's facts: {"verdict", "limits", "captioners": {who: {"captions", "read", "pictured", "verdict", "statements"}}}.

    Args:
        samples: which have seen all captions.
        pictures: those whose captions the samples kept.
        limits: of the configuration.
        scores: of an encoder, if there is one.
        trusted: of the same encoder, what sets its limit in the place of limits.min_pair_score.
    """
    makers = {maker: _judge_one(samples, maker, pictures, limits, (scores, trusted)) for maker in samples.makers}
    return {
        "verdict": _worst([each["verdict"] for each in makers.values()]),
        "limits": limits.model_dump(mode="json"),
        "captioners": makers,
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """One line: what is doubted, or that nothing is."""
    if doubts := doubts_in(facts):
        return f"these captions are hardly true: {'. '.join(doubts)}"
    return "captions are plausible" if facts["verdict"] == PLAUSIBLE else "too few captions to judge whether they are plausible"


def _worst(verdicts: Sequence[str]) -> str:
    return DOUBTED if DOUBTED in verdicts else PLAUSIBLE if PLAUSIBLE in verdicts else NOT_JUDGED


def _judge_one(
    samples: CaptionSamples,
    maker: str,
    pictures: CropLooks,
    limits: PlausibilityConfig,
    scored: tuple[PairScores | None, TrustedScore | None],
) -> dict[str, Any]:
    texts = samples.drawn(maker)["text"].to_pylist()
    statements = _of_texts(texts, limits)
    rows = {image_id: row for row, image_id in enumerate(pictures.image_ids)}
    pictured = [(row, text) for image_id, text in _pairs(samples, maker) if (row := rows.get(image_id)) is not None]
    if pictured:
        statements += _of_pictures([text for _, text in pictured], np.array([row for row, _ in pictured]), pictures, limits)
        scores, trusted = scored
        if scores is not None:
            statements.append(_of_scores(pictured, pictures, limits, scores, trusted))
    verdict = _worst([each.verdict for each in statements])
    return {
        "captions": samples.seen[maker],
        "read": len(texts),
        "pictured": len(pictured),
        "verdict": verdict,
        "statements": [asdict(each) for each in statements],
    }


def _pairs(samples: CaptionSamples, maker: str) -> list[tuple[str, str]]:
    table = samples.pictured(maker)
    return list(zip(table["image_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _of_texts(texts: Sequence[str], limits: PlausibilityConfig) -> list[Statement]:
    said = [facets_of(text) for text in texts]
    same = same_text(texts)
    return [
        _share("color above", commonest(said, UPPER_COLOR), limits.max_color_share, limits.least),
        _share("gender", commonest(said, GENDER), limits.max_gender_share, limits.least),
        Statement(
            "same text",
            round(same, 5),
            limits.max_same_text,
            len(texts),
            _verdict(same > limits.max_same_text, len(texts) >= limits.least),
            f"two captions are the same text {same:.1%} of the time (at most {limits.max_same_text:.0%})",
        ),
    ]


def _of_pictures(texts: Sequence[str], row_N: np.ndarray, pictures: CropLooks, limits: PlausibilityConfig) -> list[Statement]:
    said = [facets_of(text) for text in texts]
    found = picture_information(said, pictures.mean_N6[row_N], np.random.default_rng(limits.seed))
    agreement = color_agreement(said, row_N, pictures)
    enough = len(texts) >= limits.least
    return [
        Statement(
            "picture information",
            round(found.share, 4),
            limits.min_picture_information,
            len(texts),
            _verdict(found.share < max(limits.min_picture_information, _SURE * found.spread), enough),
            f"{max(found.share, 0):.1%} of what they say depends on the picture (at least {limits.min_picture_information:.0%})",
        ),
        Statement(
            "color agreement",
            round(agreement.value, 4),
            limits.min_color_agreement,
            agreement.of,
            _verdict(
                agreement.value + _SURE / np.sqrt(max(agreement.of, 1)) / 2 < limits.min_color_agreement,
                enough and agreement.of >= limits.least,
            ),
            f"colours agree with the pixels by {agreement.value:.2f} (at least {limits.min_color_agreement:.2f}; 0 is by chance)",
        ),
        _of_near(said, row_N, pictures, limits),
    ]


def _of_near(said: Sequence[Facets], row_N: np.ndarray, pictures: CropLooks, limits: PlausibilityConfig) -> Statement:
    _, first = np.unique(row_N, return_index=True)  # of each picture one caption
    found = contradictions([said[at] for at in first], pictures.bits_NB[row_N[first]], limits.near_bits)
    ratio = found.found / found.by_chance if found.by_chance else 0.0
    allowed = limits.max_contradictions * found.by_chance
    return Statement(
        "contradictions of near-duplicates",
        round(ratio, 4),
        limits.max_contradictions,
        found.pairs,
        _verdict(found.found > allowed + _SURE * np.sqrt(allowed), found.pairs >= limits.least),
        f"near-duplicates are told differently {ratio:.2f} times as often as any two pictures (at most {limits.max_contradictions:.2f})",
    )


def _of_scores(
    pictured: Sequence[tuple[int, str]], pictures: CropLooks, limits: PlausibilityConfig, scores: PairScores, trusted: TrustedScore | None
) -> Statement:
    value, of = _scored(pictured, pictures, scores)
    level, why = limits.min_pair_score, "50% is chance"
    if trusted is not None and limits.trusted is not None:
        level, why = trusted.level(limits.trusted.share), f"50% is chance, trusted captions reach {trusted.value:.0%}"
    words = f"a caption is nearer to its own picture {value:.0%} of the time (at least {level:.0%}; {why})"
    return Statement(
        "pair score", round(value, 4), round(level, 4), of, _verdict(value + _deviation(of) < level, of >= limits.least), words
    )


def _scored(pictured: Sequence[tuple[int, str]], pictures: CropLooks, scores: PairScores) -> tuple[float, int]:
    """Pair score of the first caption of each picture, and of how many."""
    first = dict(reversed(pictured))
    text_ND, image_ND = scores(list(first.values()), [pictures.image_ids[row] for row in first])
    return pair_score(text_ND, image_ND), len(text_ND)


def _deviation(of: int) -> float:
    """Of a mean rank among `of`, surely more than chance moves it: a rank that is anywhere varies by 1/12."""
    return float(_SURE / np.sqrt(12 * max(of, 1)))


def _share(what: str, share: CommonestValue, limit: float, least: int) -> Statement:
    value = share.times / share.of if share.of else 0.0
    return Statement(
        what,
        round(value, 4),
        limit,
        share.of,
        _verdict(_lower(share) > limit, share.of >= least),
        f"{what}: {value:.0%} {share.value} (at most {limit:.0%})",
    )


def _lower(share: CommonestValue) -> float:
    """Wilson's lower bound of a share."""
    n, p = max(share.of, 1), share.times / max(share.of, 1)
    middle, width = p + _SURE**2 / (2 * n), _SURE * np.sqrt(p * (1 - p) / n + _SURE**2 / (4 * n * n))
    return float((middle - width) / (1 + _SURE**2 / n))


def _verdict(doubted: bool | np.bool_, enough: bool) -> str:
    return NOT_JUDGED if not enough else DOUBTED if doubted else PLAUSIBLE
