"""Train a text-to-image dual encoder on images and captions.

    python jobs/train.py --config jobs/configs/train/train.yaml images.path=runs/people/images captions.paths=[runs/people/captions]

Writes output.path with model/ (transformers' CLIP format), metrics.jsonl, tensorboard/ and manifest.json. A run that was cut off
goes on where it stopped when the same command is given again.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train

if __name__ == "__main__":
    sys.exit(run_job(__doc__, TrainJob, run_train))
