"""The tune job for multimodal LLMs (MLLMReID), driver side: checks inputs, joins images and captions into memory-mapped files.

Knows the configuration and the order of preparation; the workers' side is worker_parts.py, the run itself reid_ray.train.run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_ray.errors import ConfigError, DataError
from reid_ray.runtime import Need
from reid_ray.storage import Counts, parquet_files
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.prepared import FACTS, VALIDATION, RowFile, read_prepared
from reid_ray.train.feed.ray_decoders import decoder_needs
from reid_ray.train.feed.seen import editors_of, publish_seen, validation_exposure
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.recipe import DATA, Selection
from reid_ray.train.run import captions_in_words, run_recipe

if TYPE_CHECKING:
    from reid_ray.train.parts import Parts


def run_tune(config: TuneJob) -> dict[str, Any]:
    """Tune a multimodal LLM. Returns the manifest of the output folder, which holds model/, metrics.jsonl and tensorboard/.

    Raises:
        ReidRayError: inputs, weights or resources are missing or do not fit; before any worker starts.
    """
    return run_recipe(MllmRecipe(with_absolute_models(config)))


def with_absolute_models(config: TuneJob) -> TuneJob:
    """The same job; a model that lies in a folder is named in full, for Ray Train's workers stand in another one than the driver."""
    names = {name: getattr(config.model, name) for name in ("base", "processor", "adapter")}
    found = {name: os.path.abspath(place) for name, place in names.items() if place is not None and os.path.exists(place)}
    return config.model_copy(update={"model": config.model.model_copy(update=found)})


def refuse_lone_pictures(data: Path, *, images: str) -> None:
    """See that pictures can choose the weights, before anything is trained: somebody who validates is on two cameras.

    Args:
        data: what prepare_pairs wrote.
        images: their tables, for the message.

    Raises:
        DataError: no picture of the validation split has a match by the protocol that validates, so that every score would be 0.
    """
    import numpy as np

    from reid_ray.train.mllm.validation import each_against_others

    pairs = RowFile(data / VALIDATION)
    _, first = np.unique(pairs.column("picture"), return_index=True)
    person_G, camera_G = (pairs.column(name)[first] for name in ("person", "camera"))
    others = each_against_others(person_G, camera_G)
    assert others.gallery_camera_G is not None
    seen = np.unique(np.stack([person_G, others.gallery_camera_G], axis=1), axis=0)
    if (np.unique(seen[:, 0], return_counts=True)[1] < 2).all():
        raise DataError(
            f"{images}: of {len(first)} pictures that are to choose the weights none shows a person whom another camera shows, too, so the "
            "mAP of images against images would be 0 whatever is learnt; set select to text (with objective.sdm), or images.val_split to "
            "null and images.val_share to 0, or leave out camera_id, which then sets a picture apart from itself alone"
        )


@dataclass(frozen=True)
class MllmRecipe:
    """Tunes config.model on config.images and config.captions; implements reid_ray.train.recipe.Recipe."""

    config: TuneJob
    job: str = "tune"

    @property
    def selection(self) -> Selection | None:
        """By mAP of images against images, or by a score of captions against images, on the validation split."""
        images, select = self.config.images, self.config.select
        if images.watched is None:
            return None
        if select == "text":
            score = {"r1": "R@1", "map": "mAP"}[images.select_by]
            return Selection(images.watched, f"text_{images.select_by}", f"text-to-image {score} of the latent feature")
        return Selection(images.watched, f"{select}_map", f"image-to-image mAP of the {select} feature")

    def inputs(self) -> dict[str, Any]:
        """Images, captions, the base and what training goes on from."""
        model = self.config.model
        tables = {"images": self.config.images.path, **self.config.images.beside, "captions": self.config.captions.paths}
        return {**tables, "base": model.base, "adapter": model.adapter}

    def captions(self) -> list[str]:
        """Those that are learnt from."""
        return self.config.captions.paths

    def check(self) -> None:
        """Tables, base, processor, LoRA targets, quantization and context."""
        from reid_ray.model.mllm.model_folder import check_mllm
        from reid_ray.train.memory.job import refuse_too_large

        for path in (*self.config.images.paths, *self.config.images.edits, *self.config.captions.paths):
            parquet_files(path)
        check_mllm(self.config.model, zero_stage=self.config.engine.zero_stage)
        self._refuse_small_context()
        refuse_too_large("tune", self.config)

    def needs(self) -> list[Need]:
        """The actors that decode."""
        return decoder_needs(self.config.batches, self.config.workers)

    def prepare(self, folder: Path, counts: Counts) -> dict[str, Any]:
        """The joined data: no text that is too long, no sample without a continuation if one is to be learnt."""
        data = folder / DATA
        if not (data / FACTS).is_file():
            from reid_ray.model.mllm.model_folder import open_processor
            from reid_ray.model.plain_text import plain_tokens
            from reid_ray.train.mllm.continuation import Continuations

            tokenizer = open_processor(self.config.model)[0].tokenizer
            captions = self.config.captions
            data.mkdir(exist_ok=True)
            prepare_pairs(
                self.config,
                data,
                counts,
                fits=lambda text: len(plain_tokens(tokenizer, [text], add_special_tokens=False)["input_ids"][0]) <= captions.max_tokens,
                answered=(lambda pairs: Continuations(pairs, captions.continuation).available()) if self.config.objective.answers else None,
            )
        if self.selection is not None and self.config.select != "text":
            refuse_lone_pictures(data, images=self.config.images.origin)
        prepared = read_prepared(data)
        counts.take(prepared["counts"])
        return dict(prepared["facts"])

    def exposures(self, folder: Path) -> dict[str, dict[str, Any] | None]:
        """Of the validation split, if it is watched."""
        return {} if self.selection is None else {"validation": validation_exposure(folder / DATA, self._before())}

    def parts(self, folder: Path, prepared: Path) -> Parts:
        """Model, losses, batches and validation of one worker."""
        from reid_ray.train.mllm.worker_parts import build_parts

        return build_parts(self.config, prepared)

    def publish(self, folder: Path, out: Path, model: dict[str, Any]) -> dict[str, Any]:
        """Nothing more than the model; its size and base."""
        publish_seen(folder / DATA, out / "model", self._before())
        return {"model": {name: model[name] for name in ("fingerprint", "family", "base", "trained", "adapter_serves_alone")}}

    def account(self, counts: Counts, facts: dict[str, Any]) -> str:
        """What became of the captions."""
        return captions_in_words(counts, facts)

    def sentence(self, facts: dict[str, Any]) -> str:
        """How much trains."""
        return f"; {sum(facts['model']['trained'].values()):,} parameters trained"

    def _before(self) -> dict[str, Path | None]:
        """The weights that training goes on from, by their configured name, and the editors that drew pictures for it."""
        from reid_ray.model.mllm.model_folder import locate_base

        model = self.config.model
        before: dict[str, Path | None] = {model.base: locate_base(model), **editors_of(self.config.images.edits)}
        return before if model.adapter is None else {**before, model.adapter: Path(model.adapter)}

    def _refuse_small_context(self) -> None:
        """The longest turns that can come must fit, so that no step fails half-way."""
        from PIL import Image

        from reid_ray.model.mllm.inputs import Chat
        from reid_ray.model.mllm.model_folder import open_processor

        processor, context, image_tokens = open_processor(self.config.model)
        chat = Chat(processor, context=1 << 30, origin=f"model.base {self.config.model.base}")
        limit, asked = self.config.captions.max_tokens, self.config.instruction.texts
        longest = max(asked, key=chat.count_tokens)
        turn = chat.picture_turns([Image.new("RGB", (64, 128))], [longest], [""])
        image = int((turn.input_ids != processor.image_token_id).sum()) + image_tokens + limit
        caption = chat.caption_turns(["a"], [longest], [""]).input_ids.shape[1] + 2 * limit
        if max(image, caption) > context:
            raise ConfigError(
                f"captions.max_tokens {limit}: an image turn may have {image} tokens and a caption turn {caption}, but the model reads "
                f"{context}; lower captions.max_tokens or model.max_pixels"
            )
