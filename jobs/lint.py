r"""Say what is wrong with a data set: bad images, repeated images and captions, captions that are no captions, identities, counts.

    python jobs/lint.py --config jobs/configs/data/lint.yaml source.format=rstpreid source.path=/data/RSTPReid \
        output.path=runs/lint/rstpreid
    python jobs/lint.py --config jobs/configs/data/lint.yaml source.format=parquet source.path=runs/ingest/cuhk_pedes \
        output.path=runs/lint/cuhk

Prints a table and writes lint.json and lint.html (with sample pictures) into the output folder.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint


def main() -> int:
    return run_job(__doc__ or "", LintJob, run_lint)


if __name__ == "__main__":
    sys.exit(main())
