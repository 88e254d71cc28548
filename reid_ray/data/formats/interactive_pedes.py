"""Interactive-PEDES (LLaVA-ReID, ICML 2025): Interactive-PEDES_interactive_annos.json over images of CUHK-PEDES and ICFG-PEDES.

Entries are {split, id, file_path, captions, initial_description, fine-grained_description, questions, answers}; paths begin with the
data set that the image comes from (CUHK-PEDES/imgs/...). What people wrote (captions) is of kind human, the two descriptions by a model
are of kind static, told apart by instruction_id. Questions and answers have no table: they are in the image's attributes.
"""

from __future__ import annotations

import json

from reid_ray.data.containers.json_captions import Entry, JsonLayout, find_annotations, human_captions, read_json_captions
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, Records, caption_of
from reid_ray.storage.file_systems import Store

DATASET = "Interactive-PEDES"
ANNOTATIONS = "Interactive-PEDES_interactive_annos.json"
DESCRIPTIONS = ("initial_description", "fine-grained_description")
DIALOGUE = ("questions", "answers")


def read_interactive_pedes(store: Store, source: SourceConfig) -> Records:
    """One record per image; image_id is file_path; attributes are {"questions": [...], "answers": [...]}."""
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET)
    layout = JsonLayout(source.name or DATASET, "file_path", images="", captions=_captions, attributes=_dialogue)
    yield from read_json_captions(store, file, layout)


def _captions(entry: Entry) -> tuple[Caption, ...]:
    written = (caption_of(entry[key], kind="static", captioner="interactive", instruction_id=key) for key in DESCRIPTIONS if key in entry)
    return (*human_captions(entry), *written)


def _dialogue(entry: Entry) -> str | None:
    said = {key: entry[key] for key in DIALOGUE if isinstance(entry.get(key), list)}
    return json.dumps(said) if said else None
