"""The verifier of edits: reads a picture's attributes, and says whether an edit shows what was wanted and nothing else changed.

One folder on disk: verifier.safetensors (weights in float16) and manifest.json, which names the vocabulary, whom it learnt from, and its
own error on people whom it did not. Knows pictures, masks and attribute values; not editors, tables or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from reid_ray.edit.verify.attribute_reader import AttributeReader, at_size, unit_tensor
from reid_ray.edit.verify.config import ReaderConfig, VerifyLimits
from reid_ray.edit.verify.picture_measures import mean_change, psnr
from reid_ray.errors import DataError
from reid_ray.model.model_files import weights_digest
from reid_ray.storage import MANIFEST, read_object, write_json
from reid_ray.versions import check_json, numbered

WEIGHTS, KIND = "verifier.safetensors", "verifier"
BUILTIN = "builtin:tiny-verifier"
_SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "tiny_verifier"
_HEAD = 4  # the top 1 / _HEAD of a crop shows the head
_HEAD_SLOTS = frozenset({"hair", "hat"})  # whose edits change it
_BATCH = 256


def slot_of(attribute: str) -> str:
    """The slot that an attribute describes: upper of upper, upper_color and upper_pattern."""
    return attribute.partition("_")[0]


@dataclass(frozen=True)
class EditedPicture:
    """An edit to be judged.

    source, edited: uint8 [H, W, 3].
    masks: slot -> bool [H, W], what might change.
    wanted: slot -> {attribute: value}, what the edit should show; a slot without any is judged by the rest alone.
    """

    source: np.ndarray
    edited: np.ndarray
    masks: Mapping[str, np.ndarray]
    wanted: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class PictureVerdict:
    """What a verifier found.

    reason: "code: detail" why the edit does not stand; None: it does.
    read: slot -> {attribute: value} as read on the edited picture, of the edited slots.
    missed: attributes of those that are not read as wanted.
    lost: attributes of other slots that are surely read otherwise than before.
    head_similarity: cosine of the features of both pictures' top quarters.
    change_inside, change_outside: mean absolute differences inside and outside the masks, grey levels.
    psnr_outside: dB; infinite where nothing changed there.
    """

    reason: str | None
    read: dict[str, dict[str, str]]
    missed: tuple[str, ...]
    lost: tuple[str, ...]
    head_similarity: float
    change_inside: float
    change_outside: float
    psnr_outside: float

    @property
    def stands(self) -> bool:
        """Whether the edit may be published."""
        return self.reason is None

    @property
    def hit(self) -> bool:
        """Whether every wanted attribute is read as wanted."""
        return not self.missed

    @property
    def kept(self) -> bool:
        """Whether nothing else was surely lost."""
        return not self.lost


class Verifier:
    """Reads pictures by an AttributeReader and judges edits.

    Args:
        reader: the network.
        limits: what passes.
        revision: digest of its weights.
        device: torch device.
    """

    def __init__(self, reader: AttributeReader, limits: VerifyLimits, *, revision: str, device: str = "cpu") -> None:
        self._reader, self.limits, self.revision, self._device = reader.to(device).eval(), limits, revision, device

    @classmethod
    def open(cls, folder: str | Path, limits: VerifyLimits | None = None, *, device: str = "cpu") -> Verifier:
        """The verifier in a folder that train_verifier wrote (its model/), or builtin:tiny-verifier.

        Raises:
            DataError: it is not there, or not whole.
        """
        place = _SHIPPED if str(folder) == BUILTIN else Path(folder)
        return cls(load_reader(place), limits or VerifyLimits(), revision=weights_digest(place), device=device)

    @property
    def vocabulary(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> the values that it tells apart."""
        return dict(self._reader.vocabulary)

    @torch.inference_mode()
    def probabilities(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Attribute -> probabilities [N, values] of pictures uint8 [H, W, 3] of any size."""
        parts = [self._probabilities_of(self._features_of(pictures[start : start + _BATCH])) for start in range(0, len(pictures), _BATCH)]
        return {name: np.concatenate([each[name] for each in parts]) for name in self._reader.vocabulary}

    @torch.inference_mode()
    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features for kernel_distance: the hidden layer, each vector scaled to numbers of mean square 1, float32 [N, D]."""
        starts = range(0, len(pictures), _BATCH)
        hidden = torch.cat([self._reader.hidden(self._features_of(pictures[start : start + _BATCH])) for start in starts])
        scaled: np.ndarray = (functional.normalize(hidden, dim=-1) * hidden.shape[1] ** 0.5).cpu().numpy()
        return scaled

    def read(self, pictures: Sequence[np.ndarray]) -> list[dict[str, str]]:
        """{attribute: likeliest value} of each picture."""
        found = {name: probability_NV.argmax(1) for name, probability_NV in self.probabilities(pictures).items()}
        return [{name: self._reader.vocabulary[name][code_N[row]] for name, code_N in found.items()} for row in range(len(pictures))]

    def check(
        self, source: np.ndarray, drawn: np.ndarray, masks: Mapping[str, np.ndarray], wanted: Mapping[str, Mapping[str, str]]
    ) -> PictureVerdict:
        """The verdict on one edit; see EditedPicture."""
        return self.check_all([EditedPicture(source, drawn, masks, wanted)])[0]

    def check_all(self, edits: Sequence[EditedPicture]) -> list[PictureVerdict]:
        """The verdict on each edit, a function of that edit alone; read in batches, each picture once."""
        starts = range(0, len(edits), _BATCH)
        return [verdict for start in starts for verdict in self._verdicts(edits[start : start + _BATCH])]

    def _verdicts(self, edits: Sequence[EditedPicture]) -> list[PictureVerdict]:
        """The verdicts on one batch."""
        with torch.inference_mode():
            before, after = (self._features_of(pictures) for pictures in ([one.source for one in edits], [one.edited for one in edits]))
            old, new = self._probabilities_of(before), self._probabilities_of(after)
            tops = [features[:, :, : features.shape[2] // _HEAD].flatten(1) for features in (before, after)]
            heads = functional.cosine_similarity(*tops).cpu().numpy()
        return [
            self._verdict(edit, {name: old[name][row] for name in old}, {name: new[name][row] for name in new}, float(heads[row]))
            for row, edit in enumerate(edits)
        ]

    def _verdict(self, edit: EditedPicture, old: dict[str, np.ndarray], new: dict[str, np.ndarray], head: float) -> PictureVerdict:
        values = self._reader.vocabulary
        read = {name: values[name][int(new[name].argmax())] for name in values}
        wanted = {name: value for of_slot in edit.wanted.values() for name, value in of_slot.items() if value in values.get(name, ())}
        missed = tuple(name for name, value in wanted.items() if read[name] != value)
        others = [name for name in values if slot_of(name) not in edit.masks]
        lost = tuple(name for name in others if surely_lost(old[name], new[name], sure=self.limits.sure))
        inside = np.logical_or.reduce(list(edit.masks.values()))
        change, shift = (mean_change(edit.source, edit.edited, where) for where in (inside, ~inside))
        return PictureVerdict(
            reason=self.why_refused(edit, read, wanted, missed, lost, head=head, change=change, shift=shift),
            read={slot: {name: read[name] for name in values if slot_of(name) == slot} for slot in edit.masks},
            missed=missed,
            lost=lost,
            head_similarity=head,
            change_inside=change,
            change_outside=shift,
            psnr_outside=psnr(edit.source, edit.edited, ~inside),
        )

    def why_refused(
        self,
        edit: EditedPicture,
        read: Mapping[str, str],
        wanted: Mapping[str, str],
        missed: Sequence[str],
        lost: Sequence[str],
        *,
        head: float,
        change: float,
        shift: float,
    ) -> str | None:
        """Why an edit does not stand, by what was found on it; None: it does."""
        limits = self.limits
        if shift > limits.shift:
            return f"changed_outside: by {shift:.1f} grey levels, more than {limits.shift:g}"
        if change < limits.change:
            return f"unchanged: by {change:.1f} grey levels inside the masks, less than {limits.change:g}"
        if missed:
            said = ", ".join(f"{name} is read as {read[name]}, not {wanted[name]}" for name in missed)
            return f"not_as_wanted: {said}"
        if lost:
            said = ", ".join(f"{name} is read as {read[name]} now" for name in lost)
            return f"other_attribute: {said}"
        if head < limits.head and not _HEAD_SLOTS & set(edit.masks):
            return f"other_head: similarity {head:.2f}, less than {limits.head:g}"
        return None

    def _features_of(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        stack = np.stack([at_size(picture, self._reader.config) for picture in pictures])
        return self._reader.features(unit_tensor(stack).to(self._device))

    def _probabilities_of(self, features: torch.Tensor) -> dict[str, np.ndarray]:
        return {name: logits.softmax(-1).cpu().numpy() for name, logits in self._reader.classify(features).items()}


def surely_lost(old_V: np.ndarray, new_V: np.ndarray, *, sure: float) -> bool:
    """Whether an attribute is read otherwise than before, both times with at least the probability `sure`."""
    before, after = int(old_V.argmax()), int(new_V.argmax())
    return before != after and old_V[before] >= sure and new_V[after] >= sure


def save_reader(reader: AttributeReader, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a verifier's folder; `facts` say whom it learnt from and its error."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: each.half() if each.is_floating_point() else each for name, each in reader.state_dict().items()}
    save_file({name: each.contiguous().cpu() for name, each in weights.items()}, folder / WEIGHTS)
    described = {"vocabulary": reader.vocabulary, "reader": reader.config.model_dump(mode="json"), **facts}
    write_json(folder / MANIFEST, {**numbered("verifier"), "kind": KIND, **described})


def load_reader(folder: Path) -> AttributeReader:
    """The network in a verifier's folder.

    Raises:
        DataError: it is not there, of a newer format, or its files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "give model/ of an output of train_verifier"
    if not (folder / MANIFEST).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{folder}: holds no verifier; {remedy}")
    manifest = read_object(folder / MANIFEST, remedy=remedy)
    check_json("verifier", manifest, origin=folder / MANIFEST)
    try:
        reader = AttributeReader(manifest["vocabulary"], ReaderConfig.model_validate(manifest["reader"]))
        weights = load_file(folder / WEIGHTS)
        reader.load_state_dict({name: each.float() if each.is_floating_point() else each for name, each in weights.items()})
    except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: is no whole verifier ({str(error).splitlines()[0]}); {remedy}") from None
    return reader
