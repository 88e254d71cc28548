"""The grid of training arms: few photographed people, and pictures of others that were made of them, for the same number of steps.

An arm says what is put beside the photographs, on half of every batch: pictures of new people as an editor drew them or as they would have
been drawn, with new or old captions. The set of edits is the same in all arms: those that the verifier lets stand, of up to three drawings
each. Knows tables, the feed and the losses of the train job; the loop is plain torch, for thirty runs of Ray Train would be thirty starts.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.ablation.start import train_start
from benchmarks.diverse.edit_cases import TASKS, EditCase, ReferenceBank, cases_of, people_of
from reid_ray.config.base import fingerprint, load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.verify.verifier import EditedPicture, Verifier
from reid_ray.model.dual.dual_encoder import DualEncoder
from reid_ray.model.editor.edit_request import EditReference, EditRequest, PictureEditor
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.retrieval.ranking.exact import rank_queries
from reid_ray.storage import Counts
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.towers import PairCollate, TwoTowers
from reid_ray.train.feed.augment import fill_of
from reid_ray.train.feed.loader import Feed
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.losses.objective import build_objective

ARMS = ("real", "text only", "image with old captions", "both", "real repeated", "oracle")
# Seeds of people, far apart: those that the start has seen, those of references; training's and testing's are 30,000 + seed, so that the
# people of testing are others, seen by the cameras that photographed those of training, as in a data set.
_START_PEOPLE, _BANK_PEOPLE, _TRAIN_PEOPLE = 900_000, 940_000, 30_000
_TRIES = 3
_NEW_PERSON = 100_000


@dataclass(frozen=True)
class GridSize:
    """What all arms share. Chosen so that `real` alone learns, before any other arm was run."""

    start_people: int = 2000
    start_steps: int = 150
    people: int = 100  # photographed, of training
    pictures: int = 2  # of each, as of those of testing
    steps: int = 300
    batch: int = 32
    share: float = 0.5
    rate: float = 1e-3
    test_people: int = 200  # two human captions a picture
    bank_people: int = 800

    @classmethod
    def quick(cls) -> GridSize:
        """Seconds, to see that it works."""
        return cls(start_people=128, start_steps=20, people=12, pictures=2, steps=20, batch=8, test_people=30, bank_people=200)


class Grid:
    """Runs arms in a work folder; a finished arm of a seed is a line of grid.jsonl there, by all that it was made with.

    Args:
        work: the folder.
        size: the setting.
        editor: draws.
        verifier: says what stands.
    """

    def __init__(self, work: Path, size: GridSize, editor: PictureEditor, verifier: Verifier) -> None:
        self._size, self._editor, self._verifier, self._setting = size, editor, verifier, (work, size, editor, verifier)
        mark = fingerprint({"size": asdict(size), "editor": [editor.revision, editor.sampling], "verifier": verifier.revision})
        self._work, self._file = work / mark, work / mark / "grid.jsonl"
        self._work.mkdir(parents=True, exist_ok=True)
        self._found = self._lines()

    def score(self, arm: str, seed: int) -> dict[str, Any]:
        """{"r1", "start_r1", "kept_of_made", "edits"} of an arm and seed."""
        if (arm, seed) not in self._found:
            line = {"arm": arm, "seed": seed, **self._run(arm, seed)}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._found[arm, seed] = line
        return self._found[arm, seed]

    def fill(self, seeds: int, processes: int) -> None:
        """Runs what is not there yet, a seed's arms in one process, and reads all of it."""
        self._start.is_dir()  # made once, before anybody needs it
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for done in [pool.submit(_fill_seed, self._setting, seed) for seed in range(seeds)]:
                done.result()
        self._found = self._lines()

    def _lines(self) -> dict[tuple[str, int], dict[str, Any]]:
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        return {(line["arm"], line["seed"]): line for line in map(json.loads, lines)}

    def _run(self, arm: str, seed: int) -> dict[str, Any]:
        edits = self._edits(seed)
        folder = self._work / f"{arm.replace(' ', '-')}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        people = self._people(seed)
        write(folder, "photographs", people.image_table().to_pylist(), people.caption_table().to_pylist())
        beside = rows_beside(arm, people, edits)
        if beside is not None:
            write(folder, "beside", *beside)
        r1 = self._trained(folder, seed, mixed=beside is not None)
        shutil.rmtree(folder)
        made = sum(edit.made for edit in edits)
        stood = sum(edit.drawn is not None for edit in edits)
        return {"r1": r1, "start_r1": self._start_r1(seed), "kept_of_made": stood / made, "edits": stood}

    def _people(self, seed: int) -> SyntheticPeople:
        people = people_of(self._size.people, _TRAIN_PEOPLE + seed, images=self._size.pictures)
        return SyntheticPeople(people.config.model_copy(update={"val_share": 0.0, "test_share": 0.0}))

    def _edits(self, seed: int) -> list[_Edit]:
        """Every case of the seed's people, drawn until it stands or the tries are spent; kept for the arms that follow."""
        if self._kept is None or self._kept[0] != seed:
            people = self._people(seed)
            edits = [_Edit(case, None, 0) for task in TASKS for case in cases_of(people, self._bank, task, seed=seed)]
            for attempt in range(_TRIES):
                open_ = [number for number, edit in enumerate(edits) if edit.drawn is None]
                drawn = self._editor.edit([request_of(edits[number].case, attempt) for number in open_])
                verdicts = self._verifier.check_all(
                    [judged_as(edits[number].case, picture) for number, picture in zip(open_, drawn, strict=True)]
                )
                for number, picture, verdict in zip(open_, drawn, verdicts, strict=True):
                    edits[number] = replace(edits[number], made=attempt + 1, drawn=picture if verdict.stands else None)
            self._kept = (seed, edits)
        return self._kept[1]

    _kept: tuple[int, list[_Edit]] | None = None

    @cached_property
    def _bank(self) -> ReferenceBank:
        return ReferenceBank(people_of(self._size.bank_people, _BANK_PEOPLE))

    @cached_property
    def _start(self) -> Path:
        folder = self._work / "start"
        if not (folder / "config.json").is_file():
            train_start(folder, people=self._size.start_people, steps=self._size.start_steps, depth=0.67, seed=_START_PEOPLE)
            (folder / "manifest.json").unlink()  # which names the weights as they were when the encoder was built
        return folder

    def _start_r1(self, seed: int) -> float:
        encoder = load_encoder(self._start)
        assert isinstance(encoder, DualEncoder)
        return self._r1(encoder, seed)

    def _trained(self, folder: Path, seed: int, *, mixed: bool) -> float:
        """R@1 after the steps."""
        names = ["photographs", "beside"] if mixed else ["photographs"]
        size = self._size
        config = load_config(
            TrainJob,
            None,
            [
                f"images.path={folder}/photographs/images.parquet",
                f"captions.paths=[{','.join(f'{folder}/{name}/captions.parquet' for name in names)}]",
                *([f"images.further=[{folder}/beside/images.parquet]", f"batches.edited_share={size.share}"] if mixed else []),
                *("images.val_split=null", f"batches.size={size.batch}", f"batches.seed={seed}", "captions.rewrite_share=0"),
                *("workers.count=1", "output.path=out"),
            ],
        )
        data = folder / "data"
        data.mkdir()
        prepare_pairs(config, data, Counts())
        encoder = load_encoder(self._start)
        assert isinstance(encoder, DualEncoder)
        torch.manual_seed(seed)
        transform = encoder.transform
        feed = Feed(
            data,
            config.batches,
            rewrite_share=0.0,
            resize=transform.resize,
            fill=fill_of(config.batches.fill, mean=transform.mean, std=transform.std),
            collate=PairCollate(transform, encoder.tokenizer, context=encoder.context),
            rank=0,
            world=1,
        )
        module, objective = TwoTowers(encoder).train(), build_objective(config.objective)
        optimizer = torch.optim.AdamW(module.parameters(), lr=size.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, size.rate, total_steps=size.steps, pct_start=0.1)
        for batch in feed.batches(0, size.steps):
            loss = objective(module(**batch.inputs), batch.person_A).total
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        state = {name: weight.detach() for name, weight in module.state_dict().items()}
        return self._r1(module.encoder_with(state, temperature=0.02), seed)

    def _r1(self, encoder: DualEncoder, seed: int) -> float:
        """Text to image, on people who are not of training, all their captions against all their pictures."""
        size = self._size
        everyone, first = people_of(size.people + size.test_people, _TRAIN_PEOPLE + seed, images=size.pictures), size.people * size.pictures
        person_N = everyone.shots(first).person_N
        image_ND = encoder.encode_images([Image.fromarray(pixels) for pixels in everyone.pictures(first)])
        text_QD = encoder.encode_texts([text for pair in everyone.captions(first) for text in pair])
        truth = GroundTruth.text_to_image(np.repeat(person_N, 2), person_N)
        return float(rank_queries(text_QD, image_ND, truth, top_k=1).results.summary()["r1"])


def _fill_seed(setting: tuple[Path, GridSize, PictureEditor, Verifier], seed: int) -> None:
    """Every arm of a seed, in a process of its own."""
    torch.set_num_threads(1)
    grid = Grid(*setting)
    for arm in ARMS:
        grid.score(arm, seed)


@dataclass(frozen=True)
class _Edit:
    """A case, the drawing that stands (None: none did) and how many were made."""

    case: EditCase
    drawn: np.ndarray | None
    made: int


def request_of(case: EditCase, attempt: int) -> EditRequest:
    """What the editor is asked; another seed for another attempt."""
    return EditRequest(case.source, case.mask, case.prompt, (EditReference(*case.noun, case.crop),), seed=case.index * _TRIES + attempt)


def judged_as(case: EditCase, picture: np.ndarray) -> EditedPicture:
    """An edit for the verifier."""
    return EditedPicture(case.source, picture, {case.slot: case.mask}, {case.slot: {case.attribute: case.value}})


Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def rows_beside(arm: str, people: SyntheticPeople, edits: Sequence[_Edit]) -> Rows | None:
    """(images, captions) of what an arm learns from beside the photographs; None: nothing."""
    if arm == "real":
        return None
    images, captions = people.image_table().to_pylist(), people.caption_table().to_pylist()
    if arm == "real repeated":
        copies = [{**row, "image_id": f"copy/{row['image_id']}", "synthetic": True} for row in images]
        return copies, [{**row, "caption_id": f"copy/{row['caption_id']}", "image_id": f"copy/{row['image_id']}"} for row in captions]
    pictures: dict[str, Callable[[_Edit], Any]] = {
        "text only": lambda edit: edit.case.source,
        "image with old captions": lambda edit: edit.drawn,
        "both": lambda edit: edit.drawn,
        "oracle": lambda edit: edit.case.answer,
    }
    made: Rows = ([], [])
    tasks = list(TASKS)
    for edit in edits:
        if edit.drawn is None:
            continue
        source = images[edit.case.index]
        image_id = f"edited/{edit.case.attribute}/{source['image_id']}"
        person = _NEW_PERSON + source["person_id"] * len(tasks) + tasks.index(edit.case.attribute)
        who: Mapping[str, Any] = {"dataset": source["dataset"], "split": "train", "person_id": person, "camera_id": source["camera_id"]}
        data = encode_jpeg(Image.fromarray(pictures[arm](edit)), quality=90)
        made[0].append({"image_id": image_id, "image": data, **who, "synthetic": True})
        text = edit.case.old if arm == "image with old captions" else edit.case.caption
        made[1].append(
            {"caption_id": image_id, "image_id": image_id, "kind": "human", "text": text, "status": "ok", **who, "synthetic": True}
        )
    return made


def write(folder: Path, name: str, images: list[dict[str, Any]], captions: list[dict[str, Any]]) -> None:
    """Two tables."""
    (folder / name).mkdir()
    pq.write_table(table_of(IMAGES, images), folder / name / "images.parquet")
    pq.write_table(table_of(CAPTIONS, captions), folder / name / "captions.parquet")
