"""Say what is wrong with a data set: bad or repeated images, captions that are none, identities. --help has examples.

What `ray job submit` runs; `reid-ray lint` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("lint"))
