"""Turn a data set in its published layout into tables: images/, captions/ and failures/. --help has examples.

What `ray job submit` runs; `reid-ray ingest` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("ingest"))
