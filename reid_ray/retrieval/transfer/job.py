"""The transfer job: cross-dataset tables, trained on A and tested on B.

A number is worth less where A and B share pictures, so the table says where they do: by what the weights have recorded, and by what is
known of the data sets.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_ray.data.dataset_overlap import known_overlap, same_dataset
from reid_ray.errors import DataError
from reid_ray.retrieval.evaluate.exposure import exposure_of, exposure_sentence, marks_in_words
from reid_ray.retrieval.evaluate.job import read_result
from reid_ray.retrieval.evaluate.text_space import texts_untrained, untrained_sentence
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.storage import JobOutput, environment, read_manifest, write_bytes, write_json
from reid_ray.terminal.own_lines import say

_SHOWN = (("r1", "R@1"), ("r5", "R@5"), ("r10", "R@10"), ("map", "mAP"), ("minp", "mINP"))


def transfer_text(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The table in Markdown: (train, test) -> result.json of the evaluation."""
    lines = [
        "# Cross-dataset transfer",
        "",
        "| trained on | tested on | protocol | " + " | ".join(shown for _, shown in _SHOWN) + " | queries | gallery | note |",
        "| --- | --- | --- | " + " | ".join("---" for _ in _SHOWN) + " | --- | --- | --- |",
    ]
    notes: list[str] = []
    galleries = _galleries(results)
    for (train, test), result in results.items():
        marks = ["same set"] if same_dataset(train, test) else []
        for said in [*cell_notes(train, test, result), *galleries.get((test, result["protocol"]), [])]:
            if said not in notes:
                notes.append(said)
            marks.append(f"[{notes.index(said) + 1}]")
        marks += exposure_of(result)["marks"]
        numbers = " | ".join(f"{100 * result[name]:.2f}" for name, _ in _SHOWN)
        protocol = result["protocol"].replace("_", " ") + (", re-ranked" if result["rerank"] is not None else "")
        lines.append(f"| {train} | {test} | {protocol} | {numbers} | {result['queries']} | {result['gallery']} | {' '.join(marks)} |")
    lines += ["", "All numbers in %."]
    if notes:
        lines += ["", "To know before a number is read:", "", *(f"{number}. {note}." for number, note in enumerate(notes, 1))]
    seen = {f"{train} -> {test}": exposure_of(result) for (train, test), result in results.items()}
    lines += ["", *(f"- {said}" for said in marks_in_words(seen.values()))]
    lines += ["", *(f"- {cell}: {exposure_sentence(found)}" for cell, found in seen.items())]
    return "\n".join(lines) + "\n"


def cell_notes(train: str, test: str, result: Mapping[str, Any]) -> list[str]:
    """What the names of a cell say that its numbers do not: pictures that both sets are known to share, tables of other names."""
    overlap = known_overlap(train, test)
    said = [overlap] if overlap is not None else []
    if others := [name for name in result["datasets"] if not same_dataset(name, test)]:
        said.append(f"what is called {test} here is {', '.join(others)} by its tables")
    learnt = exposure_of(result)["datasets"]
    if learnt is not None and learnt["train"] and not any(same_dataset(name, train) for name in learnt["train"]):
        said.append(f"what is called {train} here was trained on {', '.join(learnt['train'])} by its weights' own record")
    if texts_untrained(result):
        said.append(untrained_sentence().rstrip("."))
    return said


def _galleries(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """(test, protocol) -> a note, where rows of this name were not scored against one and the same gallery and split."""
    found: dict[tuple[str, str], set[str]] = {}
    for (_, test), result in results.items():
        told = {name: result[name] for name in ("gallery_digest", "gallery", "split") if name in result}
        found.setdefault((test, result["protocol"]), set()).add(json.dumps(told, sort_keys=True))
    said = "the rows of {} have not all the same gallery and split, so they are not to be compared with each other"
    return {(test, protocol): [said.format(test)] for (test, protocol), tests in found.items() if len(tests) > 1}


def _refuse_two_protocols(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """A table is of one protocol: numbers of two would be read as better and worse models."""
    first: dict[str, tuple[str, str]] = {}
    for cell, result in results.items():
        first.setdefault(result["protocol"], cell)
    if len(first) > 1:
        said = ", ".join(f"{protocol} ({train} -> {test})" for protocol, (train, test) in first.items())
        raise DataError(f"cells: are scored by {len(first)} protocols, {said}; give a table to each")


def run_transfer(config: TransferJob) -> dict[str, Any]:
    """Run the job; returns the manifest. The folder holds transfer.md and transfer.json.

    Raises:
        DataError: a run is no finished evaluation, or they were scored by several protocols.
    """
    inputs = {f"{cell.train} -> {cell.test}": cell.run for cell in config.cells}
    output = JobOutput("transfer", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    results = {(cell.train, cell.test): read_result(Path(cell.run)) for cell in config.cells}
    _refuse_two_protocols(results)
    with output:
        output.counts.read = output.counts.written = len(results)
        cells = [
            {
                "train": train,
                "test": test,
                "overlap": known_overlap(train, test),
                "exposure": exposure_of(result),
                **{name: result[name] for name, _ in _SHOWN},
            }
            for (train, test), result in results.items()
        ]
        write_json(output.folder / "transfer.json", {"unit": "shares in 0..1", "cells": cells, "environment": environment()})
        write_bytes(output.folder / "transfer.md", transfer_text(results).encode())
    marked = Counter(mark for result in results.values() for mark in exposure_of(result)["marks"])
    marks = f" ({', '.join(f'{mark} in {count} of {len(results)} cells' for mark, count in marked.items())})" if marked else ""
    say(f"transfer: {output.counts} -> {config.output.path}{marks}")
    return read_manifest(config.output.path)
