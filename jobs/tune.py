"""Fine-tune a multimodal LLM for re-identification: common instruction and SyncReID, with LoRA. --help has examples.

What `ray job submit` runs; `reid-ray tune` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("tune"))
