"""Cross-dataset table from finished evaluations: trained on A, tested on B, overlaps named. --help has examples.

What `ray job submit` runs; `reid-ray transfer` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("transfer"))
