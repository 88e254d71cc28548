"""Say whether captions can be true of a crowd and of their pictures, whoever made them. --help has examples.

What `ray job submit` runs; `reid-ray plausibility` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("plausibility"))
