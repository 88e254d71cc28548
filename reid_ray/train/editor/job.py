"""The train_editor job, driver side: checks inputs, joins segments, captions and images, opens or builds the editor to start from.

Knows the configuration and the order of preparation; the workers' side is worker_parts.py, the run itself reid_ray.train.run.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_ray.runtime import Need
from reid_ray.storage import MANIFEST, Counts, parquet_files, read_manifest, write_json
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.editor.edit_samples import Fits, prepare_samples, prepare_texts, texts_in
from reid_ray.train.feed.prepared import FACTS, read_prepared
from reid_ray.train.feed.seen import publish_seen
from reid_ray.train.recipe import DATA, START, Selection
from reid_ray.train.run import run_recipe
from reid_ray.versions import numbered

if TYPE_CHECKING:
    from reid_ray.train.parts import Parts


def run_train_editor(config: TrainEditorJob) -> dict[str, Any]:
    """Train an editor. Returns the manifest of the output folder, which holds model/, metrics.jsonl and tensorboard/.

    Raises:
        ReidRayError: inputs, initial weights or resources are missing; before any worker starts.
    """
    return run_recipe(EditorRecipe(config))


@dataclass(frozen=True)
class EditorRecipe:
    """Trains config.model on config.data; implements reid_ray.train.recipe.Recipe."""

    config: TrainEditorJob
    job: str = "train_editor"

    @property
    def selection(self) -> Selection | None:
        """The last weights are kept: an editor is judged by what a verifier reads on its pictures, not by its loss."""
        return None

    def inputs(self) -> dict[str, Any]:
        """Images, segments, captions, references, and what training starts from."""
        data, model = self.config.data, self.config.model
        named = {"images": self.config.images.path, "segments": data.segments, "captions": data.captions, "references": data.references}
        return {**named, "init": model.init, "attribute_encoder": model.attribute_encoder}

    def captions(self) -> list[str]:
        """Those whose nouns name the segments."""
        return self.config.data.captions

    def check(self) -> None:
        """Tables must be at hand, and the job must fit where workers.device_gib says into what."""
        from reid_ray.train.memory.job import refuse_too_large

        data = self.config.data
        for path in (self.config.images.path, data.segments, *data.captions, *([data.references] if data.references else [])):
            parquet_files(path)
        refuse_too_large("train_editor", self.config)

    def needs(self) -> list[Need]:
        """Nothing beside the workers."""
        return []

    def prepare(self, folder: Path, counts: Counts) -> dict[str, Any]:
        """Captions, the editor to start from, then the samples that it can read."""
        data, start = folder / DATA, folder / START
        if not (data / FACTS).is_file():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir()
            prepare_texts(self.config, data)
            self._prepare_start(data, start)
            facts = prepare_samples(self.config, data, counts, fits=_reads(start))
            write_json(data / FACTS, {**numbered("prepared"), "facts": facts, "counts": counts.as_dict()})
        prepared = read_prepared(data)
        counts.take(prepared["counts"])
        return dict(prepared["facts"])

    def _prepare_start(self, data: Path, start: Path) -> None:
        if (start / MANIFEST).is_file():
            return
        from reid_ray.model.editor.editor_folder import save_editor, start_editor

        config = self.config
        opened = start_editor(
            config.model, texts_in(data), seed=config.batches.seed, steps=config.drawing.steps, guidance=config.drawing.guidance
        )
        save_editor(opened, start, {"init": config.model.init or "from scratch"})

    def exposures(self, folder: Path) -> dict[str, dict[str, Any] | None]:
        """No score is taken during training."""
        return {}

    def parts(self, folder: Path, prepared: Path) -> Parts:
        """Module, engine, batches and objective of one worker."""
        from reid_ray.train.editor.worker_parts import build_parts

        return build_parts(self.config, prepared)

    def publish(self, folder: Path, out: Path, model: dict[str, Any]) -> dict[str, Any]:
        """Nothing more than the model; what it is, and beside it what it has seen."""
        publish_seen(folder / DATA, out / "model", self._before())
        return {"model": {name: model[name] for name in ("mode", "height", "width", "steps", "guidance", "parameters")}}

    def _before(self) -> dict[str, Path | None]:
        """The weights that training goes on from, by their configured names."""
        model = self.config.model
        names = [name for name in (model.init, model.attribute_encoder) if name is not None]
        return {name: Path(name) if Path(name).is_dir() else None for name in names}

    def account(self, counts: Counts, facts: dict[str, Any]) -> str:
        """What became of the segments that were read."""
        used = f"training {counts.written} in {facts['samples']} samples of {facts['persons']} persons"
        return f"segments: read {counts.read}, {used}{counts.unused_in_words()}"

    def sentence(self, facts: dict[str, Any]) -> str:
        """How large the editor is."""
        return f"; {facts['model']['parameters']:,} parameters"


def _reads(start: Path) -> Fits:
    """Which nouns of a prompt the editor in a folder reads."""
    from reid_ray.model.editor.edit_inputs import PromptReader
    from reid_ray.model.editor.editor_folder import tokenizer_in

    read = PromptReader(tokenizer_in(start, int(read_manifest(start)["context"])))
    return lambda text, spans: [position >= 0 for position in read(text, spans).position_K]
