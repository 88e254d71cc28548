"""Bring an output of an older version to today's formats, where it lies.

    python jobs/migrate.py path=runs/train
    python jobs/migrate.py path=runs/caption        (and the ledger beside it)

What is of today's formats stays as it is; what a newer version wrote is refused. See reid_ray/versions.py for the formats.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.migrate.config import MigrateJob
from reid_ray.migrate.job import run_migrate


def main() -> int:
    return run_job(__doc__ or "", MigrateJob, run_migrate)


if __name__ == "__main__":
    sys.exit(main())
