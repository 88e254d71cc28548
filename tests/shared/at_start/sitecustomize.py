"""What each Python process of the tests does first: Python imports a module of this name, and conftest.py puts this folder on PYTHONPATH.

An import of torch, transformers and Ray's libraries makes objects by the million and none that is garbage, and Python looks for garbage
among them thousands of times: two of the seven seconds of CPU before a training worker begins. So it looks less often. What Ray and
transformers do at a start in vain is not done (ray_worker.py, kept_lists.py).
"""

import gc
import os
import sys

gc.set_threshold(100_000, 50, 100)

if len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith("/ray/_private/workers/setup_worker.py"):
    from ray_worker import become_worker

    become_worker(*sys.orig_argv[1:])
elif len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith("/ray/_private/workers/default_worker.py"):
    from warm_workers import become_fork

    become_fork(sys.orig_argv, dict(os.environ))

import kept_lists  # noqa: E402, F401 - it lies beside this file

if os.environ.get("REID_RAY_CALL_TRACE"):
    import call_trace  # noqa: F401 - so does this one
