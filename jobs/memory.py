r"""How much memory will a training job need on each device, and which setting fits? Nothing is trained; no device is needed.

    python jobs/memory.py --config jobs/configs/train/memory.yaml
    python jobs/memory.py --config jobs/configs/train/memory.yaml config=jobs/configs/train/train_clip_b16_8gpu.yaml \
        device_gib=24 batches=[16,32]

The output folder holds memory.md (the table, printed too), memory.json and manifest.json.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.train.memory.config import MemoryJob
from reid_ray.train.memory.job import run_memory

if __name__ == "__main__":
    sys.exit(run_job(__doc__, MemoryJob, run_memory))
