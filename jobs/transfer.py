"""Cross-dataset table from finished evaluations: trained on A, tested on B, with known overlaps between the data sets named.

python jobs/transfer.py --config jobs/configs/retrieval/transfer.yaml output.path=runs/transfer
"""

import sys

from reid_ray.cli import run_job
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.retrieval.transfer.job import run_transfer


def main() -> int:
    return run_job(__doc__ or "", TransferJob, run_transfer)


if __name__ == "__main__":
    sys.exit(main())
