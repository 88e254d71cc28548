"""Write the tables as a data set in a published layout, for other people's code or to share captions. --help has examples.

What `ray job submit` runs; `reid-ray export` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("export"))
