"""Train an editor that dresses people anew from reference crops. --help has examples.

What `ray job submit` runs; `reid-ray train_editor` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("train_editor"))
