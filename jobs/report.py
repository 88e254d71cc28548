"""Write one HTML page about a captioning run: outcomes, failures, diversity, faithfulness, samples. --help has examples.

What `ray job submit` runs; `reid-ray report` is the same.
"""

import sys

from reid_ray.cli.run_job import run_named

if __name__ == "__main__":
    sys.exit(run_named("report"))
