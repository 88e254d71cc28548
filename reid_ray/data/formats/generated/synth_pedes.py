"""SYNTH-PEDES (Zuo et al., NeurIPS 2024): Part1/ to Part11/ with a folder per person, and synthpedes_dataset.json.

Entries are {id, file_path, attributes, captions, prompt_caption}; the file is also met as synthpedes-dataset.json. Every image has two or
three captions by a captioning model and one made of its attributes by a prompt. There is no split.
"""

from __future__ import annotations

import json

from reid_ray.data.containers.json_captions import Entry, JsonLayout, captions_under, find_annotations, read_json_captions
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, Records
from reid_ray.storage.file_systems import Store

DATASET = "SYNTH-PEDES"
ANNOTATIONS = ("synthpedes_dataset.json", "synthpedes-dataset.json")
CAPTIONER = "spac"
OF_ATTRIBUTES = "prompt_caption"


def read_synth_pedes(store: Store, source: SourceConfig) -> Records:
    """One record per image; image_id is file_path; attributes are the list as it is: {"attributes": ["man,black hair,..."]}."""
    file = find_annotations(store, source.annotations, ANNOTATIONS, DATASET)
    layout = JsonLayout(source.name or DATASET, "file_path", images="", captions=_captions, attributes=_attributes, unsplit=True)
    yield from read_json_captions(store, file, layout)


def _captions(entry: Entry) -> tuple[Caption, ...]:
    own = captions_under(entry, "captions", kind="static", captioner=CAPTIONER, instruction_id="captions")
    if OF_ATTRIBUTES not in entry:
        return own
    return own + captions_under(entry, OF_ATTRIBUTES, kind="static", captioner=CAPTIONER, instruction_id=OF_ATTRIBUTES)


def _attributes(entry: Entry) -> str | None:
    return json.dumps({"attributes": entry["attributes"]}) if isinstance(entry.get("attributes"), list) else None
