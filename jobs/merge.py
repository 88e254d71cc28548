"""Make a plain checkpoint of a tuned multimodal LLM, so that it captions: the caption job takes the folder as a captioner's model.

python jobs/merge.py --config jobs/configs/train/merge.yaml model=runs/tune/model output.path=runs/merged
"""

import sys

from reid_ray.cli import run_job
from reid_ray.model.merge.config import MergeJob
from reid_ray.model.merge.job import run_merge

if __name__ == "__main__":
    sys.exit(run_job(__doc__, MergeJob, run_merge))
