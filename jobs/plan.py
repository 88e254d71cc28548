"""Plan a captioning run: caption a sample, print hours and GPU-hours for many images on many clusters. --help has examples.

What `ray job submit` runs; `reid-ray plan` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("plan"))
