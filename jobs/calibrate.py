"""Choose the thresholds of the faithfulness filter for a sentence encoder, on labelled pairs.

    python jobs/calibrate.py --config jobs/configs/caption/calibrate.yaml
    python jobs/calibrate.py --config jobs/configs/caption/calibrate.yaml encoder.model=BAAI/bge-small-en-v1.5 pairs=my_pairs.jsonl

The output folder holds calibration.md (the report), calibration.json, roc.png, pairs.jsonl (every pair with its scores) and manifest.json.
"""

import sys

from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import run_calibrate
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", CalibrateJob, run_calibrate)


if __name__ == "__main__":
    sys.exit(main())
