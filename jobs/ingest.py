"""Turn a data set in its published layout into the project's Parquet tables images/, captions/ and failures/.

    python jobs/ingest.py --config jobs/configs/data/ingest_cuhk_pedes.yaml source.path=/data/CUHK-PEDES output.path=runs/cuhk
    python jobs/ingest.py --config jobs/configs/data/ingest_folder.yaml source.path=s3://bucket/crops output.path=runs/crops

Every image read ends in images/ or, with its reason, in failures/. The other jobs read images/ (images.source=parquet).
"""

import sys

from reid_ray.cli import run_job
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest


def main() -> int:
    return run_job(__doc__ or "", IngestJob, run_ingest)


if __name__ == "__main__":
    sys.exit(main())
