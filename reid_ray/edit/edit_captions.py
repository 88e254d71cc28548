"""Captions of edited pictures by a language model, checked against the caption that a rule makes.

What is asked is Diverse Person's (Song et al., AAAI 2024): the original sentence, the list of the reference's attributes, answer with the
rewritten sentence; answers under 30 characters and refusals are no captions. Whether it says what was changed, and nothing else, is told by
its attribute agreement with the rule's caption [ours]: below the threshold, the rule's stands. Knows captions as rows; no picture, and not
who answers: the work on a caption is a generator that yields requests and returns rows.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.filters.agreement import compare_attributes
from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.ledger.content_keys import digest, prompt_fingerprint
from reid_ray.caption.ledger.row_keys import NOT_IN_KEY, key_of
from reid_ray.caption.prompts import fingerprint_text
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.edit.config import EditRewriterConfig
from reid_ray.edit.edit_rows import CAPTION, RULES_VERSION

Row = dict[str, Any]  # of edit_rows.EDIT_ROWS
Describing = Generator[list[Request], list[Any], list[Row]]

REQUEST = (
    "Rewrite the description of a person so that it has the new attributes, and leave all else as it is. Answer with the rewritten "
    "sentence only."
)
_THINGS = {"upper": "upper clothing", "lower": "lower clothing", "full": "clothing"}
# What an edit hands on to its caption's row.
_OF_THE_EDIT = ("edit_id", "source_image_id", "source_sha256", "editor", "caption_kind", "original", "dataset", "split", "camera_id")


def attribute_list(slots: Sequence[Mapping[str, Any]]) -> str:
    """The new attributes in words, "upper clothing: red, striped; hair: blond", of the column `slots` of EDITS."""
    said = {each["slot"]: ", ".join(json.loads(each["new"]).values()) for each in slots}
    return "; ".join(f"{_THINGS.get(slot, slot)}: {words}" for slot, words in said.items())


def edit_request(original: str, slots: Sequence[Mapping[str, Any]], *, instruction_first: bool) -> str:
    """What the language model is sent."""
    given = f"Description: {original}\nNew attributes: {attribute_list(slots)}"
    return f"{REQUEST}\n{given}" if instruction_first else f"{given}\n{REQUEST}"


class CaptionByModel:
    """The captions that a language model is asked for, with their keys.

    Args:
        config: the language model's section.
        revision: what identifies its weights.
    """

    def __init__(self, config: EditRewriterConfig, *, revision: str) -> None:
        self._config, self._revision = config, revision
        section = config.model_dump(mode="json", exclude={**NOT_IN_KEY, "share": True, "count": True})
        self.digest = digest("edit rewriter", RULES_VERSION, section)
        self.prompt = prompt_fingerprint(fingerprint_text(REQUEST, instruction_first=config.instruction_first), config.sampling)

    def caption_id(self, edit_id: str, original: str, text: str) -> str:
        """Id of the caption of an edit, from the source's caption and the rule's."""
        return digest("edited caption", edit_id, original, text, self._config.model, self._revision, self.prompt)

    def key(self, caption_id: str, edit_key: bytes) -> bytes:
        """The ledger's key of such a caption: it belongs to one picture."""
        return key_of(caption_id, edit_key.hex(), self.digest)


class EditDescriber:
    """Turns edits into works that ask a language model; holds none.

    Args:
        config: model, limits and thresholds.
        recipe: of the captions.
    """

    def __init__(self, config: EditRewriterConfig, *, recipe: CaptionByModel, revision: str) -> None:
        self._config, self._recipe, self._revision = config, recipe, revision

    def work(self, edit: Row) -> Describing:
        """The caption of an edit (a row of the ledger), asked for again until it agrees with the rule's or the tries are spent."""
        config, made = self._config, self._row(edit)
        for number in range(config.max_tries):
            prompt = edit_request(edit["original"], edit["slots"], instruction_first=config.instruction_first)
            request = Request([{"role": "user", "content": prompt}], f"{edit['described_id']} {number}")
            (reply,) = yield [request]
            made["tries"] += 1
            for name in ("tokens", "prompt_tokens", "cached_tokens"):
                made[name] += getattr(reply, name)
            try:
                text = self._said(reply)
            except BadAnswerError as error:
                made["reason"] = made["reason"] if made["text"] is not None else str(error)
                continue
            agreement = compare_attributes(edit["text"], text)
            if made["agreement"] is None or agreement.score > made["agreement"]:
                made |= {"text": text, "agreement": agreement.score, "status": "unfaithful"}
                made["reason"] = (
                    f"unfaithful: attribute agreement {agreement.score:.3f} is below {config.min_agreement:g} ({agreement.explain()})"
                )
            if agreement.score >= config.min_agreement:
                return [made | {"status": "ok", "reason": None}]
        return [made]

    def given_up(self, edit: Row, reason: str) -> list[Row]:
        """The caption as a failed row, without asking anybody."""
        return [self._row(edit) | {"reason": reason}]

    def _said(self, reply: Reply) -> str:
        if reply.text is None:
            raise BadAnswerError("rejected", str(reply.error))
        text = clean_answer(reply.text, finished=reply.finished, limits=self._config.limits, prompt=REQUEST)
        if len(text) < self._config.min_characters:
            raise BadAnswerError("too_short", f"{len(text)} characters")
        return text

    def _row(self, edit: Row) -> Row:
        counted = dict.fromkeys(("tries", "tokens", "prompt_tokens", "cached_tokens"), 0)
        return {
            **{name: edit[name] for name in _OF_THE_EDIT},
            **counted,
            "row_id": edit["described_id"],
            "kind": CAPTION,
            "key": edit["described_key"],
            "revision": self._revision,
            "fingerprint": self._recipe.prompt,
            "seed": self._config.sampling.seed,
            "text": None,
            "agreement": None,
            "status": "failed",
            "reason": None,
        }
