"""Filter the rewrites of a finished captioning run by other thresholds, without generating anything.

    python jobs/refilter.py --config jobs/configs/caption/refilter.yaml run=runs/caption alpha=0.7
    python jobs/refilter.py --config jobs/configs/caption/refilter.yaml run=runs/caption alpha=0.5 min_agreement=0.7

The output folder holds captions/*.parquet with new statuses and reasons, and manifest.json with what changed.
"""

import sys

from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.caption.refilter.job import run_refilter
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", RefilterJob, run_refilter)


if __name__ == "__main__":
    sys.exit(main())
