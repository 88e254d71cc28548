"""Caption images with a multimodal model, rewrite a share of the captions with a language model, keep the faithful rewrites.

    python jobs/caption.py --config jobs/configs/caption/caption.yaml
    python jobs/caption.py --config jobs/configs/caption/caption_folder.yaml images.path=/data/crops output.path=runs/captions
    ray job submit --working-dir . -- python jobs/caption.py --config jobs/configs/caption/caption_qwen25vl_7b.yaml images.path=/data/crops

The output folder holds captions/*.parquet (one row per caption, failures with their reason) and manifest.json.
"""

import sys

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.job import run_caption
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", CaptionJob, run_caption)


if __name__ == "__main__":
    sys.exit(main())
