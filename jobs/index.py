"""Make a gallery of person crops searchable: embed every image, build a FAISS index. --help has examples.

What `ray job submit` runs; `reid-ray index` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("index"))
