"""Embed images or captions once: unit vectors in Parquet, written by as many actors on as many nodes as the cluster has.

    python jobs/embed.py --config jobs/configs/retrieval/embed.yaml images.path=runs/ingest/cuhk/images output.path=runs/embeddings/images
    python jobs/embed.py --config jobs/configs/retrieval/embed_captions.yaml

jobs/evaluate.py scores such tables (query_embeddings, gallery_embeddings).
"""

import sys

from reid_ray.cli import run_job
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed


def main() -> int:
    return run_job(__doc__ or "", EmbedJob, run_embed)


if __name__ == "__main__":
    sys.exit(main())
