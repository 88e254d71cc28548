"""Write synthetic people as tables: pictures with their attributes, two human-like captions of each. --help has examples.

What `ray job submit` runs; `reid-ray synthesize` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("synthesize"))
