"""Caption images with multimodal models, rewrite a share with a language model, keep the faithful. --help has examples.

What `ray job submit` runs; `reid-ray caption` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("caption"))
