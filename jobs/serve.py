"""Serve text-to-image and image-to-image search over an index, with a web page, until Ctrl-C or SIGTERM.

    python jobs/serve.py --config jobs/configs/serve/serve.yaml index=runs/index
    SEARCH_TOKEN=... python jobs/serve.py --config jobs/configs/serve/serve.yaml serve.host=0.0.0.0 serve.token_env=SEARCH_TOKEN

Open the printed address in a browser, or ask it directly:

    curl -s http://127.0.0.1:8000/search/text -H 'Content-Type: application/json' -d '{"text": "a woman in a red coat", "k": 5}'
    curl -s http://127.0.0.1:8000/search/image -F image=@crop.jpg -F k=5
"""

import sys

from reid_ray.cli import run_job
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import run_serve


def main() -> int:
    return run_job(__doc__ or "", ServeJob, run_serve)


if __name__ == "__main__":
    sys.exit(main())
