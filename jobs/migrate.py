"""Bring an output of an older version to today's formats, where it lies. --help has examples.

What `ray job submit` runs; `reid-ray migrate` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("migrate"))
