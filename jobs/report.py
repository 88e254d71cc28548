"""Write one HTML page about a captioning run: outcomes, failures, diversity, faithfulness, and sampled images with their captions.

    python jobs/report.py --config jobs/configs/caption/report.yaml run=runs/caption
    python jobs/report.py --config jobs/configs/caption/report.yaml run=runs/caption sample_images=60 output.path=runs/caption_report

The output folder holds report.html (opens anywhere, loads nothing), statistics.json and manifest.json.
"""

import sys

from reid_ray.caption.report.config import ReportJob
from reid_ray.caption.report.job import run_report
from reid_ray.cli import run_job


def main() -> int:
    return run_job(__doc__ or "", ReportJob, run_report)


if __name__ == "__main__":
    sys.exit(main())
