"""Write synthetic people as Parquet tables: pictures with their attributes, and two human-like captions of each.

    python jobs/synthesize.py --config jobs/configs/data/synthesize.yaml
    python jobs/synthesize.py --config jobs/configs/data/synthesize.yaml people.identities=100000 output.path=runs/crowd

The output folder holds images/, captions/ and manifest.json; every later job reads them.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize


def main() -> int:
    return run_job(__doc__ or "", SynthesizeJob, run_synthesize)


if __name__ == "__main__":
    sys.exit(main())
