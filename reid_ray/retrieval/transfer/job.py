"""The transfer job: cross-dataset tables, trained on A and tested on B.

A number is worth less where A and B share pictures, so the table says where they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_ray.retrieval.evaluate.exposure import exposure_of, exposure_sentence, shared_with
from reid_ray.retrieval.evaluate.job import read_result
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.storage import JobOutput, environment, read_manifest, write_bytes, write_json
from reid_ray.terminal.own_lines import say

# Which data sets hold pictures of which others; names are compared without case, hyphens and underscores.
SOURCES: dict[str, tuple[str, ...]] = {
    "ICFG-PEDES": ("MSMT17",),
    "RSTPReid": ("MSMT17",),
    "CUHK-PEDES": ("Market-1501", "CUHK01", "CUHK03"),
}
_SHOWN = (("r1", "R@1"), ("r5", "R@5"), ("r10", "R@10"), ("map", "mAP"), ("minp", "mINP"))


def known_overlap(train: str, test: str) -> str | None:
    """A sentence on pictures that two data sets share, or None if nothing is known."""
    if _plain(train) == _plain(test):
        return None
    own = {name: {_plain(source) for source in (name, *SOURCES.get(_proper(name), ()))} for name in (train, test)}
    shared = own[train] & own[test]
    if not shared:
        return None
    names = sorted(_proper(source) for source in shared)
    if _plain(test) in shared or _plain(train) in shared:
        whole, part = (train, test) if _plain(test) in shared else (test, train)
        return f"{whole} holds pictures of {part}"
    return f"{train} and {test} both hold pictures of {', '.join(names)}"


def transfer_text(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The table in Markdown: (train, test) -> result.json of the evaluation."""
    lines = [
        "# Cross-dataset transfer",
        "",
        "| trained on | tested on | protocol | " + " | ".join(shown for _, shown in _SHOWN) + " | queries | gallery | note |",
        "| --- | --- | --- | " + " | ".join("---" for _ in _SHOWN) + " | --- | --- | --- |",
    ]
    notes: list[str] = []
    warnings: list[str] = []
    for (train, test), result in results.items():
        overlap = known_overlap(train, test)
        note = "same set" if _plain(train) == _plain(test) else ""
        if overlap is not None:
            if overlap not in notes:
                notes.append(overlap)
            note = f"[{notes.index(overlap) + 1}]"
        found = exposure_of(result)
        if shared_with("train", found) or shared_with("val", found):
            warnings.append(f"{train} -> {test}: {exposure_sentence(found)}")
            note = f"{note} SEEN".strip()
        numbers = " | ".join(f"{100 * result[name]:.2f}" for name, _ in _SHOWN)
        protocol = result["protocol"].replace("_", " ")
        lines.append(f"| {train} | {test} | {protocol} | {numbers} | {result['queries']} | {result['gallery']} | {note} |")
    lines += ["", "All numbers in %."]
    if notes:
        lines += ["", "Known overlaps, which flatter a transfer:", "", *(f"{number}. {note}." for number, note in enumerate(notes, 1))]
    if warnings:
        lines += ["", *(f"- {warning}" for warning in warnings)]
    return "\n".join(lines) + "\n"


def run_transfer(config: TransferJob) -> dict[str, Any]:
    """Run the job; returns the manifest. The folder holds transfer.md and transfer.json.

    Raises:
        DataError: a run is no finished evaluation.
    """
    inputs = {f"{cell.train} -> {cell.test}": cell.run for cell in config.cells}
    output = JobOutput("transfer", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    results = {(cell.train, cell.test): read_result(Path(cell.run)) for cell in config.cells}
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
    say(f"transfer: {output.counts} -> {config.output.path}")
    return read_manifest(config.output.path)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _proper(name: str) -> str:
    """The usual spelling of a data set's name, else the name itself."""
    usual = (*SOURCES, *(source for sources in SOURCES.values() for source in sources))
    return next((known for known in usual if _plain(known) == _plain(name)), name)
