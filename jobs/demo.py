"""All of it in one command: people go in as pictures and come out as ranked search results. --help has examples.

What `ray job submit` runs; `reid-ray demo` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("demo"))
