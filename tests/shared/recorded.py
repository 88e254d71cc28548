"""Run a script as a command line, and keep a record of what this program says: python recorded.py RECORD SCRIPT [ARGUMENT ...].

RECORD gets the bytes of both of its streams in the order in which they are written, so that a test can tell them from everything else
that reaches the terminal.
"""

import os
import runpy
import sys

from reid_ray.terminal.own_lines import OwnStream


def record_into(path):
    record, write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), OwnStream.write

    def recorded(stream, text):
        os.write(record, text.encode(stream.encoding, "backslashreplace"))
        return write(stream, text)

    OwnStream.write = recorded


if __name__ == "__main__":
    record_into(sys.argv[1])
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
