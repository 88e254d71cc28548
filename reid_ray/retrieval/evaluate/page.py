"""Evaluation report: report.md, the CMC curve, and a sheet of ranked results.

Knows the evaluate job's own files; scores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.doubted_captions import DOUBTED_CAPTIONS, doubted_in_words
from reid_ray.data.sources import iter_images
from reid_ray.records import HITS
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure_sentence, marks_in_words
from reid_ray.retrieval.evaluate.sheet import SheetHit, SheetQuery, draw_cmc, draw_sheet
from reid_ray.retrieval.evaluate.text_space import texts_untrained, untrained_sentence
from reid_ray.storage import environment, read_table, write_bytes

_PROTOCOLS = {
    "text_to_image": "Every caption of the query split is a query, every image of the gallery split is in the gallery, a match is an "
    "image of the same person. No camera filter; nothing is removed.",
    "image_to_image": "Per query, gallery images of the same person from the same camera are removed; a match is another image of the "
    "same person. A query left without a match is skipped and counted.",
    "leave_one_out": "Every image of a known person queries all others, whatever their camera; its own track is set apart where tracks are "
    "known. Not comparable with the cross-camera protocol: pictures of one camera are easier to find.",
}


def write_report(folder: Path, config: EvaluateJob, result: Mapping[str, Any], cmc: np.ndarray) -> None:
    """Write cmc.png, sheet.png (if images are at hand) and report.md beside the hits that lie in `folder` already."""
    marks = ", ".join(result["exposure"]["marks"])  # a picture travels alone, so it bears them, too
    curve = f"{config.protocol.replace('_', ' ')}{f' ({marks})' if marks else ''}"
    draw_cmc({curve: cmc[:20]}, folder / "cmc.png", chance=result["chance_r1"])
    sheet = _draw_hits(folder, config, title=f"Ranked results ({marks})" if marks else "Queries and their ranked results")
    write_bytes(folder / "report.md", report_text(result, sheet=sheet).encode())


def report_text(result: Mapping[str, Any], *, sheet: bool) -> str:
    """The report in Markdown."""
    facts = environment()
    selection = result["selection"]
    lines = [
        f"# Evaluation, {result['protocol'].replace('_', ' ')}",
        "",
        "| R@1 | R@5 | R@10 | mAP | mINP | R@1 by chance |",
        "| --- | --- | --- | --- | --- | --- |",
        "| " + " | ".join(f"{100 * result[name]:.2f} %" for name in ("r1", "r5", "r10", "map", "minp", "chance_r1")) + " |",
        "",
        f"{result['queries']} queries of {result['persons']} persons against {result['gallery']} images "
        f"({result['distractors']} of unknown person). {result['skipped']} queries without a match were skipped.",
        *([f"mSD (UFineBench, in sorted order throughout): {100 * result['msd']:.2f} %."] if "msd" in result else []),
        "",
        exposure_sentence(result["exposure"]),
        "",
        *(f"- {line}" for line in marks_in_words([result["exposure"]])),
        *([""] if result["exposure"]["marks"] else []),
        *([untrained_sentence(), ""] if texts_untrained(result) else []),
        *(line for each in result.get(DOUBTED_CAPTIONS, []) for line in (f"What queries: {doubted_in_words(each)}.", "")),
        "## How",
        "",
        f"- Protocol: {_PROTOCOLS[result['protocol']]}",
        *_left_out_said(result),
        f"- Ties: {result['ties']}.",
        f"- Split: queries {_said(result['split']['queries'])}, gallery {_said(result['split']['gallery'])}; "
        f"data sets: {', '.join(result['datasets']) or 'not named in the tables'}.",
        *(
            f"- {words}: queries {_counted(result[name]['queries'])}; gallery {_counted(result[name]['gallery'])}."
            for name, words in (("left_out", "Left out"), ("failed", "Failed"))
        ),
        f"- Texts: {_cut(result['texts_cut'])}.",
        f"- Re-ranking: {_reranking(result['rerank'])}.",
        f"- Weights: {result['encoder']['path'] or 'embeddings given'}, dimension {result['encoder']['dim']}, "
        f"fingerprint {', '.join(result['encoder']['fingerprints']) or 'unknown'}.",
        f"- Selection: {_selected(selection)}",
        f"- {_once(result)}",
        f"- Seed of the training run: {selection['training_seed'] if selection['training_seed'] is not None else 'unknown'}. "
        "The evaluation itself draws nothing at random.",
        f"- Versions: Python {facts['python']}, " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
        f"- Machine: {facts['processor']}, {facts['cpu_count']} cores; commit {facts['commit'] or 'unknown'}; "
        f"command `{facts['command']}`.",
        "",
        "![CMC curve](cmc.png)",
    ]
    return "\n".join([*lines, *(["", "![Queries and their ranked results](sheet.png)"] if sheet else [])]) + "\n"


def _draw_hits(folder: Path, config: EvaluateJob, *, title: str) -> bool:
    """Draw sheet.png from hits/; False if no picture is asked for or none is at hand."""
    if config.images is None or not config.sheet_queries:
        return False
    hits = read_table(folder / "hits", HITS)
    queries = pc.unique(hits["query_id"])
    chosen = queries.take(pa.array(np.unique(np.linspace(0, len(queries) - 1, config.sheet_queries).round().astype(np.int64))))
    hits = hits.filter(pc.is_in(hits["query_id"], chosen))
    wanted = pa.concat_arrays([hits["image_id"].combine_chunks(), *([chosen] if config.protocol != "text_to_image" else [])])
    pictures = _pictures(config.images, pc.unique(wanted))
    by_query: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.to_pylist()}
    for row in hits.to_pylist():
        by_query[row["query_id"]].append(row)
    sheet = [
        SheetQuery(
            text=rows[0]["query_text"] if config.protocol == "text_to_image" else name,
            picture=pictures.get(name) if config.protocol != "text_to_image" else None,
            hits=[SheetHit(pictures.get(row["image_id"]), row["correct"], row["camera_id"], row["score"]) for row in rows],
        )
        for name, rows in by_query.items()
    ]
    draw_sheet(sheet, folder / "sheet.png", title=title)
    return True


def _pictures(path: str, ids: pa.Array) -> dict[str, bytes | None]:
    """Encoded bytes of the wanted images, from one pass over the table; None for one that cannot be read."""
    found: dict[str, bytes | None] = {}
    for table in iter_images(ImagesConfig(source="parquet", path=path), only=ids):
        found.update(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return found


def _left_out_said(result: Mapping[str, Any]) -> list[str]:
    """Of leave_one_out: what tracks were known, and how many pictures asked."""
    if result["protocol"] != "leave_one_out":
        return []
    tracks, limit = result["tracks"], result["query_limit"]
    known = f"{tracks['pictures']} pictures are of {tracks['tracks']} known tracks" if tracks["tracks"] else "no tracks are known"
    return [f"- Set apart: {known}; {'every picture' if limit is None else f'{limit} pictures, drawn by their ids,'} queried."]


def _cut(texts_cut: Mapping[str, int] | None) -> str:
    if texts_cut is None:
        return "none, or the table of queries does not say how long they are"
    return f"{texts_cut['truncated']} of {texts_cut['of']} were cut at the model's context, the longest has {texts_cut['longest']} tokens"


def _said(split: str | None) -> str:
    return "all" if split is None else split


def _counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(rows.items())) or "none"


def _reranking(rerank: Mapping[str, Any] | None) -> str:
    if rerank is None:
        return "none"
    return f"k-reciprocal (Zhong et al., 2017), k1 {rerank['k1']}, k2 {rerank['k2']}, lambda {rerank['lambda_value']}"


def _selected(selection: Mapping[str, Any]) -> str:
    if selection["selected_on"] is not None:
        marks = f" ({', '.join(selection['marks'])}, against what was learnt from)" if selection["marks"] else ""
        if selection["marks"] is None:
            marks = " (UNKNOWN, against what was learnt from)"
        return f"{selection['selection']} on split {selection['selected_on']}{marks}, step {selection['step']}."
    if selection["selection"] is not None:
        return f"none: {selection['selection']}, step {selection['step']}."
    return "unknown; the encoder's folder does not say."


def _once(result: Mapping[str, Any]) -> str:
    once = f"This run scored split {_said(result['split']['queries'])} once, with one set of weights"
    if result["selected_elsewhere"] is None:
        return f"{once}; whether they were trained or selected on it is not wholly known."
    if result["selected_elsewhere"]:
        return f"{once} that was not selected on it."
    return f"{once}, which have seen it."
