"""Train a text-to-image dual encoder on images and captions. --help has examples.

What `ray job submit` runs; `reid-ray train` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("train"))
