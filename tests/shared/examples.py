"""How many random examples a property is tried on: few for every change, and so many times as many in `make soak PART=properties`."""

import os

TIMES = "TEST_EXAMPLES_TIMES"


def examples(few: int) -> int:
    """For hypothesis's max_examples."""
    return few * int(os.environ.get(TIMES, "1"))
