"""What each Python process of the tests does first: Python imports a module of this name, and conftest.py puts this folder on PYTHONPATH.

An import of torch, transformers and Ray's libraries makes objects by the million and none that is garbage, and Python looks for garbage
among them thousands of times: two of the seven seconds of CPU before a training worker begins. So it looks less often.
"""

import gc
import os

gc.set_threshold(100_000, 50, 100)

if os.environ.get("REID_RAY_CALL_TRACE"):
    import call_trace  # noqa: F401 - it lies beside this file
