"""One edit's work: decode, draw, verify, draw again with another seed and reference until it stands or the tries are spent.

Knows a plan's row and the source's; not who draws: the work is a generator that yields a request to the editor and is sent its answer.
Every plan ends in one row: ok, with a picture; rejected, by the verifier; or failed, with a reason.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from reid_ray.attributes.substitution import substitute
from reid_ray.caption.ledger.content_keys import derived_seed
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.data.bit_masks import decode_mask
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.edit.changes.looks import look_of
from reid_ray.edit.changes.new_person import new_person_id
from reid_ray.edit.drawing_engine import Drawn, request_for
from reid_ray.edit.edit_rows import EDIT
from reid_ray.edit.picture_check import PictureFinding, PictureVerifier, Standing
from reid_ray.model.editor.edit_request import EditReference, EditRequest, PictureEditor
from reid_ray.records import IDENTITY_COLUMNS

Row = dict[str, Any]  # of edit_rows.EDIT_ROWS
Plan = Mapping[str, Any]  # a row of edit_rows.PLANS
Drawing = Generator[list[Request], list[Any], list[Row]]


@dataclass(frozen=True)
class EditSetting:
    """What every edit actor is told. Small, and safe to send.

    editor: name in the configuration, revision and sampling fingerprint. open_editor, open_verifier: run in the actor.
    tells: whether the editor is told the new looks in words. tries, seed: of edits. max_pixels: see ImagesConfig.
    """

    editor: tuple[str, str, str]
    open_editor: Callable[[], PictureEditor]
    open_verifier: Callable[[], PictureVerifier | None]
    tells: bool
    tries: int
    seed: int
    max_pixels: int


class EditWork:
    """Turns planned edits into works that ask an editor; holds none.

    Args:
        setting: of the run.
        verifier: says whether a drawing stands; None: every drawing does.
        reference: the RGBA crop of a reference_id.
    """

    def __init__(self, setting: EditSetting, verifier: PictureVerifier | None, reference: Callable[[str], np.ndarray]) -> None:
        self._setting, self._verifier, self._reference = setting, verifier, reference

    def work(self, source: Mapping[str, Any]) -> Drawing:
        """The edit that is planned of an image (a row of SOURCED with the column PLAN)."""
        plan: Plan = source["plan"]
        made = self._row(plan)
        try:
            picture, masks = self._opened(source)
        except BadImageError as error:
            return [made | {"reason": str(error)}]
        looks = {each["noun_start"]: self._told(each) for each in plan["changes"]}
        prompt = substitute(plan["original"], looks)
        mask = np.logical_or.reduce(masks)
        for number in range(self._setting.tries):
            worn = [(each["slot"], each["references"][number]) for each in plan["changes"]]
            made["tries"] = number + 1
            made["seed"] = derived_seed(self._setting.seed, plan["edit_id"], number)
            try:
                crops = [self._reference(name) for _, name in worn]
            except BadImageError as error:
                made["reason"] = f"bad_reference: {error}"
                continue
            references = tuple(EditReference(*noun, crop) for noun, crop in zip(prompt.nouns, crops, strict=True))
            (drawn,) = yield [request_for(EditRequest(picture, mask, prompt.text, references, made["seed"]), f"{plan['edit_id']} {number}")]
            if not isinstance(drawn, Drawn) or drawn.picture is None:
                made["reason"] = f"rejected_by_editor: {drawn.error}"
                continue
            standing = self._check(picture, drawn.picture, masks, plan)
            made |= _noted(standing, made["slots"], worn)
            made["difference_outside"] = difference_outside(picture, drawn.picture, mask)
            if standing.stands:
                return [made | _finished(drawn.picture, plan, worn)]
        return [made]

    def given_up(self, plan: Plan, reason: str) -> list[Row]:
        """The edit as a failed row, without asking anybody."""
        return [self._row(plan) | {"reason": reason}]

    def _told(self, change: Mapping[str, Any]) -> dict[str, str]:
        """What the prompt says of a thing: its new look, or nothing, for a text encoder that knows colours would hide the reference."""
        return dict(look_of(change["slot"], json.loads(change["new"]))) if self._setting.tells else {}

    def _opened(self, source: Mapping[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
        plan: Plan = source["plan"]
        if source["image_sha256"] is not None and source["image_sha256"] != plan["image_sha256"]:
            raise BadImageError("changed_image", "it is not the picture that was segmented; run the segment job again")
        decoded = decode_image(source["image"], max_pixels=self._setting.max_pixels, unread=source["unread"])
        picture = np.asarray(decoded)
        masks = [decode_mask(each["mask"], width=decoded.width, height=decoded.height) for each in plan["changes"]]
        if not all(mask.any() for mask in masks):
            raise BadImageError("empty_mask", "a segment covers no pixel")
        return picture, masks

    def _check(self, source: np.ndarray, drawn: np.ndarray, masks: list[np.ndarray], plan: Plan) -> PictureFinding:
        if self._verifier is None:
            return Standing(True)
        wanted = {each["slot"]: json.loads(each["new"]) for each in plan["changes"]}
        return self._verifier.check(source, drawn, {each["slot"]: mask for each, mask in zip(plan["changes"], masks, strict=True)}, wanted)

    def _row(self, plan: Plan) -> Row:
        name, revision, sampling = self._setting.editor
        slots = [
            {
                "slot": each["slot"],
                "reference_id": each["references"][0],
                "read": None,
                **{n: each[n] for n in ("mask_sha256", "old", "new")},
            }
            for each in plan["changes"]
        ]
        return {
            **{name: plan[name] for name in (*IDENTITY_COLUMNS, "edit_id", "caption_kind", "original", "text")},
            "person_id": None,
            "source_person_id": plan["person_id"],
            "synthetic": True,
            "row_id": plan["edit_id"],
            "kind": EDIT,
            "key": plan["key"],
            "source_image_id": plan["image_id"],
            "source_sha256": plan["image_sha256"],
            "slots": slots,
            "editor": name,
            "revision": revision,
            "fingerprint": sampling,
            "seed": None,
            "tries": 0,
            "status": "failed",
            "reason": None,
        }


def _noted(standing: PictureFinding, slots: list[Row], worn: list[tuple[str, str]]) -> Row:
    """What a try leaves on the row, whether it stands or not."""
    read = [
        slot | {"reference_id": reference, "read": json.dumps(standing.read[slot["slot"]]) if slot["slot"] in standing.read else None}
        for slot, (_, reference) in zip(slots, worn, strict=True)
    ]
    return {"slots": read, "status": "rejected", "reason": standing.reason}


def _finished(picture: np.ndarray, plan: Plan, worn: list[tuple[str, str]]) -> Row:
    data = encode_png(picture)
    return {
        "status": "ok",
        "reason": None,
        "image": data,
        "image_sha256": sha256(data).hexdigest(),
        "image_id": f"edited/{plan['edit_id']}.png",
        "width": picture.shape[1],
        "height": picture.shape[0],
        "person_id": new_person_id(plan["who"], worn),
    }


def difference_outside(source: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> float | None:
    """Mean absolute grey levels between two pictures (uint8 [H, W, 3]) where the mask is not; None if it is everywhere."""
    outside = ~mask
    if not outside.any():
        return None
    return float(np.abs(source[outside].astype(np.int16) - drawn[outside]).mean())


def encode_png(picture: np.ndarray) -> bytes:
    """PNG of uint8 [H, W, 3], so that pixels which nobody edited stay those of the source."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
