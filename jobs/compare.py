"""Compare two evaluations of the same queries: difference of R@1 and mAP, with a paired bootstrap. --help has examples.

What `ray job submit` runs; `reid-ray compare` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("compare"))
