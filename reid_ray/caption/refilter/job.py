"""The refilter job: a CAPTIONS table with scores -> the same rows with the statuses that other thresholds give. Generates nothing.

Knows scores and statuses; no model. Only rewrites that have a text and a score can change; what failed stays failed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from reid_ray.caption.filters.agreement import compare_attributes, why_unfaithful
from reid_ray.caption.origin import captioning_manifest
from reid_ray.caption.plausibility.job import TextCheck, said_of
from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.labels.own_of_files import own_of_captions
from reid_ray.errors import DataError
from reid_ray.own_columns import with_own
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import JobOutput, TableWriter, iter_table
from reid_ray.storage.file_systems import locate_in
from reid_ray.storage.object_store.pointer import reading_place
from reid_ray.terminal.own_lines import say

_CAPTIONS_FOLDER = "captions"
_WITHOUT_SCORE = "without score, unchanged"
_RECENT = 50_000  # originals remembered; a rewrite follows its original closely


def run_refilter(config: RefilterJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds captions/*.parquet.

    Raises:
        DataError: the run is unfinished, no row of it is a rewrite with a score, or its table lacks the original of a rewrite.
    """
    place = reading_place(config.run)
    source = captioning_manifest(place)
    captions = locate_in(place, _CAPTIONS_FOLDER)
    changes: Counter[str] = Counter()
    output = JobOutput(
        "refilter", config.output.path, config, if_exists=config.output.if_exists, inputs={"run": source["fingerprint"], **source["inputs"]}
    )
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        note_doubted(output, [captions])
        check = TextCheck(config.plausibility)
        originals, own = _Originals(captions), own_of_captions(captions)
        schema = with_own(CAPTIONS, own)
        with TableWriter(output.folder / _CAPTIONS_FOLDER, schema) as writer, progress_bar("refilter", None, unit="row") as bar:
            for table in iter_table(captions, schema):
                originals.remember(table)
                rows = table.to_pylist()
                texts = originals.texts(_parents(rows))
                again = table_of(schema, [refiltered(row, config, texts, changes) for row in rows])
                writer.append(again)
                check.add(again)
                bar.update(table.num_rows)
        output.counts.read = output.counts.written = writer.rows
        if changes.total() == changes[_WITHOUT_SCORE]:
            raise DataError(
                f"{captions}: none of its {writer.rows} rows is a rewrite with a score, so there is nothing to filter again; give the "
                "output of a caption job with rewriter.share above 0"
            )
        note_own(output, own.names, {})
        output.facts.update(check.facts(), changes={name: changes[name] for name in sorted(changes)})
        manifest = output.manifest()
    words = ", ".join(f"{n} {name}" for name, n in sorted(changes.items())) + own_in_words(own.names, {})
    say(f"refilter: {output.counts}; {words} -> {config.output.path}")
    for each in said_of(manifest["facts"]):
        say(f"refilter: {each}")
    return manifest


def refiltered(row: dict[str, Any], config: RefilterJob, originals: Mapping[str, str], changes: Counter[str]) -> dict[str, Any]:
    """One CAPTIONS row with its new status; counts in `changes` what became of it.

    Args:
        row: any row; only a rewrite with text and score can change.
        config: thresholds.
        originals: caption_id -> text of the captions that rewrites name as parent.
        changes: "old -> new" or "old, unchanged" of every rewrite.
    """
    if row["kind"] != "rewrite":
        return row
    if row["text"] is None or row["faithfulness"] is None:
        changes[_WITHOUT_SCORE] += 1
        return row
    agreement = compare_attributes(originals[row["parent_id"]], row["text"])
    reason = why_unfaithful(row["faithfulness"], agreement, config)
    status = "ok" if reason is None else "unfaithful"
    changes[f"{row['status']}, unchanged" if status == row["status"] else f"{row['status']} -> {status}"] += 1
    return {**row, "status": status, "reason": reason, "agreement": agreement.score}


def _parents(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["parent_id"] for row in rows if row["kind"] == "rewrite" and row["text"] is not None and row["faithfulness"] is not None}


class _Originals:
    """Texts of captions by id: the recent ones from memory, others by one more pass over the table."""

    def __init__(self, captions: str) -> None:
        self._captions = captions
        self._recent: OrderedDict[str, str] = OrderedDict()

    def remember(self, table: pa.Table) -> None:
        rows = zip(table["caption_id"].to_pylist(), table["text"].to_pylist(), table["kind"].to_pylist(), strict=True)
        self._recent.update((caption_id, text) for caption_id, text, kind in rows if kind != "rewrite" and text is not None)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def texts(self, ids: set[str]) -> dict[str, str]:
        found = {caption_id: self._recent[caption_id] for caption_id in ids if caption_id in self._recent}
        missing = ids - set(found)
        if missing:
            for table in iter_table(self._captions, CAPTIONS, columns=["caption_id", "text"]):
                pairs = zip(table["caption_id"].to_pylist(), table["text"].to_pylist(), strict=True)
                found.update((caption_id, text) for caption_id, text in pairs if caption_id in missing and text is not None)
        orphans = sorted(ids - set(found))
        if orphans:
            raise DataError(
                f"{self._captions}: {len(orphans)} rewrites name an original that the table lacks ({orphans[0]}); "
                "give the whole output of the caption job"
            )
        return found
