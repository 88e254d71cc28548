"""Cut people out of videos or frames, with camera, time, box and track; by actors. --help has examples.

What `ray job submit` runs; `reid-ray crop` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("crop"))
