"""Rewrite captions that exist, people's or a captioner's, with a language model, keep the faithful. --help has examples.

What `ray job submit` runs; `reid-ray rewrite` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("rewrite"))
