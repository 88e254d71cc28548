"""Filter the rewrites of a finished captioning run by other thresholds, without generating anything. --help has examples.

What `ray job submit` runs; `reid-ray refilter` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("refilter"))
