r"""Mine sentence templates for the dynamic instruction from captions: by rule, and reworded by a language model.

    python jobs/mine.py --config jobs/configs/caption/mine.yaml captions=runs/synthetic/captions
    python jobs/mine.py --config jobs/configs/caption/mine.yaml captions=runs/caption/captions kinds=[static] \
        writer.model=Qwen/Qwen2.5-7B-Instruct

The output folder holds templates.yaml (id, text, origin, support), report.json (what was refused, by reason) and manifest.json.
"""

import sys

from reid_ray.caption.mine.config import MineJob
from reid_ray.caption.mine.job import run_mine
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", MineJob, run_mine)


if __name__ == "__main__":
    sys.exit(main())
