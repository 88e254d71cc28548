"""Kills of whoever writes to an object store, before each of its requests in turn: all that the store can tell of a dead process."""

from __future__ import annotations

import sys


class Kill(BaseException):
    """The process is dead: whatever it still tries to ask of the store does not get there."""


class Killer:
    """Stops a process, as far as the store can tell, before its request number `point`."""

    def __init__(self):
        self.left = None
        sys.addaudithook(self._see)

    def _see(self, event, arguments):
        if event == "reid_ray.object" and self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Kill

    def kill_at(self, point, action):
        """Whether the action died."""
        self.left = point
        try:
            action()
        except Kill:
            return True
        finally:
            self.left = None
        return False
