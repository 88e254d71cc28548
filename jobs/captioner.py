"""Make the tiny captioner that ships with this repository: train it on synthetic people, measure it through vLLM on others.

    python jobs/captioner.py --config jobs/configs/caption/captioner.yaml

About 20 minutes on one CPU core. The output folder holds a Qwen2.5-VL of two million parameters, as transformers and vLLM load it,
and manifest.json with its scores.
"""

import sys

from reid_ray.caption.tiny.config import CaptionerJob
from reid_ray.caption.tiny.job import run_captioner
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", CaptionerJob, run_captioner)


if __name__ == "__main__":
    sys.exit(main())
