"""Does an explanation point at what carries a score? The top tenth of its patches is taken away, and as many others.

    python benchmarks/explanation.py --out benchmarks/results/explanation-DATE.json --demo demo [--crops FOLDER] [--quick]

With the encoder that `make demo` trains (in the folder --demo) on people whom it has never seen: every picture of the test split with a
caption of its own; every such caption with the best picture of other people (what a search shows, too); and, of a folder of real
crops, every crop with the caption that it fits best, and with the crop that is nearest to it (a question that is a picture). Patches are
painted over in the picture's mean colour. Beside as many patches drawn at random, scattered, there are as many of the same shape moved to
a random place: scattered patches hide little, so these are the harder rival. Words: the top fifth of a caption's words against as many
drawn at random. Of each kind 300 pairs are drawn, and each comparison is made with three draws; claims are of the worst of them. Also, what
an explanation costs, with the demo's encoder and with CLIP's ViT-B/16 at 384 x 128 (random weights). Without a demo, an untrained
encoder shows that it runs, and nothing is claimed.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark, time_turns
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image, encode_jpeg, is_image_name, jpeg_thumbnail
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.explain.picture_occlusion import painted_over
from reid_ray.retrieval.explain.score_explanation import Explanation, explain_score
from reid_ray.retrieval.explain.text_words import PlacedWord, words_of
from reid_ray.retrieval.query import Clue

SEEDS, PAIRS, THUMBNAIL, GOAL = 3, 300, (128, 256), 0.8
VIT_B16 = {"vision_width": 768, "vision_layers": 12, "text_width": 512, "text_layers": 12, "embed_dim": 512, "context": 77}


@dataclass(frozen=True)
class Pair:
    """A question, its vector, and the picture whose score is explained."""

    clue: Clue
    vector_D: np.ndarray
    picture: Image.Image


@dataclass(frozen=True)
class People:
    """Pictures of people, who they are, and what is written of them."""

    pictures: Sequence[Image.Image]
    person_N: np.ndarray
    captions: Sequence[str]


def run(report: Report, quick: bool, *, own: argparse.Namespace) -> None:
    model = own.demo / "training" / "model"
    trained = model.is_dir()
    encoder: Encoder = load_encoder(model) if trained else untrained()
    people = people_of(own.demo, quick) if trained else drawn_people(20)
    crops = crops_in(own.crops, 20 if quick else None) if own.crops else []
    for name, pairs in parts(encoder, people, crops):
        chosen = np.random.default_rng(0).permutation(len(pairs))[:PAIRS]
        measure(report, name, encoder, [pairs[int(at)] for at in chosen], claims=trained and not quick)
    cost(report, encoder, people, "demo" if trained else "untrained")
    if not quick:
        cost(report, untrained(height=384, width=128, **VIT_B16), people, "ViT-B/16, 384 x 128, random weights", repeats=1)


def parts(encoder: Encoder, people: People, crops: Sequence[Image.Image]) -> Iterator[tuple[str, list[Pair]]]:
    text_ND, picture_ND = encoder.encode_texts(people.captions), encoder.encode_images(people.pictures)
    texts = [(Clue(text=caption), vector_D) for caption, vector_D in zip(people.captions, text_ND, strict=True)]
    yield "own caption, synthetic", [Pair(*text, picture) for text, picture in zip(texts, people.pictures, strict=True)]
    score_NN = np.where(people.person_N[:, None] == people.person_N, -2, text_ND @ picture_ND.T)
    yield (
        "best of others, synthetic",
        [Pair(*text, people.pictures[best]) for text, best in zip(texts, score_NN.argmax(axis=1), strict=True)],
    )
    if not crops:
        return
    crop_ND = encoder.encode_images(crops)
    fits_N = (crop_ND @ text_ND.T).argmax(axis=1)
    yield "best caption, real crops", [Pair(*texts[int(best)], crop) for crop, best in zip(crops, fits_N, strict=True)]
    nearest_N = (crop_ND @ crop_ND.T - 2 * np.eye(len(crops))).argmax(axis=1)
    yield (
        "nearest crop, real crops",
        [Pair(Clue(picture=crops[best]), crop_ND[best], crop) for crop, best in zip(crops, nearest_N, strict=True)],
    )


def measure(report: Report, name: str, encoder: Encoder, pairs: Sequence[Pair], *, claims: bool) -> None:
    """Rows of one kind of pairs, and the claims on them."""
    rng = np.random.default_rng(0)
    lost: dict[str, list[np.ndarray]] = {"top": [], "scattered": [], "same shape": []}
    words: dict[str, list[np.ndarray]] = {"top words": [], "random words": []}
    for pair in pairs:
        item_D = encoder.encode_images([pair.picture])[0]
        found = explain_score(encoder, [pair.clue], [pair.vector_D], item_D, pair.picture)
        for kind, values in without_patches(encoder, pair, found, rng).items():
            lost[kind].append(values)
        if pair.clue.text is not None:
            for kind, values in without_words(encoder, pair.clue.text, found, item_D, rng).items():
                words[kind].append(values)
    compare(report, name, "patches", lost, claims=claims)
    if words["top words"]:
        compare(report, name, "words", words, claims=False)


def compare(report: Report, name: str, what: str, lost: dict[str, list[np.ndarray]], *, claims: bool) -> None:
    top_NS, *_ = (np.stack(values) for values in lost.values())
    for kind in list(lost)[1:]:
        rival_NS = np.stack(lost[kind])
        wins_S = (top_NS > rival_NS).sum(axis=0)
        low, high = binomial_interval(int(wins_S.min()), len(top_NS))
        report.row(
            pairs=name,
            removed=what,
            rival=kind,
            count=len(top_NS),
            wins=[int(wins) for wins in wins_S],
            worst_share=round(float(wins_S.min() / len(top_NS)), 4),
            interval_95=[round(low, 4), round(high, 4)],
            lost_by_top=round(float(top_NS.mean()), 4),
            lost_by_rival=round(float(rival_NS.mean()), 4),
        )
        if claims:
            report.claim(f"{name}: share where the top tenth costs more than {kind} patches, lower end at 95 %", low, ">=", GOAL)


def without_patches(encoder: Encoder, pair: Pair, found: Explanation, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the score loses without the top tenth of patches, and without others, [SEEDS] each."""
    assert found.patches is not None
    assert found.picture_score is not None
    heat_RC = np.array(found.patches.effects)
    count = max(1, round(heat_RC.size / 10))
    top_RC = mask_of(np.argsort(-heat_RC.ravel(), kind="stable")[:count], heat_RC.shape)
    scattered = [mask_of(rng.choice(heat_RC.size, count, replace=False), heat_RC.shape) for _ in range(SEEDS)]
    moved = [np.roll(top_RC, moves_by(rng, heat_RC.shape), axis=(0, 1)) for _ in range(SEEDS)]
    score_M = encoder.encode_images(painted_over(pair.picture, np.stack([top_RC, *scattered, *moved]))) @ pair.vector_D
    lost_M = found.picture_score - score_M
    return {"top": np.repeat(lost_M[:1], SEEDS), "scattered": lost_M[1 : 1 + SEEDS], "same shape": lost_M[1 + SEEDS :]}


def without_words(encoder: Encoder, text: str, found: Explanation, item_D: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the score loses without the top fifth of the words, and without as many others, [SEEDS] each."""
    words, effect_W = words_of(text), np.array([each.effect for each in found.words])
    count = max(1, round(len(words) / 5))
    chosen = [np.argsort(-effect_W, kind="stable")[:count], *[rng.choice(len(words), count, replace=False) for _ in range(SEEDS)]]
    lost_M = found.score - encoder.encode_texts([left_of(text, [words[at] for at in places]) for places in chosen]) @ item_D
    return {"top words": np.repeat(lost_M[:1], SEEDS), "random words": lost_M[1:]}


def left_of(text: str, words: Sequence[PlacedWord]) -> str:
    for word in sorted(words, key=lambda each: -each.start):
        text = text[: word.start].rstrip() + " " + text[word.end :].lstrip()
    return text.strip()


def mask_of(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(math.prod(shape), np.bool_)
    mask[places] = True
    return mask.reshape(shape)


def moves_by(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, int]:
    """Any move but none."""
    at = int(rng.integers(1, math.prod(shape)))
    return at // shape[1], at % shape[1]


def binomial_interval(wins: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share ("Probable Inference, the Law of Succession, and Statistical Inference", 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = wins / count, z * z / count
    middle, half = share + spread / 2, z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def cost(report: Report, encoder: Encoder, people: People, name: str, *, repeats: int = 3) -> None:
    clues, picture = [Clue(text=people.captions[0])], people.pictures[0]
    vectors, item_D = list(encoder.encode_texts([people.captions[0]])), encoder.encode_images([picture])[0]
    explain = functools.partial(explain_score, encoder, clues, vectors, item_D, picture)
    timing = time_turns({"explain": explain}, repeats=repeats)["explain"]
    report.row(encoder=name, words=len(words_of(people.captions[0])), **timing.row())


def people_of(demo: Path, quick: bool) -> People:
    """The test split of a demo: every picture as a gallery keeps it, with one of the captions that people wrote of it."""
    images = pq.read_table(demo / "people" / "images", columns=["image_id", "image", "person_id", "split"]).to_pylist()
    texts = {row["image_id"]: row["text"] for row in pq.read_table(demo / "people" / "captions").to_pylist() if row["kind"] == "human"}
    rows = [row for row in images if row["split"] == "test"][: 20 if quick else None]
    person_N = np.array([row["person_id"] for row in rows])
    return People([kept(row["image"]) for row in rows], person_N, [texts[row["image_id"]] for row in rows])


def drawn_people(count: int) -> People:
    people = SyntheticPeople(SyntheticConfig(identities=count, images_per_identity=1))
    texts = [pair[0] for pair in people.captions()]
    return People([kept(encode_jpeg(Image.fromarray(each))) for each in people.pictures()], np.arange(count), texts)


def crops_in(folder: Path, count: int | None) -> list[Image.Image]:
    names = sorted(path for path in folder.iterdir() if is_image_name(path.name))
    return [kept(path.read_bytes()) for path in names[:count]]


def kept(data: bytes) -> Image.Image:
    """A picture as a gallery keeps it."""
    width, height = THUMBNAIL
    return decode_image(jpeg_thumbnail(decode_image(data), width=width, height=height))


def untrained(*, height: int = 128, width: int = 64, **scratch: int) -> Encoder:
    config = ModelConfig.model_validate({"image_height": height, "image_width": width, "scratch": scratch})
    return build_dual_encoder(config, drawn_people(20).captions)


def _own(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--crops", type=Path)
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    own, rest = _own(sys.argv[1:])
    sys.exit(run_benchmark(__doc__ or "", functools.partial(run, own=own), rest))
