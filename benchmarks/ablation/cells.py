"""One cell of the ablation table for one seed: prepare its captions, train with the train job, score on people never seen.

The setting is fixed here and is the same in every cell; a cell changes captions or masking alone. Everything that several cells share
(people, captions, weights to start from) is made once and kept in the work folder. Knows one cell; not tables or claims.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.ablation.captions import Judged, accept_every_rewrite, write_people
from benchmarks.ablation.start import HEIGHT, WIDTH, train_start
from reid_ray.caption.calibrate.thresholds import roc
from reid_ray.caption.config import CaptionJob
from reid_ray.caption.job import run_caption
from reid_ray.config.base import fingerprint, load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.retrieval.ranking.exact import rank_queries
from reid_ray.storage import TableWriter, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.masking.noise_export import NOISE

# Seeds of people, far apart: those that the start has seen, those of testing; training's are 1,000 + seed.
_START_PEOPLE, _TEST_PEOPLE, _TRAIN_PEOPLE = 900_000, 800_000, 1_000


@dataclass(frozen=True)
class Setting:
    """What all cells share: small enough for a minute of one core a run.

    Before the table one run of a seed that is in none of it (seed 100, 25 % wrong, noise-aware masking) tried half this rate and learnt too
    little (R@1 11.5 % -> 14.5 %). Nothing else was tried.
    """

    start_people: int = 4000
    start_steps: int = 400
    people: int = 960  # of training, one picture each, two captions a picture
    epochs: int = 5
    batch: int = 64
    rate: float = 1e-3
    depth: float = 0.67  # layer 2 of 3 in the vision tower, 1 of 2 in the text tower: the last layer pools, as 11 and 12 do in the paper
    probability: float = 0.15
    test_people: int = 300  # two pictures each, two human captions a picture
    rewrites: float = 0.25  # share of captions that are rewritten, in the part "captions"


QUICK = Setting(start_people=256, start_steps=20, people=128, epochs=2, test_people=50, rewrites=0.1)


@dataclass(frozen=True)
class Cell:
    """A row of the table. part "noise": captions by rule, `wrong` of their attributes exchanged; part "captions": the caption job's."""

    part: str
    masking: str = "none"
    wrong: float = 0.0
    kinds: tuple[str, ...] = ("static", "dynamic")
    rewrites: str = "none"  # none | all | faithful

    @property
    def columns(self) -> dict[str, Any]:
        """What tells this cell from the others."""
        return {
            "part": self.part,
            "wrong": self.wrong if self.part == "noise" else None,
            "masking": self.masking,
            "captions": " + ".join(self.kinds),
            "rewrites": self.rewrites,
        }


NOISE_CELLS = tuple(Cell("noise", masking, wrong) for wrong in (0.25, 0.0) for masking in ("equal", "nam", "none"))
CAPTION_CELLS = (
    Cell("captions"),
    Cell("captions", kinds=("static",)),
    Cell("captions", kinds=("dynamic",)),
    Cell("captions", rewrites="all"),
    Cell("captions", rewrites="faithful"),
)


class Laboratory:
    """Runs cells in a work folder.

    Args:
        work: kept from one call to the next.
        setting: of all cells.
    """

    def __init__(self, work: Path, setting: Setting) -> None:
        self.setting = setting
        self.mark = fingerprint(vars(setting))
        self._work = work / self.mark

    def run(self, cell: Cell, seed: int) -> dict[str, Any]:
        """Train and score: {"r1", "map", "steps", "last_loss", "seconds"} and, with kind nam, the AUC of its noise levels."""
        clock, truth = time.perf_counter(), None
        if cell.part == "noise":
            data, truth = self._people(cell.wrong, seed)
        else:
            data = self._captioned()
        out = self._work / "run"
        shutil.rmtree(out, ignore_errors=True)
        manifest = run_train(self._job(cell, seed, data, out))
        result: dict[str, Any] = {**self._score(out / "model")}
        result |= {"steps": manifest["facts"]["steps"], "last_loss": manifest["facts"]["last_loss"]}
        if cell.masking == "nam" and truth is not None and cell.wrong:
            result |= _auc(out / "noise", truth)
        shutil.rmtree(out)
        return {**result, "seconds": round(time.perf_counter() - clock, 1)}

    def untrained(self) -> dict[str, float]:
        """{"r1", "map"} of the weights that every cell starts from."""
        return self._score(self._start())

    def _job(self, cell: Cell, seed: int, data: Path, out: Path) -> TrainJob:
        setting = self.setting
        captions = data / ("captions-unfiltered" if cell.rewrites == "all" else "captions")
        values = [
            f"images={{path: {data / 'images'}, val_split: null}}",
            f"captions={{paths: [{captions}], kinds: [{', '.join(cell.kinds)}], rewrite_share: {0 if cell.rewrites == 'none' else 0.2}}}",
            f"model={{init: {self._start()}, image_height: {HEIGHT}, image_width: {WIDTH}}}",
            f"batches={{size: {setting.batch}, seed: {seed}, crop_padding: 2, erase: 0}}",
            "objective={sdm: {temperature: 0.1}, infonce: {weight: 4.0}}",  # the small configuration's, jobs/configs/train/train.yaml
            f"masking={{kind: {cell.masking}, probability: {setting.probability}, depth: {setting.depth}}}",
            f"optimizer={{name: adamw, lr: {setting.rate}, weight_decay: 0.01, beta2: 0.98}}",
            "engine.zero_stage=0",
            f"schedule={{epochs: {setting.epochs}, checkpoint_every: 100000, validate_every: 100000, log_every: 30}}",
            "workers={count: 1}",
            f"output={{path: {out}, if_exists: replace}}",
        ]
        return load_config(TrainJob, None, values)

    def _start(self) -> Path:
        setting = self.setting
        mark = fingerprint({"people": setting.start_people, "steps": setting.start_steps, "depth": setting.depth})
        folder = self._work.parent / f"start-{mark}"
        if not folder.exists():
            hidden = folder.with_name(f".{folder.name}.partial")
            train_start(hidden, people=setting.start_people, steps=setting.start_steps, depth=setting.depth, seed=_START_PEOPLE)
            hidden.rename(folder)
        return folder

    def _people(self, wrong: float, seed: int) -> tuple[Path, list[Judged]]:
        folder = self._work / "people"
        shutil.rmtree(folder, ignore_errors=True)
        return folder, write_people(folder, self._source(seed), wrong_share=wrong, seed=seed)

    def _source(self, seed: int) -> SyntheticPeople:
        shape = {"height": HEIGHT, "width": WIDTH, "val_share": 0, "test_share": 0}
        return SyntheticPeople(SyntheticConfig(identities=self.setting.people, images_per_identity=1, seed=_TRAIN_PEOPLE + seed, **shape))

    def _captioned(self) -> Path:
        """People that the caption job has described and rewritten once, with the tiny captioner and SmolLM2."""
        folder = self._work / "captioned"
        if not (folder / "captions-unfiltered").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write_people(folder / "drawn", self._source(0), wrong_share=0, seed=0)
            values = [
                f"images={{source: parquet, path: {folder / 'drawn' / 'images'}}}",
                "captioners={main: {instructions: [static, dynamic]}}",
                f"rewriter.share={self.setting.rewrites}",
                "faithfulness={alpha: 0.5, min_agreement: 0.75}",
                f"output={{path: {folder / 'job'}, if_exists: reuse}}",
            ]
            run_caption(load_config(CaptionJob, None, values))
            (folder / "images").symlink_to(folder.resolve() / "drawn" / "images")
            (folder / "captions").symlink_to(folder.resolve() / "job" / "captions")
            with TableWriter(folder / "captions-unfiltered", CAPTIONS) as writer:
                writer.append(accept_every_rewrite(read_table(folder / "job" / "captions", CAPTIONS)))
        return folder

    def _score(self, model: Path) -> dict[str, float]:
        pictures, texts, person_G = self._test
        encoder = load_encoder(model)
        truth = GroundTruth.text_to_image(np.repeat(person_G, 2), person_G)
        results = rank_queries(encoder.encode_texts(texts), encoder.encode_images(pictures), truth).results
        return {"r1": results.summary()["r1"], "map": results.summary()["map"]}

    @cached_property
    def _test(self) -> tuple[list[Image.Image], list[str], np.ndarray]:
        shape = {"height": HEIGHT, "width": WIDTH, "val_share": 0, "test_share": 0}
        people = SyntheticPeople(SyntheticConfig(identities=self.setting.test_people, images_per_identity=2, seed=_TEST_PEOPLE, **shape))
        pictures = [Image.fromarray(pixels) for pixels in people.pictures()]
        return pictures, [text for pair in people.captions() for text in pair], people.shots().person_N


def _auc(noise: Path, truth: list[Judged]) -> dict[str, float]:
    """How well the exported levels of words find the wrong ones: among all words, and among those that name attributes."""
    level, attribute, wrong = [], [], []
    for row in pq.read_table(noise, schema=NOISE).to_pylist():
        caption = truth[row["row"]]
        assert row["text"] == caption.text, f"row {row['row']} of the noise table is another caption"
        level += row["word_noise"]
        attribute += caption.attribute_W.tolist()
        wrong += caption.wrong_W.tolist()
    known_W = np.array([value is not None for value in level])
    level_W, attribute_W, wrong_W = (np.array(values)[known_W] for values in (level, attribute, wrong))
    level_W = level_W.astype(float)
    return {
        "auc_all_words": roc(level_W, wrong_W).auc,
        "auc_attribute_words": roc(level_W[attribute_W], wrong_W[attribute_W]).auc,
        "wrong_share_of_words": float(wrong_W.mean()),
        "wrong_share_of_attribute_words": float(wrong_W[attribute_W].mean()),
    }
