"""Runs `reid-ray` command lines, one after the other, in one process: what they import is imported once.

python page_session.py: reads lines of JSON, {"words": [...], "said": FILE}, and answers each with its exit code once it has ended.
"""

import json
import os
import signal
import sys
import traceback


def main():
    from reid_ray.cli.main import main as reid_ray

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background has it ignored
    asked, answered = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    for line in asked:
        order = json.loads(line)
        said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        os.close(said)
        try:
            code = reid_ray(order["words"])
        except SystemExit as error:
            code = error.code or 0
        except BaseException:  # noqa: BLE001 - told, and the next command line is run
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        print(code, file=answered, flush=True)


if __name__ == "__main__":
    main()
