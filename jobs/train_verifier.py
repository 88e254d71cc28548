"""Teach the network that judges edits, on people whom the editor does not learn from. --help has examples.

What `ray job submit` runs; `reid-ray train_verifier` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("train_verifier"))
