r"""Score an encoder, or embeddings, on held-out identities: CMC@1/5/10, mAP, mINP.

    python jobs/evaluate.py --config jobs/configs/retrieval/evaluate.yaml
    python jobs/evaluate.py --config jobs/configs/retrieval/evaluate_image.yaml encoder=runs/train/model \
        images=/data/market output.path=runs/market
    python jobs/evaluate.py --config jobs/configs/retrieval/evaluate_embeddings.yaml query_embeddings=q \
        gallery_embeddings=g output.path=runs/scored

The output folder holds result.json, queries.parquet, hits/, report.md, cmc.png, sheet.png and manifest.json; jobs/compare.py compares two.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate


def main() -> int:
    return run_job(__doc__ or "", EvaluateJob, run_evaluate)


if __name__ == "__main__":
    sys.exit(main())
