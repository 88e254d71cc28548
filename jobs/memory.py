"""Predict a training job's memory on each device and which setting fits; no device is needed. --help has examples.

What `ray job submit` runs; `reid-ray memory` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("memory"))
