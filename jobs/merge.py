"""Make a plain checkpoint of a tuned multimodal LLM, so that the caption job takes it as a model. --help has examples.

What `ray job submit` runs; `reid-ray merge` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("merge"))
