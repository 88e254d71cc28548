"""Plan an edit run from a finished one: hours and GPU-hours for many pictures on many GPUs. --help has examples.

What `ray job submit` runs; `reid-ray plan_edits` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("plan_edits"))
