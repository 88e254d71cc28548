"""Embed images or captions once: unit vectors in Parquet, by actors on as many nodes as there are. --help has examples.

What `ray job submit` runs; `reid-ray embed` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("embed"))
