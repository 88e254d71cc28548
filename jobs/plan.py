"""Plan a captioning run: caption a random sample, then print hours and GPU-hours for many images at several cluster sizes.

    python jobs/plan.py --config jobs/configs/caption/plan.yaml
    python jobs/plan.py --config jobs/configs/caption/plan.yaml run=runs/caption planned_images=[4000000] replicas=[8,16,64]

The output folder holds plan.md, plan.json and manifest.json; with run=FOLDER the rates of that run are taken and no model starts.
"""

import sys

from reid_ray.caption.plan.config import PlanJob
from reid_ray.caption.plan.job import run_plan
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", PlanJob, run_plan)


if __name__ == "__main__":
    sys.exit(main())
