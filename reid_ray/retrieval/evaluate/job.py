"""The evaluate job: queries and gallery -> exact ranking -> result.json, per-query results, hits, report and pictures.

Knows the order of work and what a result must state: protocol, split, what the weights were selected on, seeds, versions. The
features are in scored_sides.py, ranking in ranking/, definitions in metrics.py, words in page.py.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.errors import ConfigError, DataError
from reid_ray.reasons import both_told_apart
from reid_ray.records import HITS
from reid_ray.retrieval.embed.features import Features
from reid_ray.retrieval.encoder_identity import pinned_encoder, require_encoder, require_texts, shipped_content, texts_trained
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure_sentence, unseen
from reid_ray.retrieval.evaluate.page import write_report
from reid_ray.retrieval.evaluate.scored_sides import features_of, leave_one_out_truth, rows_to_embed, track_facts
from reid_ray.retrieval.evaluate.shown import gallery_digest
from reid_ray.retrieval.evaluate.text_space import texts_untrained, untrained_sentence
from reid_ray.retrieval.evaluate.unscorable import refuse_unscorable
from reid_ray.retrieval.evaluate.weights_history import exposure_of_score, selected_elsewhere, selection_of
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth
from reid_ray.retrieval.ranking.blocks import Ranking
from reid_ray.retrieval.ranking.exact import rank_blocks, rank_queries
from reid_ray.retrieval.ranking.mean_sd import mean_similarity_distribution
from reid_ray.runtime import ray_session, stays_in_process
from reid_ray.storage import Counts, JobOutput, TableWriter, environment, parquet_files, read_manifest, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.versions import check_json, check_table, numbered, stamp

RESULT, QUERIES, HITS_FOLDER = "result.json", "queries.parquet", "hits"
MAX_RANK = 50  # of the CMC curve


@dataclass(frozen=True)
class RankedQueries:
    """Features of queries and gallery, and the ranking of one against the other."""

    queries: Features
    gallery: Features
    ranking: Ranking


def run_evaluate(config: EvaluateJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, whose facts are result.json.

    The folder holds result.json, queries.parquet (one row per query, for comparisons), hits/ (HITS), report.md, cmc.png, sheet.png
    (if there are pictures to show) and manifest.json.

    Raises:
        DataError: an input is missing, holds no usable row, a row without a direction, or no query has a match: by the labels that is known
            before anything is embedded.
        ResourceError: the cluster cannot hold the embedding actors.
    """
    if config.encoder is not None:
        config = config.model_copy(update={"encoder": pinned_encoder(config.encoder)})
    inputs = config.model_dump(include={"encoder", "images", "captions", "query_embeddings", "gallery_embeddings"})
    output = JobOutput(
        "evaluate", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents=shipped_content(config.encoder)
    )
    if (earlier := output.kept()) is not None:
        return earlier
    if config.encoder is not None:
        require_encoder(config.encoder)
        if config.protocol == "text_to_image":
            require_texts(config.encoder)
    refuse_unscorable(config)
    with output:
        note_doubted(output, [config.captions, config.query_embeddings])
        clock = time.perf_counter()
        if config.embeds:
            here = stays_in_process(config.ray, rows_to_embed(config), config.embed)
            with contextlib.nullcontext() if here else ray_session(config.ray):
                queries, gallery = features_of(config, here=here)
        else:
            queries, gallery = features_of(config, here=True)
        output.timings["features_seconds"] = time.perf_counter() - clock
        clock = time.perf_counter()
        scored = RankedQueries(queries, gallery, _rank(config, queries, gallery))
        output.timings["rank_seconds"] = time.perf_counter() - clock
        result = {**result_of(config, scored), **output.facts}  # of captions that are hardly true, if they query
        _count(output.counts, scored)
        output.facts.update(result)
        write_json(output.folder / RESULT, {**numbered("evaluation"), **result, "environment": environment()})
        pq.write_table(query_table(scored), output.folder / QUERIES, compression="zstd")
        _write_hits(output.folder / HITS_FOLDER, scored, config.top_k)
        write_report(output.folder, config, result, scored.ranking.results.cmc(MAX_RANK))
    say(
        f"evaluate: {output.counts} -> {config.output.path} (R@1 {result['r1']:.1%}, mAP {result['map']:.1%}, mINP {result['minp']:.1%}; "
        f"{result['queries']} queries, {result['gallery']} images, R@1 by chance {result['chance_r1']:.2%})"
        f"{scored.queries.texts_cut.sentence() if scored.queries.texts_cut is not None else ''}"
    )
    if not unseen(result["exposure"]):
        say(f"evaluate: {exposure_sentence(result['exposure'])}")
    if texts_untrained(result):
        say(f"evaluate: {untrained_sentence()}")
    return read_manifest(config.output.path)


def result_of(config: EvaluateJob, scored: RankedQueries) -> dict[str, Any]:
    """The content of result.json: scores in 0..1, and the facts that they rest on: protocol, split, model selection, seeds, versions."""
    results = scored.ranking.results
    fingerprints = sorted(scored.queries.encoder_fingerprints | scored.gallery.encoder_fingerprints)
    selection = selection_of(config.encoder)
    found = exposure_of_score(config, scored.queries, scored.gallery)
    return {
        "unit": "shares in 0..1",
        "protocol": config.protocol,
        **({"tracks": track_facts(scored.gallery), "query_limit": config.query_limit} if config.protocol == "leave_one_out" else {}),
        "queries": int(results.counted.sum()),
        "gallery": len(scored.gallery),
        "gallery_digest": gallery_digest(scored.gallery.items),
        "skipped": results.skipped,
        **results.summary(),
        **({"msd": _msd(scored)} if config.msd else {}),
        "persons": len(np.unique(scored.queries.persons()[results.counted])),
        "distractors": int((scored.gallery.persons() == UNKNOWN).sum()),
        **both_told_apart({"queries": scored.queries.unused, "gallery": scored.gallery.unused}),
        "texts_cut": scored.queries.texts_cut.facts() if scored.queries.texts_cut is not None else None,
        "rerank": config.rerank.model_dump() if config.rerank is not None else None,
        "datasets": sorted(set(scored.gallery.items["dataset"].drop_null().to_pylist())),
        "split": {"queries": config.query_split or config.split, "gallery": config.split},
        "selection": selection,
        "exposure": found,
        "selected_elsewhere": selected_elsewhere(found),
        "encoder": {
            "path": config.encoder,
            "fingerprints": fingerprints,
            "dim": scored.gallery.vector_ND.shape[1],
            # null: no text is a query, or no encoder is named
            "texts_trained": texts_trained(config.encoder) if config.encoder and config.protocol == "text_to_image" else None,
        },
        "ties": "equal scores rank in gallery order",
    }


def _msd(scored: RankedQueries) -> float:
    truth = GroundTruth.text_to_image(scored.queries.persons(), scored.gallery.persons())
    return mean_similarity_distribution(scored.queries.vector_ND, scored.gallery.vector_ND, truth)


def query_table(scored: RankedQueries) -> pa.Table:
    """One row per query: what two runs are compared by. ap is null and the ranks are 0 for a query without a match."""
    results = scored.ranking.results
    return pa.table(
        {
            "query_id": scored.queries.items["item_id"],
            "person_id": scored.queries.items["person_id"],
            "ap": pa.array(results.ap_Q, mask=~results.counted),
            "first_rank": results.first_rank_Q,
            "last_rank": results.last_rank_Q,
            "relevant": results.relevant_Q,
            "candidates": results.candidates_Q,
        }
    ).replace_schema_metadata(stamp("queries"))


def _rank(config: EvaluateJob, queries: Features, gallery: Features) -> Ranking:
    if config.protocol == "text_to_image":
        truth = GroundTruth.text_to_image(queries.persons(), gallery.persons())
    elif config.protocol == "leave_one_out":
        truth = leave_one_out_truth(queries, gallery)
    else:
        truth = GroundTruth.image_to_image(
            queries.persons(), gallery.persons(), query_camera_Q=queries.cameras(), gallery_camera_G=gallery.cameras()
        )
    if config.rerank is None:
        query_QD, gallery_GD = (_on_device(vector_ND, config.device) for vector_ND in (queries.vector_ND, gallery.vector_ND))
        return rank_queries(query_QD, gallery_GD, truth, top_k=config.top_k)
    from reid_ray.retrieval.ranking.k_reciprocal import Reranker

    reranker = Reranker(
        queries.vector_ND, gallery.vector_ND, k1=config.rerank.k1, k2=config.rerank.k2, lambda_value=config.rerank.lambda_value
    )
    return rank_blocks(lambda block: -reranker.distances(block), truth, top_k=config.top_k)


def _on_device(vector_ND: np.ndarray, device: str) -> Any:
    import torch

    try:
        return torch.from_numpy(vector_ND).to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {device} cannot hold the features ({str(error).splitlines()[0]}); set device to cpu") from None


def _count(counts: Counts, scored: RankedQueries) -> None:
    """Queries read end as written, left out or failed; one without a match is left out by reason no_match."""
    results = scored.ranking.results
    counts.written = int(results.counted.sum())
    counts.unused.update(scored.queries.unused)
    if results.skipped:
        counts.unused["no_match"] += results.skipped
    counts.read = counts.written + sum(counts.unused.values())


def _write_hits(folder: Path, scored: RankedQueries, top_k: int) -> None:
    """HITS rows of all queries, in blocks: correct is null where a person is unknown."""
    ranking, queries, gallery = scored.ranking, scored.queries.items, scored.gallery.items
    person_G, camera_G, ids = (
        gallery["person_id"].combine_chunks(),
        gallery["camera_id"].combine_chunks(),
        gallery["image_id"].combine_chunks(),
    )
    rows = max(1, 100_000 // top_k)
    with TableWriter(folder, HITS) as writer:
        for start in range(0, len(scored.queries), rows):
            index_BK, score_BK = ranking.top_index_QK[start : start + rows], ranking.top_score_QK[start : start + rows]
            found_BK = index_BK >= 0
            query_row_N = pa.array(start + np.nonzero(found_BK)[0])
            hit_row_N = pa.array(index_BK[found_BK])
            query_person_N = queries["person_id"].take(query_row_N)
            person_N = person_G.take(hit_row_N)
            writer.append(
                pa.table(
                    {
                        "query_id": queries["item_id"].take(query_row_N),
                        "query_text": queries["text"].take(query_row_N),
                        "query_person_id": query_person_N,
                        "rank": np.nonzero(found_BK)[1] + 1,
                        "image_id": ids.take(hit_row_N),
                        "person_id": person_N,
                        "camera_id": camera_G.take(hit_row_N),
                        "score": score_BK[found_BK],
                        "correct": pc.equal(query_person_N, person_N),
                    }
                )
            )


def read_result(folder: str | Path) -> dict[str, Any]:
    """result.json of an evaluate job's output folder; an older one tells what was left out from what failed, too.

    Raises:
        DataError: the folder is no finished evaluation.
    """
    if read_manifest(folder).get("job") != "evaluate":
        raise DataError(f"{folder}: is the output of another job; give the output folder of an evaluate job")
    try:
        result = dict(json.loads((Path(folder) / RESULT).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{Path(folder) / RESULT}: cannot be read as JSON ({error}); evaluate again") from None
    check_json("evaluation", result, origin=Path(folder) / RESULT)
    return result if "left_out" in result else {**result, **both_told_apart(result["failed"])}


def evaluated_queries(folder: str | Path) -> pa.Table:
    """queries.parquet of an evaluate job's output folder."""
    read_result(folder)
    file = parquet_files(Path(folder) / QUERIES)[0]
    with file.open() as parquet:
        table = parquet.read()
    check_table(table.schema.metadata, origin=file)
    return table
