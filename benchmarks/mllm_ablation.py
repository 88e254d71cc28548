"""What does each part of SyncReID do to person re-identification of synthetic people over several cameras?

    python benchmarks/mllm_ablation.py --out benchmarks/results/mllm_ablation-DATE.json [--quick]

The tiny Qwen2.5-VL that ships here is fine-tuned by adapters on language model and visual encoder, in the module and with the losses
of jobs/tune.py, in one process. Arms: the model before fine-tuning; language-model losses alone; these and ID + triplet on the visual
feature, on the latent feature, on both (SyncReID); and the common instruction against several specific ones. Test: images against
images of people never seen, Market protocol, mAP by the visual encoder's feature (the one that claims are about) and by the latent
one. A seed draws people, cameras, adapters and batches; differences are taken seed by seed, with 95 % t intervals. The setting was
fixed on seed 100, which is not in the table. Finished cells are kept beside --out (.jsonl), so a run that was cut off goes on; the cells
of the claims come first. --quick: one seed, few steps; it shows that the code runs, not what it is worth.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.base import fingerprint
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.traits import split_of
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.model_folder import open_mllm
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.retrieval.ranking.exact import rank_queries
from reid_ray.train.config import OptimizerConfig
from reid_ray.train.feed.batches import IdentityOrder
from reid_ray.train.mllm.config import InstructionConfig, TuneObjective
from reid_ray.train.mllm.module import CAPTION, IMAGE, SyncReid, inputs_of
from reid_ray.train.mllm.objective import build_tune_objective
from reid_ray.train.optimizer import build_optimizer, learning_rate

PILOT_SEED = 100
MODEL = MllmConfig(lora={"visual": ["qkv", "proj", "gate_proj", "up_proj", "down_proj"]})
ON, OFF = {"weight": 1.0}, {"weight": 0.0}


@dataclass(frozen=True)
class Size:
    """How long and on how much each cell trains."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    identities: int = 80
    test_share: float = 0.5
    steps: int = 24
    persons: int = 4
    per_person: int = 4
    lr: float = 1e-3


@dataclass(frozen=True)
class Arm:
    """Which terms train, and what is asked."""

    lm: bool = True
    visual: bool = False
    latent: bool = False
    instruction: str = "common"

    def objective(self) -> TuneObjective:
        """The terms of this arm."""
        lm, visual, latent = (ON if on else OFF for on in (self.lm, self.visual, self.latent))
        return TuneObjective.model_validate(
            {
                "lm_image": lm,
                "lm_caption": lm,
                "visual_id": visual,
                "visual_triplet": visual,
                "latent_id": latent,
                "latent_triplet": latent,
            }
        )


SYNC, LM, BEFORE = "LM + both (SyncReID)", "LM", "before"
ARMS = {
    LM: Arm(),
    SYNC: Arm(visual=True, latent=True),
    "LM + visual": Arm(visual=True),
    "LM + latent": Arm(latent=True),
    "LM, specific instructions": Arm(instruction="specific"),
    "LM + both, specific instructions": Arm(visual=True, latent=True, instruction="specific"),
}


class People:
    """The people of one seed: pictures, captions, identities, cameras, split."""

    def __init__(self, size: Size, seed: int) -> None:
        # The tiny model has learnt to caption the people of small seeds.
        config = SyntheticConfig(
            identities=size.identities, images_per_identity=4, cameras=4, seed=7_000_000 + seed, val_share=0, test_share=size.test_share
        )
        made = SyntheticPeople(config)
        self.pictures, self.captions = made.pictures(), made.captions()
        shots = made.shots()
        self.person_N, self.camera_N = np.asarray(shots.person_N), np.asarray(shots.camera_N)
        self.test_N = np.asarray(split_of(config))[self.person_N] == "test"

    def crops(self, rows: np.ndarray) -> list[Image.Image]:
        """Pictures of rows."""
        return [Image.fromarray(self.pictures[row]) for row in rows]


@lru_cache(maxsize=1)
def people_of(size: Size, seed: int) -> People:
    """Drawn once for all arms of a seed."""
    return People(size, seed)


def cell(arm_name: str | None, seed: int, size: Size) -> dict[str, Any]:
    """Train one arm on one seed (None: not at all) and score it on the test people."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    arm, people = ARMS[arm_name] if arm_name is not None else Arm(visual=True, latent=True), people_of(size, seed)
    opened = open_mllm(MODEL, seed=seed)
    chat = Chat(opened.processor, context=opened.mllm.context)
    torch.manual_seed(seed)
    train_rows = np.flatnonzero(~people.test_N)
    persons, person_S = np.unique(people.person_N[train_rows], return_inverse=True)
    module = SyncReid(opened.mllm, arm.objective(), persons=len(persons), gather=lambda feature_AD: (feature_AD, 0))
    losses: dict[str, float] = {}
    if arm_name is not None:
        losses = train(module, chat, arm, people=people, rows=train_rows, person_S=person_S, seed=seed, size=size)
    scores = {f"{name} mAP": value for name, value in evaluate(module, chat, people).items()}
    return {"arm": arm_name or BEFORE, "seed": seed, **scores, **losses, "seconds": round(time.perf_counter() - started, 1)}


def train(
    module: SyncReid, chat: Chat, arm: Arm, *, people: People, rows: np.ndarray, person_S: np.ndarray, seed: int, size: Size
) -> dict[str, float]:
    """size.steps steps of P x K; the loss terms of the last ten, averaged."""
    config = OptimizerConfig(name="adamw", lr=size.lr, weight_decay=0.01, heads_factor=1.0)
    optimizer, objective = build_optimizer(module, config), build_tune_objective(arm.objective())
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    order = IdentityOrder(
        person_S, np.arange(len(rows)), people.camera_N[rows], size=size.persons * size.per_person, per_identity=size.per_person, seed=seed
    )
    asked = InstructionConfig.model_validate({"kind": arm.instruction}).texts
    rng, kept = np.random.default_rng(seed), []
    module.train()
    for step in range(size.steps):
        sample_B = order.samples(step)
        chosen = rows[sample_B]
        instructions = [asked[n] for n in rng.integers(len(asked), size=len(chosen))]
        # Image and one caption are both to be continued by the image's other caption.
        shown = rng.integers(2, size=len(chosen))
        captions = [people.captions[row][n] for row, n in zip(chosen, shown, strict=True)]
        answers = [people.captions[row][1 - n] for row, n in zip(chosen, shown, strict=True)]
        batch = inputs_of(chat.picture_turns(people.crops(chosen), instructions, answers), IMAGE)
        batch |= inputs_of(chat.caption_turns(captions, instructions, answers), CAPTION)
        loss = objective(module(**batch), torch.from_numpy(person_S[sample_B]))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=size.steps, steps_per_epoch=size.steps, config=config) * group["factor"]
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        optimizer.step()
        kept.append({name: float(value) for name, value in loss.raw.items()})
    return {f"{name} loss": statistics.fmean(each[name] for each in kept[-10:]) for name in kept[0]}


@torch.inference_mode()
def evaluate(module: SyncReid, chat: Chat, people: People) -> dict[str, float]:
    """MAP of every test image against all others, those of its person on its own camera left out."""
    module.eval()
    rows = np.flatnonzero(people.test_N)
    found: dict[str, list[torch.Tensor]] = {"visual": [], "image": []}
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        features = module(**inputs_of(chat.picture_turns(people.crops(part), [""] * len(part)), IMAGE))
        for name, kept in found.items():
            kept.append(features[name])
    who, where = people.person_N[rows], people.camera_N[rows]
    truth = GroundTruth.image_to_image(who, who, query_camera_Q=where, gallery_camera_G=where)
    names = {"visual": "visual", "image": "latent"}
    return {names[name]: rank_queries(torch.cat(kept), torch.cat(kept), truth).results.mean_ap() for name, kept in found.items()}


def order_of(size: Size) -> Iterator[tuple[str | None, int]]:
    """The cells that the claims need first, seed by seed, then the others."""
    for first in (True, False):
        for seed in size.seeds:
            if first:
                yield None, seed
            for name in ARMS:
                if (name in (LM, SYNC)) == first:
                    yield name, seed


def measure(out: Path, size: Size) -> list[dict[str, Any]]:
    """All cells; those in the file beside `out` that were made with this setting are not made again."""
    setting = fingerprint({"size": size.__dict__ | {"seeds": None}, "model": MODEL.model_dump(mode="json")})
    kept = out.with_suffix(".jsonl")
    done = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.is_file() else []
    done = [row for row in done if row["setting"] == setting and row["seed"] in size.seeds]
    have = {(row["arm"], row["seed"]) for row in done}
    for name, seed in order_of(size):
        if (name or BEFORE, seed) in have:
            continue
        row = {**cell(name, seed, size), "setting": setting}
        done.append(row)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"{row['arm']}, seed {seed}: visual {row['visual mAP']:.3f}, latent {row['latent mAP']:.3f}, {row['seconds']} s", flush=True)
    return done


def summarise(report: Report, rows: list[dict[str, Any]]) -> None:
    """A row per arm; differences to SyncReID and between instructions seed by seed; the claims."""
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["seed"]] = row
    for name, cells in by_arm.items():
        for feature in ("visual mAP", "latent mAP"):
            mean, half = interval([each[feature] for each in cells.values()])
            report.row(arm=name, feature=feature, seeds=len(cells), mean=mean, t95=half)
    pairs = [(SYNC, BEFORE), (SYNC, LM), (SYNC, "LM + visual"), (SYNC, "LM + latent"), (LM, BEFORE)]
    pairs += [(LM, "LM, specific instructions"), (SYNC, "LM + both, specific instructions")]
    for ours, other in pairs:
        seeds = sorted(by_arm.get(ours, {}).keys() & by_arm.get(other, {}).keys())
        for feature in ("visual mAP", "latent mAP"):
            gains = [by_arm[ours][seed][feature] - by_arm[other][seed][feature] for seed in seeds]
            if not gains:
                continue
            mean, half = interval(gains)
            wins = sum(gain > 0 for gain in gains)
            report.row(arm=f"{ours} less {other}", feature=feature, seeds=len(seeds), mean=mean, t95=half, wins=wins)
            if ours == SYNC and other in (BEFORE, LM) and feature == "visual mAP" and len(seeds) > 1:
                report.claim(f"{ours} beats {other} in visual mAP: seeds of {len(seeds)}", wins, ">=", 4 if len(seeds) == 5 else len(seeds))


def interval(values: list[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % t interval (None for one value)."""
    if len(values) < 2:
        return values[0], None
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(half)


def run(report: Report, quick: bool) -> None:
    size = Size(seeds=(0,), identities=16, steps=2) if quick else Size()
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    summarise(report, measure(out, size))


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
