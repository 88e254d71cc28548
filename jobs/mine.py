"""Mine sentence templates for the dynamic instruction from captions, reworded by a language model. --help has examples.

What `ray job submit` runs; `reid-ray mine` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("mine"))
