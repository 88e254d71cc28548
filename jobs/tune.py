"""Fine-tune a multimodal LLM for re-identification: common instruction and SyncReID, with LoRA.

    python jobs/tune.py --config jobs/configs/train/tune.yaml images.path=runs/people/images captions.paths=[runs/people/captions]

Writes output.path with model/ (only what trained), metrics.jsonl, tensorboard/ and manifest.json. A run that was cut off goes on where
it stopped when the same command is given again. jobs/merge.py makes a checkpoint for the caption job of it.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import run_tune

if __name__ == "__main__":
    sys.exit(run_job(__doc__, TuneJob, run_tune))
