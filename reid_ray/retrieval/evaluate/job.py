"""The evaluate job: queries and gallery -> exact ranking -> result.json, per-query results, hits, report and pictures.

Knows the order of work and what a result must state: protocol, split, what the weights were selected on, seeds, versions. The
embedding is in embed_stream.py, ranking in ranking/, definitions in metrics.py, words in page.py.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.config.common import ImagesConfig
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.sources import image_listing, iter_images, read_images
from reid_ray.errors import ConfigError, DataError
from reid_ray.progress import progress_bar
from reid_ray.records import HITS
from reid_ray.retrieval.embed.features import Features, collect_features, read_features
from reid_ray.retrieval.embed_stream import (
    caption_blocks,
    caption_rows,
    embed_images,
    embed_texts,
    embedded_images,
    embedded_texts,
    read_captions,
)
from reid_ray.retrieval.encoder_identity import (
    encoder_identity,
    fetch_encoder,
    pinned_encoder,
    require_encoder,
    require_texts,
    shipped_content,
    texts_trained,
)
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure_sentence, unseen
from reid_ray.retrieval.evaluate.page import write_report
from reid_ray.retrieval.evaluate.shown import gallery_digest
from reid_ray.retrieval.evaluate.text_space import texts_untrained, untrained_sentence
from reid_ray.retrieval.evaluate.weights_history import exposure_of_score, selected_elsewhere, selection_of
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth
from reid_ray.retrieval.ranking.blocks import Ranking
from reid_ray.retrieval.ranking.exact import rank_blocks, rank_queries
from reid_ray.retrieval.ranking.mean_sd import mean_similarity_distribution
from reid_ray.runtime import pool_need, ray_session, require_resources, stays_in_process
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
        DataError: an input is missing, holds no usable row, a row without a direction or a camera, or no query has a match.
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
    with output:
        clock = time.perf_counter()
        if config.embeds:
            here = stays_in_process(config.ray, _rows(config), config.embed)
            with contextlib.nullcontext() if here else ray_session(config.ray):
                queries, gallery = _features(config, here=here)
        else:
            queries, gallery = _features(config, here=True)
        output.timings["features_seconds"] = time.perf_counter() - clock
        clock = time.perf_counter()
        scored = RankedQueries(queries, gallery, _rank(config, queries, gallery))
        output.timings["rank_seconds"] = time.perf_counter() - clock
        result = result_of(config, scored)
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
        "queries": int(results.counted.sum()),
        "gallery": len(scored.gallery),
        "gallery_digest": gallery_digest(scored.gallery.items),
        "skipped": results.skipped,
        **results.summary(),
        **({"msd": _msd(scored)} if config.msd else {}),
        "persons": len(np.unique(scored.queries.persons()[results.counted])),
        "distractors": int((scored.gallery.persons() == UNKNOWN).sum()),
        "failed": {"queries": dict(scored.queries.failed), "gallery": dict(scored.gallery.failed)},
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


def _rows(config: EvaluateJob) -> int:
    """Images to embed; captions, where only these are."""
    if config.images is not None:
        return image_listing(_source(config, config.split)).count
    return read_captions(str(config.captions), kinds=config.caption_kinds, split=config.query_split or config.split).num_rows


def _source(config: EvaluateJob, split: str | None) -> ImagesConfig:
    return ImagesConfig(source="parquet", path=config.images, split=split, max_pixels=config.max_pixels)


def _features(config: EvaluateJob, *, here: bool) -> tuple[Features, Features]:
    """Both sides, read or embedded. Queries of unknown person are left out and counted: they have no right answer."""
    kind = "text" if config.protocol == "text_to_image" else "image"
    query_split = config.query_split or config.split
    if config.embeds and not here:
        require_resources([pool_need("embed", config.embed)])
        fetch_encoder(str(config.encoder), config.embed)
    if config.embeds and kind == "image" and query_split == config.split:  # the gallery's images are the queries: embedded once
        gallery = _embedded_images(config, config.split, "images", here=here)
        return gallery.of_known_persons(), gallery
    if config.query_embeddings is not None:
        queries = read_features(
            config.query_embeddings,
            kind=kind,
            split=query_split,
            drop_unknown_persons=True,
            include_synthetic=config.include_synthetic,
        )
    elif kind == "text":
        queries = _embedded_captions(config, query_split, here=here)
    else:
        queries = _embedded_images(config, query_split, "queries", drop_unknown_persons=True, here=here)
    if config.gallery_embeddings is not None:
        gallery = read_features(config.gallery_embeddings, kind="image", split=config.split, include_synthetic=config.include_synthetic)
    else:
        gallery = _embedded_images(config, config.split, "gallery", here=here)
    _refuse_two_encoders(config, queries, gallery)
    return queries, gallery


def _embedded_images(config: EvaluateJob, split: str | None, what: str, *, here: bool, drop_unknown_persons: bool = False) -> Features:
    source = _source(config, split)
    listing = image_listing(source)
    with contextlib.ExitStack() as stack:
        if here:
            found = iter_images(source, listing=listing)
            batches = embedded_images(found, str(config.encoder), config.embed, max_pixels=config.max_pixels)
        else:
            stack.enter_context(ray_data_execution(no_progress_timeout_s=600))
            rows = embed_images(read_images(source, listing=listing), str(config.encoder), config.embed, max_pixels=config.max_pixels)
            batches = rows.iter_batches(batch_size=None, batch_format="pyarrow")
        return collect_features(
            _watched(batches, what, listing.count),
            origin=str(config.images),
            capacity=listing.count,
            drop_unknown_persons=drop_unknown_persons,
            include_synthetic=config.include_synthetic,
        )


def _embedded_captions(config: EvaluateJob, split: str | None, *, here: bool) -> Features:
    captions = read_captions(str(config.captions), kinds=config.caption_kinds, split=split)
    with contextlib.ExitStack() as stack:
        if here:
            batches = embedded_texts(caption_blocks(captions), str(config.encoder), config.embed)
        else:
            stack.enter_context(ray_data_execution(no_progress_timeout_s=600))
            rows = embed_texts(caption_rows(captions), str(config.encoder), config.embed)
            batches = rows.iter_batches(batch_size=None, batch_format="pyarrow")
        return collect_features(
            _watched(batches, "queries", captions.num_rows),
            origin=str(config.captions),
            capacity=captions.num_rows,
            drop_unknown_persons=True,
            include_synthetic=config.include_synthetic,
        )


def _watched(batches: Any, label: str, total: int) -> Iterator[pa.Table]:
    with progress_bar(label, total, unit="row") as bar:
        for batch in batches:
            yield batch
            bar.update(batch.num_rows)


def _rank(config: EvaluateJob, queries: Features, gallery: Features) -> Ranking:
    if config.protocol == "text_to_image":
        truth = GroundTruth.text_to_image(queries.persons(), gallery.persons())
    else:
        queries.require_cameras()
        gallery.require_cameras()
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


def _refuse_two_encoders(config: EvaluateJob, queries: Features, gallery: Features) -> None:
    if queries.vector_ND.shape[1] != gallery.vector_ND.shape[1]:
        raise DataError(
            f"{queries.origin} has {queries.vector_ND.shape[1]} dimensions, {gallery.origin} has {gallery.vector_ND.shape[1]}; "
            "embed both with one encoder"
        )
    found = queries.encoder_fingerprints | gallery.encoder_fingerprints
    if len(found) > 1:
        raise DataError(f"{queries.origin} and {gallery.origin} were made by encoders {sorted(found)}; embed both with one")
    if config.encoder is not None and found and not config.embeds and encoder_identity(config.encoder)[1] not in found:
        raise DataError(f"encoder: {config.encoder} did not make these embeddings ({sorted(found)}); drop it or name the one that did")


def _count(counts: Counts, scored: RankedQueries) -> None:
    """Queries read end as written or failed; a query without a match is a failed row by reason no_match."""
    results = scored.ranking.results
    counts.written = int(results.counted.sum())
    counts.failed.update(scored.queries.failed)
    if results.skipped:
        counts.failed["no_match"] += results.skipped
    counts.read = counts.written + sum(counts.failed.values())


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
    """result.json of an evaluate job's output folder.

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
    return result


def evaluated_queries(folder: str | Path) -> pa.Table:
    """queries.parquet of an evaluate job's output folder."""
    read_result(folder)
    file = parquet_files(Path(folder) / QUERIES)[0]
    with file.open() as parquet:
        table = parquet.read()
    check_table(table.schema.metadata, origin=file)
    return table
