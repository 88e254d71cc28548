"""How many random examples a property is tried on: few for every change, a fifth of them in the quick tier, and many more in the soak."""

import os

TIMES = "TEST_EXAMPLES_TIMES"  # 0.2 in `make test-fast`, 20 in `make soak PART=properties`


def examples(few: int) -> int:
    """For hypothesis's max_examples."""
    return max(1, round(few * float(os.environ.get(TIMES, "1"))))
