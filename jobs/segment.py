"""Find hair, garments, shoes, bags and hats on images, and the nouns that name them; by actors. --help has examples.

What `ray job submit` runs; `reid-ray segment` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("segment"))
