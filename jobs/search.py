"""Search a folder of person crops: embedded, indexed and served by one command in one process. --help has examples.

What `ray job submit` runs; `reid-ray search` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("search"))
