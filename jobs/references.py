"""Cut things out of training images or of pictures of clothes: a bank of references to dress people in. --help has examples.

What `ray job submit` runs; `reid-ray references` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("references"))
