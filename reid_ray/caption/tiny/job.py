"""The captioner job: trains the tiny multimodal LLM that ships with this repository and evaluates it through vLLM.

Knows which instructions the caption job asks and how answers are judged; not architecture, loss or drawing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from reid_ray.caption.config import SamplingConfig, VllmConfig
from reid_ray.caption.engines.protocol import ChatEngine
from reid_ray.caption.engines.vllm_engine import Engine
from reid_ray.caption.prompts import DYNAMIC, STATIC, TEMPLATES, dynamic_instruction
from reid_ray.caption.tiny.config import CaptionerJob
from reid_ray.config.common import PoolConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople, score_caption
from reid_ray.data.synthetic.traits import ATTRIBUTES
from reid_ray.model.tiny.tasks import answer
from reid_ray.model.tiny.tiny_training import train_tiny_mllm
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.terminal.own_lines import say

_BATCH = 64


def run_captioner(config: CaptionerJob) -> dict[str, Any]:
    """Train, save, caption held-out people through vLLM, write the scores into the manifest. Returns the manifest."""
    output = JobOutput("captioner", config.output.path, config, if_exists=config.output.if_exists)
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        history = train_tiny_mllm(out.folder, config.training, seed=config.seed, instructions=training_instructions())
        out.facts["loss"] = history
        out.facts["accuracy"] = measure_captioner(captioner_engine(out.folder), config.test_people, config.test_images)
        out.counts.read = out.counts.written = 2 * config.test_images
    manifest = read_manifest(config.output.path)
    for kind, score in manifest["facts"]["accuracy"].items():
        say(f"captioner: {kind}: {score['right']} of {score['said']} attribute words right ({score['share']:.1%})")
    say(f"captioner: {out.counts} held-out captions -> {config.output.path}")
    return manifest


def training_instructions() -> list[str]:
    """What the caption job may ask: the static instruction one time in three, else one of the templates."""
    return [STATIC] * (len(TEMPLATES) // 2) + [DYNAMIC.format(template=template) for template in TEMPLATES.values()]


def captioner_engine(folder: str | Path) -> Engine:
    """The vLLM engine that the caption job would start for `folder` on a CPU, decoding greedily."""
    return Engine(str(folder), revision=None, config=VllmConfig(), sampling=SamplingConfig(), images=1, pool=PoolConfig())


def measure_captioner(engine: ChatEngine, people: SyntheticConfig, images: int) -> dict[str, Any]:
    """Caption the first `images` pictures of `people`, by each kind of instruction, and judge every attribute word.

    Returns:
        kind of instruction -> right, said, share, share per attribute, missed (visible attributes that the expected caption names and
        the given one does not), as_asked (share of answers that are word for word the expected ones).
    """
    crowd = SyntheticPeople(people)
    pictures = [Image.fromarray(pixels) for pixels in crowd.pictures(0, images)]
    truth, hidden = crowd.attributes(0, images), crowd.hidden(0, images)
    asked = {"static": [STATIC] * images, "dynamic": [dynamic_instruction(f"held out {n}").text for n in range(images)]}
    result = {}
    for kind, instructions in asked.items():
        texts = generate_captions(engine, pictures, instructions)
        expected = [answer(text, attributes, unseen) for text, attributes, unseen in zip(instructions, truth, hidden, strict=True)]
        result[kind] = judge_captions(texts, truth, hidden) | {
            "as_asked": round(sum(text == wanted for text, wanted in zip(texts, expected, strict=True)) / images, 4),
            "samples": texts[:3],
        }
    return result


def generate_captions(engine: ChatEngine, pictures: Sequence[Image.Image], instructions: Sequence[str]) -> list[str]:
    """One answer per picture and instruction; "" where the engine gave none."""
    texts: list[str] = []
    for start in range(0, len(pictures), _BATCH):
        batch = zip(pictures[start : start + _BATCH], instructions[start : start + _BATCH], strict=True)
        conversations = [[{"role": "user", "content": _content(picture, text)}] for picture, text in batch]
        texts += [reply.text or "" for reply in engine.chat(conversations, [str(start + n) for n in range(len(conversations))])]
    return texts


def judge_captions(texts: Sequence[str], truth: Sequence[Mapping[str, str]], hidden: Sequence[Collection[str]]) -> dict[str, Any]:
    """Attribute words right and said over all texts, in all and by attribute."""
    said: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed = 0
    right = 0
    for text, attributes, unseen in zip(texts, truth, hidden, strict=True):
        score = score_caption(text, attributes, unseen)
        right += score.right
        missed += len(score.missed)
        said.update(claim.attribute for claim in score.claims)
        wrong.update(claim.attribute for claim in score.wrong)
    total = sum(said.values())
    return {
        "images": len(texts),
        "right": right,
        "said": total,
        "share": round(right / total, 4) if total else 0.0,
        "missed": missed,
        "by_attribute": {name: round(1 - wrong[name] / said[name], 4) for name in ATTRIBUTES if said[name]},
    }


def _content(picture: Image.Image, text: str) -> list[dict[str, Any]]:
    return [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": text}]
