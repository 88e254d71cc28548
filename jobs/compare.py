r"""Compare two evaluations of the same queries: difference of R@1 and mAP with a paired bootstrap confidence interval.

python jobs/compare.py --config jobs/configs/retrieval/compare.yaml baseline=runs/evaluate_a candidate=runs/evaluate_b \
        output.path=runs/compare
"""

import sys

from reid_ray.cli import run_job
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import run_compare


def main() -> int:
    return run_job(__doc__ or "", CompareJob, run_compare)


if __name__ == "__main__":
    sys.exit(main())
