"""What the maker of a table of captions found of them: whoever reads captions that were judged hardly true says so, and notes it.

The judgement is a fact of the manifest of the job that wrote them (caption/plausibility); jobs that hand captions on hand it on, too. Costs
a manifest a table, whatever the number of captions. Knows manifests; not captions, or how they are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reid_ray.storage import JobOutput
from reid_ray.storage.provenance import manifest_above
from reid_ray.terminal.own_lines import say

PLAUSIBILITY = "plausibility"  # among the facts of a job that writes captions
DOUBTED = "doubted"  # a verdict
DOUBTED_CAPTIONS = "doubted_captions"  # among the facts of a job that reads them


def doubts_in(judged: Mapping[str, Any]) -> list[str]:
    """Of the facts of a judgement, what is doubted of each captioner whose captions are: as in NAME: what; what."""
    return [
        f"{maker}: {'; '.join(each['words'] for each in found['statements'] if each['verdict'] == DOUBTED)}"
        for maker, found in judged["captioners"].items()
        if found["verdict"] == DOUBTED
    ]


def doubts_about(table: str) -> list[dict[str, Any]]:
    """Why the captions of a table are hardly true, by each job that found so on their way: {"captions", "found_by", "run_id", "doubts"}.

    Args:
        table: a table of captions, of their vectors, or an output that holds one; a path or an address.

    Raises:
        DataError: the store of an address does not answer, or a newer version of this package wrote what lies there.
    """
    manifest = manifest_above(table)
    facts = {} if manifest is None else manifest.get("facts", {})
    found = [{**each, "captions": table} for each in facts.get(DOUBTED_CAPTIONS, [])]
    judged = facts.get(PLAUSIBILITY)
    if manifest is not None and judged is not None and judged["verdict"] == DOUBTED:
        found.append({"captions": table, "found_by": manifest["job"], "run_id": manifest["run_id"], "doubts": doubts_in(judged)})
    return found


def note_doubted(out: JobOutput, tables: Iterable[str | None]) -> None:
    """Say which of the captions that a job is about to read are hardly true, a line for each judgement, and put it into its manifest.

    Args:
        out: the job's output.
        tables: as of doubts_about; None is none.

    Raises:
        DataError: as doubts_about.
    """
    found = [each for table in dict.fromkeys(tables) if table is not None for each in doubts_about(table)]
    if found:
        out.facts[DOUBTED_CAPTIONS] = found
    for each in found:
        say(f"{out.job}: {doubted_in_words(each)}")


def doubted_in_words(found: Mapping[str, Any]) -> str:
    """One of doubts_about, in a sentence without an end."""
    return f"the captions of {found['captions']} are hardly true, as the {found['found_by']} job found: {'. '.join(found['doubts'])}"
