"""torch's DataLoader over WebDataset and over Hugging Face datasets, as their users write it, beside this project's feed; for prepare.py.

All three read the same rows on the same machine's disk and do the same with each: the same decoder, resizing, augmentation, normalisation
and tokenizer. WebDataset reads shards of 1,000 images in a random order through a buffer of 5,000 samples, Hugging Face datasets draws
rows at random from one memory-mapped Arrow file, a batch at a time. An image gives one of its captions, drawn at random. Two processes
work for them, two threads for the feed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.synthetic_rows import CAPTIONS_EACH, ROWS
from reid_ray.data.images import decode_image
from reid_ray.model.dual.preprocess import ImageTransform
from reid_ray.model.dual.tokenizer import train_tokenizer
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.towers import PairCollate
from reid_ray.train.feed.augment import augment, fill_of
from reid_ray.train.feed.config import BatchesConfig
from reid_ray.train.feed.loader import Feed

_SHARD, _BUFFER, _CONTEXT = 1_000, 5_000, 64
Batches = Callable[[], Iterator[Any]]


class Work:
    """What becomes of a sample, in whichever process or thread; held equal.

    Args:
        batches: augmentation.
        texts: some captions, to make the tokenizer from.
        height: of the model's pictures.
        width: of the model's pictures.
    """

    def __init__(self, batches: BatchesConfig, texts: Iterable[str], *, height: int, width: int) -> None:
        self.transform, self._batches = ImageTransform(height, width), batches
        self.fill = fill_of(batches.fill, mean=self.transform.mean, std=self.transform.std)
        self.collate = PairCollate(self.transform, train_tokenizer(texts, vocab_size=1000, context=_CONTEXT), context=_CONTEXT)
        self._draw: np.random.Generator | None = None

    @property
    def draw(self) -> np.random.Generator:
        """Random numbers of this process."""
        if self._draw is None:
            info = torch.utils.data.get_worker_info()
            self._draw = np.random.default_rng(info.seed if info is not None else 0)
        return self._draw

    def picture(self, data: bytes) -> np.ndarray:
        """An encoded picture, decoded, resized and augmented."""
        changes: Any = {name: getattr(self._batches, name) for name in ("flip", "crop_padding", "erase", "colour")}
        return augment(self.transform.resize(decode_image(data)), self.draw, **changes, fill=self.fill)

    def batch(self, samples: list[tuple[np.ndarray, str]]) -> dict[str, torch.Tensor]:
        """A batch as the model takes it."""
        pictures, texts = zip(*samples, strict=True)
        return self.collate(list(pictures), list(texts))


def feed(prepared: Path, job: TrainJob, work: Work) -> Batches:
    """The feed over what prepare_pairs wrote."""
    made = Feed(
        prepared,
        job.batches,
        rewrite_share=0,
        resize=work.transform.resize,
        fill=work.fill,
        collate=work.collate,
        rank=0,
        world=1,
    )
    return lambda: made.batches(0, 1 << 40)


def write_rivals(folder: Path, rows: Iterator[tuple[list[str], pa.Table]]) -> tuple[Path, Path]:
    """(webdataset/, hf.arrow): shards of 1,000 images, NAME.jpg and NAME.json; one Arrow file, as Dataset.from_generator leaves it."""
    from datasets import Features
    from datasets.arrow_writer import ArrowWriter

    shards, file = folder / "webdataset", folder / "hf.arrow"
    shards.mkdir()
    with ArrowWriter(path=str(file), features=Features.from_arrow_schema(ROWS)) as writer:
        for ids, table in rows:
            writer.write_table(table, writer_batch_size=1000)
            for start in range(0, len(ids), _SHARD):
                _write_shard(shards / f"{ids[start]}.tar", ids[start : start + _SHARD], table.slice(start, _SHARD))
        writer.finalize()
    return shards, file


def _write_shard(file: Path, ids: list[str], rows: pa.Table) -> None:
    with tarfile.open(file, "w") as tar:
        for name, image, captions in zip(ids, rows["image"].to_pylist(), rows["captions"].to_pylist(), strict=True):
            for suffix, data in (("jpg", image), ("json", json.dumps({"captions": captions}).encode())):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def webdataset(folder: Path, job: TrainJob, work: Work) -> Batches:
    """Shuffled shards, a shuffle buffer, batches made in the worker."""
    import webdataset as wds

    def sample(found: dict[str, bytes]) -> tuple[np.ndarray, str]:
        captions = json.loads(found["json"])["captions"]
        return work.picture(found["jpg"]), captions[int(work.draw.integers(len(captions)))]

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(_BUFFER).map(sample)
    batched = dataset.batched(job.batches.size, collation_fn=work.batch, partial=False)
    loader = wds.WebLoader(batched, batch_size=None, num_workers=job.batches.threads, persistent_workers=True)
    return lambda: _epochs(loader)


def hf_datasets(file: Path, job: TrainJob, work: Work) -> Batches:
    """Rows at random, a batch in one access, worked on by its transform."""
    from datasets import Dataset

    def transform(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        choice = work.draw.integers(CAPTIONS_EACH, size=len(found["image"]))
        texts = [captions[number] for captions, number in zip(found["captions"], choice, strict=True)]
        return {"sample": [(work.picture(image), text) for image, text in zip(found["image"], texts, strict=True)]}

    dataset = Dataset.from_file(str(file)).with_transform(transform)
    loader: Any = torch.utils.data.DataLoader(
        dataset,
        batch_size=job.batches.size,
        shuffle=True,
        drop_last=True,
        num_workers=job.batches.threads,
        persistent_workers=True,
        collate_fn=lambda rows: work.batch([row["sample"] for row in rows]),
    )
    return lambda: _epochs(loader)


def _epochs(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader
