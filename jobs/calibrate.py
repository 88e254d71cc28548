"""Choose the thresholds of the faithfulness filter for a sentence encoder, on labelled pairs. --help has examples.

What `ray job submit` runs; `reid-ray calibrate` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("calibrate"))
