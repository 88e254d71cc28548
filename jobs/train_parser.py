"""Make the tiny human parser that is built in: train it on drawn people, measure it on others. --help has examples.

What `ray job submit` runs; `reid-ray train_parser` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("train_parser"))
