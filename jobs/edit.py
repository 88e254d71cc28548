"""Dress people anew: edited pictures with their captions, checked by a verifier, as new identities. --help has examples.

What `ray job submit` runs; `reid-ray edit` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("edit"))
