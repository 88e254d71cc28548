"""Score an encoder, or embeddings, on held-out identities: CMC@1/5/10, mAP, mINP. --help has examples.

What `ray job submit` runs; `reid-ray evaluate` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("evaluate"))
