"""The plausibility job: a table of captions and its pictures -> whether they can be true, in numbers.

Knows where captions and pictures lie, and passes over them: the captions once, as they stream by, and a sample of the pictures. What is
measured is evidence.py's, what it means judgement.py's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from reid_ray.caption.plausibility.config import PlausibilityConfig, PlausibilityJob, TextLimits
from reid_ray.caption.plausibility.crop_looks import CropLooks, look_at
from reid_ray.caption.plausibility.drawn_captions import COLUMNS, CaptionSamples
from reid_ray.caption.plausibility.guesses import COLUMNS as OF_GUESSES
from reid_ray.caption.plausibility.guesses import GUESSES, GuessCount, guesses_in_words
from reid_ray.caption.plausibility.judgement import NOT_JUDGED, TrustedScore, in_words, judge, trusted_score
from reid_ray.caption.plausibility.scores import PairEncoder, refuse_absent_encoder
from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.doubted_captions import PLAUSIBILITY
from reid_ray.data.sources import ImageListing, image_listing, iter_images
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS
from reid_ray.storage import JobOutput, iter_table
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say


def run_plausibility(config: PlausibilityJob) -> dict[str, Any]:
    """Run the job; returns the manifest, whose facts are those of judgement.judge.

    Raises:
        DataError: the table is missing or holds no caption, the images cannot be listed, or none that was looked at has a caption.
    """
    output = JobOutput("plausibility", config.output.path, config, if_exists=config.output.if_exists, inputs={"captions": config.captions})
    if (earlier := output.kept()) is not None:
        return earlier
    refuse_absent_encoder(config.limits, "limits")
    with output:
        listing = None if config.images is None else image_listing(config.images)
        guesses = GuessCount()
        seen = PlausibilityCheck(config.limits, config.images, listing, score_trusted(config.limits))
        for table in _tables(config, output, guesses):
            seen.samples.add(table)
        facts = seen.judged()
        if facts["verdict"] == NOT_JUDGED and not facts["captioners"]:
            raise DataError(f"{config.captions}: holds no caption that is ok and no rewrite; give the captions/ of a job")
        looked = _looked_in_words(config, seen)
        output.facts.update({**facts, GUESSES: guesses.facts()})
        manifest = output.manifest()
    if guessed := guesses.facts():
        say(f"plausibility: {guesses_in_words(guessed)}")
    say(f"plausibility: {counted(output.counts.read, 'caption')}: {in_words(facts)}{looked} -> {config.output.path}")
    return manifest


class PlausibilityCheck:
    """A sample of pictures, and the samples of captions that know which pictures it holds; for a job whose captions stream by.

    Whole pieces of the listing are drawn: neighbours in it are often of one person, so near-duplicates are among them.

    Args:
        limits: what is sampled and where doubt begins.
        images: how the captions' pictures are read; None looks at texts alone.
        listing: of those pictures.
        trusted: what score_trusted found, where limits.trusted asks for it.
    """

    def __init__(
        self, limits: PlausibilityConfig, images: ImagesConfig | None, listing: ImageListing | None, trusted: TrustedScore | None = None
    ) -> None:
        self._limits, self._trusted = limits, trusted
        rows = [] if images is None or listing is None or not limits.pictures else list(_sampled(images, listing, limits))
        self.pictures_read = dict(rows)
        self.pictures: CropLooks = look_at(rows, max_pixels=1 if images is None else images.max_pixels)
        self.samples = CaptionSamples(limits.captions, self.pictures.image_ids)

    def captioned(self) -> int:
        """How many of the pictures have a caption among those that the samples have seen."""
        return len({image_id for maker in self.samples.makers for image_id in self.samples.pictured(maker)["image_id"].to_pylist()})

    def judged(self) -> dict[str, Any]:
        """The facts of the captions that the samples have seen."""
        scores = None if self._limits.encoder is None else PairEncoder(self._limits.encoder).scores(self.pictures_read)
        return judge(self.samples, self.pictures, self._limits, scores=scores, trusted=self._trusted)


class TextCheck:
    """Of a job that reads no picture: whether its captions can be true by their texts, and which of them are guesses."""

    def __init__(self, limits: TextLimits) -> None:
        self._check = PlausibilityCheck(PlausibilityConfig(**limits.model_dump(), pictures=0), None, None)
        self._guesses = GuessCount()

    def add(self, table: pa.Table) -> None:
        """See a piece of the captions."""
        self._check.samples.add(table)
        self._guesses.add(table)

    def facts(self) -> dict[str, Any]:
        """For the manifest of the job."""
        return {PLAUSIBILITY: self._check.judged(), GUESSES: self._guesses.facts()}


def score_trusted(limits: PlausibilityConfig) -> TrustedScore | None:
    """How limits.encoder scores limits.trusted, None where none are named. A job asks before it makes captions, which may take days.

    Raises:
        DataError: they are missing or too few, or the encoder scores them no better than chance.
    """
    trusted, encoder = limits.trusted, limits.encoder
    if trusted is None or encoder is None:
        return None
    seen = PlausibilityCheck(limits, trusted.images, image_listing(trusted.images))
    for table in iter_table(trusted.captions, CAPTIONS, columns=sorted(COLUMNS)):
        seen.samples.add(table)
    found = trusted_score(seen.samples, seen.pictures, PairEncoder(encoder).scores(seen.pictures_read))
    if found.of < limits.least:
        raise DataError(
            f"trusted.captions: {trusted.captions} has captions of {counted(found.of, 'picture')} of {trusted.images.path}, and the level "
            f"asks for {limits.least} (limits.least); give both of one set, or raise limits.pictures"
        )
    if not found.is_above_chance:
        raise DataError(
            f"trusted.captions: the encoder {encoder} finds them nearer to their own pictures {found.value:.0%} of the time, and 50% is "
            "chance: it cannot judge captions; give another encoder, or captions that are true"
        )
    return found


def said_of(facts: dict[str, Any]) -> list[str]:
    """What a job says of the facts of its captions."""
    return [*([guesses_in_words(facts[GUESSES])] if facts[GUESSES] else []), in_words(facts[PLAUSIBILITY])]


def _looked_in_words(config: PlausibilityJob, seen: PlausibilityCheck) -> str:
    """As in "; of 200 pictures looked at 198 have a caption": pictures of other people are not judged in silence.

    Raises:
        DataError: pictures were to be looked at, and none can be opened, or none has a caption.
    """
    if config.images is None or not config.limits.pictures:
        return ""
    where, drawn, opened = f"images.path: {config.images.path}", len(seen.pictures_read), len(seen.pictures.image_ids)
    if not opened:
        raise DataError(f"{where}: none of {counted(drawn, 'picture')} looked at can be opened; give pictures, or leave images out")
    if not (captioned := seen.captioned()):
        raise DataError(
            f"{where}: none of {counted(opened, 'picture')} looked at, such as {seen.pictures.image_ids[0]}, has a caption in "
            f"{config.captions}; give the pictures that were captioned, or raise limits.pictures if these are a few of many"
        )
    return f"; of {counted(opened, 'picture')} looked at {captioned:,} {'has' if captioned == 1 else 'have'} a caption"


def _tables(config: PlausibilityJob, output: JobOutput, guesses: GuessCount) -> Iterator[pa.Table]:
    for table in iter_table(config.captions, CAPTIONS, columns=sorted({*COLUMNS, *OF_GUESSES})):
        guesses.add(table)
        output.counts.read += table.num_rows
        output.counts.written += table.num_rows
        yield table


def _sampled(images: ImagesConfig, listing: ImageListing, limits: PlausibilityConfig) -> Iterator[tuple[str, bytes | None]]:
    """Ids and bytes of at most limits.pictures images, from pieces of the listing in the order of a draw."""
    pieces = list(listing.pieces)
    random.Random(limits.seed).shuffle(pieces)
    left = limits.pictures
    for piece in pieces:
        for table in iter_images(images, listing=replace(listing, pieces=(piece,))):
            some = table.slice(0, left)
            left -= some.num_rows
            yield from zip(some["image_id"].to_pylist(), some["image"].to_pylist(), strict=True)
            if not left:
                return
