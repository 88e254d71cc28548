"""Stand-ins around an edit job: an editor that fills, a verifier that judges by lot, a language model that applies a rule.

Each answers from its request alone, so that two runs of a job can be compared row by row. They stand beside the real ones, for what stands
around an editor; what an editor is worth they cannot tell.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import nouns_described
from reid_ray.attributes.substitution import CannotSubstituteError, substitute
from reid_ray.caption.engines.protocol import Conversation, Reply
from reid_ray.edit.config import EditorConfig
from reid_ray.edit.picture_check import Standing
from reid_ray.model.editor.config import DrawingConfig
from reid_ray.model.editor.edit_request import EditRequest, PictureEditor

_LOOKS = {"color": "red orange yellow green blue purple pink brown black white grey blond", "pattern": "striped checked"}


@dataclass
class FillingEditor:
    """Fills masks with the median colour of what is visible of the first reference.

    seconds: that a batch takes. dies_at: a prompt with this in it ends the process. log: file that gets a line with every batch's size.
    """

    seconds: float = 0.0
    dies_at: str | None = None
    log: str | None = None
    revision: str = "filling-1"
    sampling: str = "fill"

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """One picture for each request, a function of it alone."""
        _log(self.log, len(requests))
        time.sleep(self.seconds)
        if self.dies_at is not None and any(self.dies_at in request.prompt for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return [_filled(request) for request in requests]


@dataclass
class ShippedEditor:
    """The editor of a configuration, opened where it first draws, with a log of its batches."""

    folder: str
    drawing: DrawingConfig
    log: str | None
    revision: str
    sampling: str
    _opened: PictureEditor | None = field(default=None, repr=False)

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """The editor's pictures."""
        if self._opened is None:
            from reid_ray.model.editor.reference_editor import Editor

            self._opened = Editor.open(self.folder, self.drawing)
        _log(self.log, len(requests))
        return self._opened.edit(requests)


def logged_editor(kind: str, config: EditorConfig, log: str) -> PictureEditor:
    """The editor of a kill harness: filling (kind scripted), in batches of 0.5 s, or the one that ships (kind tiny)."""
    if kind == "scripted":
        return FillingEditor(seconds=0.5, log=log)
    from reid_ray.model.model_files import model_revision, resolve_model

    folder = resolve_model(config.model)
    return ShippedEditor(folder, config.drawing, log, model_revision(folder), "shipped")


@dataclass
class LotVerifier:
    """Lets a drawing stand by a digest of its pixels, so that some edits take several tries and some never stand.

    never: share that does not stand. levels: grey levels within which the mean colours of what was drawn are alike, for an editor that
    draws a grey level apart by what it draws beside (docs/equalities.md); None: every bit counts.
    """

    never: float = 0.0
    revision: str = "lot-1"
    levels: int | None = None

    def check(
        self, source: np.ndarray, drawn: np.ndarray, masks: Mapping[str, np.ndarray], wanted: Mapping[str, Mapping[str, str]]
    ) -> Standing:
        """A function of the drawing alone."""
        assert set(masks) == set(wanted)
        assert source.shape == drawn.shape
        lot = drawn.tobytes()
        if self.levels is not None:
            means = np.stack([drawn[mask].mean(axis=0) for mask in masks.values()]) if masks else np.zeros(0)
            lot = source.tobytes() + (means // self.levels).astype(np.uint8).tobytes()
        stands = int(sha256(lot).hexdigest()[:8], 16) >= self.never * 2**32
        return Standing(stands, None if stands else "slot_missed: drawn by lot", {slot: dict(values) for slot, values in wanted.items()})


class RuleWriter:
    """A language model that changes a word where it can find it, and in a third of its answers repeats what it was given."""

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """One reply per conversation, from it and its key alone."""
        asked = zip((talk[0]["content"] for talk in conversations), keys, strict=True)
        return [Reply(self._answer(prompt, key), tokens=20, prompt_tokens=60) for prompt, key in asked]

    def _answer(self, prompt: str, key: str) -> str:
        said = dict(line.split(": ", 1) for line in prompt.splitlines() if line.startswith(("Description: ", "New attributes: ")))
        text = said["Description"]
        if int(sha256(key.encode()).hexdigest()[:8], 16) % 3 == 0:
            return text
        wanted = dict(each.split(": ") for each in said["New attributes"].split("; "))
        tokens = token_places(text)
        changes: dict[int, dict[str, str]] = {}
        for thing in nouns_described([token.word for token in tokens]):
            words = wanted.pop({"upper": "upper clothing", "lower": "lower clothing"}.get(thing.noun.slot, thing.noun.slot), None)
            if words is not None:
                looks = {facet: word for word in words.split(", ") for facet, known in _LOOKS.items() if word in known.split()}
                changes[tokens[thing.at].start] = looks
        try:
            return f"{substitute(text, changes).text} So it is."
        except CannotSubstituteError:
            return text


def _filled(request: EditRequest) -> np.ndarray:
    crop = request.references[0].crop
    color = np.median(crop[crop[..., 3] > 0][:, :3], axis=0)
    picture = request.picture.copy()
    picture[request.mask] = np.clip(color + request.seed % 3, 0, 255).astype(np.uint8)
    return picture


def _log(file: str | None, count: int) -> None:
    if file is not None:
        with Path(file).open("a", encoding="ascii") as log:
            log.write(f"{count}\n")
