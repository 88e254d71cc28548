"""File patterns of format-0 outputs: which files in one are the job's own.

Since format 1 an output lists its files in a mark (reid_ray.storage.listing).
What these patterns do not name, somebody else put there, and no job may ever delete it.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from reid_ray.storage import MANIFEST

_CHECKPOINT = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "vocab*", "merges.txt")
_TRAINED = ("model/*", "metrics.jsonl", "tensorboard/*", "wandb/*", "mlflow/*", "noise/*", "noise.html", "transfer/*")
# Job -> names of its files; * stands for any number of characters, / among them. A job that is not here is to be run again.
_OWN = {
    "ingest": ("images/part-*.parquet", "captions/part-*.parquet", "failures/part-*.parquet"),
    "synthesize": ("images/part-*.parquet", "captions/part-*.parquet"),
    "caption": ("captions/part-*.parquet",),
    "refilter": ("captions/part-*.parquet",),
    "report": ("report.html", "statistics.json"),
    "calibrate": ("calibration.json", "calibration.md", "roc.png", "pairs.jsonl"),
    "mine": ("templates.yaml", "report.json"),
    "captioner": _CHECKPOINT,
    "merge": _CHECKPOINT,
    "train": _TRAINED,
    "tune": _TRAINED,
    "memory": ("memory.json", "memory.md"),
    "embed": ("embeddings/*.parquet",),
    "evaluate": ("result.json", "queries.parquet", "hits/part-*.parquet", "report.md", "cmc.png", "sheet.png"),
    "compare": ("comparison.json", "comparison.md"),
    "transfer": ("transfer.json", "transfer.md"),
    "index": ("index.faiss", "index.json", "gallery.parquet", "thumbnails.parquet", "failed/part-*.parquet"),
    "lint": ("lint.json", "lint.html"),
}


def own_files(job: str) -> Callable[[str], bool] | None:
    """Whether a name in an output of this job, relative to it, is one of the job's own; None for a job whose files nobody can tell."""
    if job not in _OWN:
        return None
    patterns = (MANIFEST, *_OWN[job])
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)
