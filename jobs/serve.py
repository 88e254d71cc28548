"""Serve text-to-image and image-to-image search over an index, with a web page, until Ctrl-C. --help has examples.

What `ray job submit` runs; `reid-ray serve` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("serve"))
