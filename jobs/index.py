r"""Make a gallery of person crops searchable: embed every image, build a FAISS index.

    python jobs/index.py --config jobs/configs/retrieval/index.yaml
    python jobs/index.py --config jobs/configs/retrieval/index_folder.yaml images.path=/data/crops \
        encoder=runs/train/model output.path=runs/index

The output folder holds index.faiss, gallery.parquet, thumbnails.parquet, index.json, failed/ and manifest.json; jobs/serve.py serves it.
"""

import sys

from reid_ray.cli import run_job
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index


def main() -> int:
    return run_job(__doc__ or "", IndexJob, run_index)


if __name__ == "__main__":
    sys.exit(main())
