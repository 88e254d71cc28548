"""Editing people: what could dress them in things of pictures that score, or say of a segment what is not so."""

from __future__ import annotations

from mutation import Mutation

_BANK = ("tests/unit/edit/bank/test_references_job.py",)
_PARSING = "tests/unit/edit/human_parsing/"

MUTATIONS = (
    Mutation(
        "a picture that is in a split that scores, too, gives a reference",
        "reid_ray/edit/bank/from_images.py",
        '    if row["image_sha256"] in held_out:',
        "    if False:",
        _BANK,
    ),
    Mutation(
        "a reference keeps what was round it",
        "reid_ray/edit/bank/cut_out.py",
        "[np.where(mask[..., None], picture, 0),",
        "[picture,",
        _BANK,
    ),
    Mutation(
        "a caption that names two garments is linked to one",
        "reid_ray/attributes/mentions.py",
        "things[mention.slot] == 1",
        "things[mention.slot] >= 1",
        ("tests/unit/attributes/test_mentions.py",),
    ),
    Mutation(
        "which things of a caption are linked depends on their order",
        "reid_ray/edit/human_parsing/linked.py",
        "key=lambda slot: _lot(caption.caption_id, slot)",
        "key=lambda slot: 0",
        (_PARSING + "test_linked.py",),
    ),
    Mutation(
        "an image that cannot be decoded has no rows",
        "reid_ray/edit/human_parsing/found.py",
        "for place, row in enumerate(rows) for slot in self._slots]",
        "for place, row in enumerate(rows) if place in masks for slot in self._slots]",
        (_PARSING + "test_parsed.py",),
    ),
    Mutation(
        "a counterfactual changes the moment, too",
        "reid_ray/data/synthetic/people.py",
        "drawn = [self._scene.draw_with_parts(shots, each) for each in (people, others)]",
        "drawn = [self._scene.draw_with_parts(draw_shots(self.config, np.asarray(indices) + (each is others)), each) "
        "for each in (people, others)]",
        ("tests/unit/data/synthetic/test_segments.py",),
    ),
)
