r"""Write the project's tables as a data set in a published layout, for other people's code or for sharing captions.

python jobs/export.py tables=runs/ingest/cuhk_pedes format=cuhk_pedes output.path=out/CUHK-PEDES
python jobs/export.py --config jobs/configs/data/export.yaml tables=runs/images captions=runs/caption \
        format=luperson_mllm output.path=out/mllm
python jobs/export.py tables=runs/ingest/msmt17 format=msmt17 msmt17_version=V2 output.path=out/MSMT17

Not written: folders and Parquet (the tables are Parquet already), and CUHK03's MATLAB release, which holds more than the tables do.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export


def main() -> int:
    return run_job(__doc__ or "", ExportJob, run_export)


if __name__ == "__main__":
    sys.exit(main())
