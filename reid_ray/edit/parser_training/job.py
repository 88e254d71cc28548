"""The train_parser job: trains the human parser that ships with this repository, and compares its masks with the truth.

Knows how masks are judged; not architecture, loss or drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image, encode_jpeg
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.edit.human_parsing.config import HumanParserConfig
from reid_ray.edit.human_parsing.parsed import HumanParser
from reid_ray.edit.parser_training.config import TrainParserJob
from reid_ray.model.tiny.tiny_segformer import train_tiny_segformer
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.terminal.own_lines import say

_BATCH = 64


def run_train_parser(config: TrainParserJob) -> dict[str, Any]:
    """Train, save, parse held-out people, write the scores into the manifest. Returns the manifest."""
    output = JobOutput("train_parser", config.output.path, config, if_exists=config.output.if_exists)
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        out.facts["loss"] = train_tiny_segformer(out.folder, config.training, seed=config.seed)
        parser = HumanParser.open(HumanParserConfig(model=str(out.folder)))
        out.facts["overlap"] = overlap_with_truth(parser, config.test_people, config.test_images)
        out.counts.read = out.counts.written = config.test_images
    manifest = read_manifest(config.output.path)
    found = ", ".join(f"{slot} {share:.3f}" for slot, share in manifest["facts"]["overlap"].items())
    say(f"train_parser: intersection over union on {config.test_images} held-out pictures: {found} -> {config.output.path}")
    return manifest


def overlap_with_truth(parser: HumanParser, people: SyntheticConfig, images: int) -> dict[str, float]:
    """Slot -> intersection over union of its pixels on the first `images` pictures of `people`, as JPEG, all pictures together."""
    crowd = SyntheticPeople(people)
    truth_NSHW = crowd.masks(0, images)
    shared, either = np.zeros(len(SLOTS)), np.zeros(len(SLOTS))
    for start in range(0, images, _BATCH):
        pixels = crowd.pictures(start, min(start + _BATCH, images))
        pictures = [decode_image(encode_jpeg(Image.fromarray(each))) for each in pixels]
        for place, found in enumerate(parser.masks(pictures), start=start):
            for number, slot in enumerate(SLOTS):
                own_HW = found.get(slot, np.zeros(truth_NSHW.shape[2:], bool))
                shared[number] += (own_HW & truth_NSHW[place, number]).sum()
                either[number] += (own_HW | truth_NSHW[place, number]).sum()
    return {slot: round(float(shared[n] / either[n]), 4) if either[n] else 0.0 for n, slot in enumerate(SLOTS)}
