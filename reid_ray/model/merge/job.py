"""The merge job: a tuned folder -> a plain transformers checkpoint with a manifest. The work is model_folder's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reid_ray.data.seen_binding import bound_schema
from reid_ray.data.seen_rows import seen_by
from reid_ray.model.merge.config import MergeJob
from reid_ray.model.mllm.model_folder import merge_mllm, read_tuned
from reid_ray.model.model_files import weights_digest
from reid_ray.records import SEEN_FILE
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.terminal.own_lines import say


def run_merge(config: MergeJob) -> dict[str, Any]:
    """Merge. Returns the manifest of the output folder, which is the checkpoint.

    Raises:
        ReidRayError: the folder is no tuned model, its base is missing or another one.
    """
    out = JobOutput(
        "merge", config.output.path, config, if_exists=config.output.if_exists, inputs={"model": config.model, "base": config.base}
    )
    if (finished := out.kept()) is not None:
        return finished
    read_tuned(Path(config.model), field="model")
    with out:
        tuned = merge_mllm(config.model, out.folder, base=config.base, dtype=config.dtype)
        out.counts.read = out.counts.written = 1
        out.facts |= {"family": tuned["family"], "base": tuned["base"], "tuned": tuned["fingerprint"], "trained": tuned["trained"]}
        out.facts["weights"] = weights_digest(out.folder)
        if (Path(config.model) / SEEN_FILE).is_file():  # else what the tuned model has seen is unknown, and so it is of the merged one
            with pq.ParquetWriter(out.folder / SEEN_FILE, bound_schema(out.facts["weights"]), compression="zstd") as writer:
                for table in seen_by(Path(config.model)):
                    writer.write_table(table)
    say(f"merge: {config.model} on {tuned['base']['model']} -> {out.path}")
    return read_manifest(out.path)
