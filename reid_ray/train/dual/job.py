"""The train job for dual encoders, driver side: checks inputs, joins images and captions into memory-mapped files, opens initial weights.

Knows the configuration and the order of preparation; the workers' side is worker_parts.py, the run itself reid_ray.train.run.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_ray.model.plain_text import TruncationCounts
from reid_ray.model.pretrained import locate
from reid_ray.runtime import Need
from reid_ray.storage import MANIFEST, Counts, parquet_files, read_manifest
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.direct_transfer import prepare_transfer, transfer_exposures, transfer_results
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import FACTS, PICTURES, SAMPLES, VALIDATION, RowFile, read_prepared, texts_of
from reid_ray.train.feed.ray_decoders import decoder_needs
from reid_ray.train.feed.seen import editors_of, publish_seen, validation_exposure
from reid_ray.train.masking.page import write_noise_page
from reid_ray.train.recipe import DATA, NOISE, START, Selection
from reid_ray.train.run import captions_in_words, run_recipe

if TYPE_CHECKING:
    from reid_ray.train.parts import Parts

# Inside a run's folder: what the driver prepares, and what the workers leave beside the model.


def run_train(config: TrainJob) -> dict[str, Any]:
    """Train a dual encoder. Returns the manifest of the output folder, which holds model/, metrics.jsonl and tensorboard/.

    Raises:
        ReidRayError: inputs, initial weights or resources are missing; before any worker starts.
    """
    return run_recipe(DualEncoderRecipe(config))


@dataclass(frozen=True)
class DualEncoderRecipe:
    """Trains config.model on config.images and config.captions; implements reid_ray.train.recipe.Recipe."""

    config: TrainJob
    job: str = "train"

    @property
    def selection(self) -> Selection | None:
        """By R@1 or mAP on the validation split."""
        split, number = self.config.images.watched, self.config.images.select_by
        return Selection(split, number, {"r1": "text-to-image R@1", "map": "text-to-image mAP"}[number]) if split is not None else None

    def inputs(self) -> dict[str, Any]:
        """Images, captions, initial weights, and the data sets of direct transfer."""
        own = {
            "images": self.config.images.path,
            **self.config.images.beside,
            "captions": self.config.captions.paths,
            "init": self.config.model.init,
        }
        others = {other.name: [other.images, other.captions] for other in self.config.transfer}
        return {**own, "transfer": others} if others else own

    def captions(self) -> list[str]:
        """Those that are learnt from, and those of direct transfer."""
        return [*self.config.captions.paths, *(other.captions for other in self.config.transfer)]

    def check(self) -> None:
        """Tables and initial weights must be at hand, and the job must fit where workers.device_gib says into what."""
        from reid_ray.train.memory.job import refuse_too_large

        others = [path for other in self.config.transfer for path in (other.images, other.captions)]
        for path in (*self.config.images.paths, *self.config.images.edits, *self.config.captions.paths, *others):
            parquet_files(path)
        if self.config.model.init is not None:
            locate(self.config.model.init)
        refuse_too_large("train", self.config)

    def needs(self) -> list[Need]:
        """The actors that decode."""
        return decoder_needs(self.config.batches, self.config.workers)

    def prepare(self, folder: Path, counts: Counts) -> dict[str, Any]:
        """The joined data and the initial model."""
        data, start = folder / DATA, folder / START
        if not (data / FACTS).is_file():
            data.mkdir(exist_ok=True)
            prepare_pairs(self.config, data, counts)
        prepared = read_prepared(data)
        counts.take(prepared["counts"])
        prepare_transfer(self.config, folder)
        if not (start / MANIFEST).is_file():
            from reid_ray.model.dual.dual_encoder import build_dual_encoder, count_truncated
            from reid_ray.model.dual.mask_token import with_mask_token
            from reid_ray.model.pretrained import open_pretrained

            model = self.config.model
            if model.init is None:
                encoder = build_dual_encoder(model, texts_of(RowFile(data / SAMPLES)), seed=self.config.batches.seed)
            else:
                encoder = open_pretrained(model)
            if self.config.masking.mask_token == "trained":
                encoder = with_mask_token(encoder)
            texts = chain(texts_of(RowFile(data / SAMPLES)), texts_of(RowFile(data / VALIDATION)))
            cut = count_truncated(encoder.tokenizer, texts, context=encoder.context)
            left_out = Counter(name.split(".")[0] for name in encoder.left_out)
            encoder.save(start, {"init": model.init or "from scratch", "texts_cut": cut.facts(), "weights_left_out": dict(left_out)})
        started = read_manifest(start)["facts"]
        # A run that an older version prepared says neither.
        facts = {"texts_cut": started.get("texts_cut"), "weights_left_out": started.get("weights_left_out", {})}
        return {**prepared["facts"], **facts}

    def exposures(self, folder: Path) -> dict[str, dict[str, Any] | None]:
        """Of the validation split, if it is watched, and of those of direct transfer."""
        before = self._before()
        own = {} if self.selection is None else {"validation": validation_exposure(folder / DATA, before)}
        return {**own, **transfer_exposures(self.config, folder, before)}

    def parts(self, folder: Path, prepared: Path) -> Parts:
        """Towers, losses, batches and masking of one worker."""
        from reid_ray.train.dual.worker_parts import build_parts

        return build_parts(self.config, folder, prepared)

    def publish(self, folder: Path, out: Path, model: dict[str, Any]) -> dict[str, Any]:
        """The noise levels and their page; scores on other data sets."""
        publish_seen(folder / DATA, out / "model", self._before())
        if (folder / NOISE).is_dir():
            shutil.copytree(folder / NOISE, out / NOISE)
            write_noise_page(folder / NOISE, out / "noise.html", pictures=lambda rows: _pictures_of(folder / DATA, rows))
        facts = {"model": {name: model[name] for name in ("fingerprint", "dim", "parameters", "image_height", "image_width")}}
        trained_on = read_prepared(folder / DATA)["facts"]["datasets"]
        step, before = model["facts"]["step"], self._before()
        transfer = transfer_results(self.config, folder, out, step=step, trained_on=trained_on, before=before)
        return {**facts, "transfer": transfer} if transfer else facts

    def _before(self) -> dict[str, Path | None]:
        """The weights that training goes on from, by their configured name, and the editors that drew pictures for it."""
        init = self.config.model.init
        return {**({} if init is None else {init: locate(init)}), **editors_of(self.config.images.edits)}

    def account(self, counts: Counts, facts: dict[str, Any]) -> str:
        """What became of the captions."""
        return captions_in_words(counts, facts)

    def sentence(self, facts: dict[str, Any]) -> str:
        """Captions that were cut, and weights of the start that nothing takes, if any."""
        cut = TruncationCounts(**facts["texts_cut"]).sentence() if facts["texts_cut"] else ""
        left = facts["weights_left_out"]
        return cut + (f"; {sum(left.values())} weights of {self.config.model.init} left out ({', '.join(sorted(left))})" if left else "")


def _pictures_of(data: Path, rows: Sequence[dict[str, Any]]) -> dict[int, bytes]:
    """The picture of each row of the noise store that is a sample's; rewrites, which come after them, are left without."""
    samples, store = RowFile(data / SAMPLES), PictureStore(data / PICTURES)
    own = [row["row"] for row in rows if row["row"] < len(samples)]
    pictures = samples.take(np.array(own, np.int64))["picture"].to_pylist() if own else []
    return {row: store[picture] for row, picture in zip(own, pictures, strict=True)}
