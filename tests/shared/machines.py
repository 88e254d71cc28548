"""Several machines on one: each with its own address, processes, temporary folder and home; the rest of the disk is what all of them mount.

Needs root and Linux: network namespaces behind a bridge, and for each command a namespace of processes and mounts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NET = "10.99.7"
_ENTER = 'mount --bind "$0" /tmp && cd "$1" && shift && exec "$@"'


def missing() -> str | None:
    """Why machines cannot be made here; None if they can."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return "needs root on Linux, for network namespaces"
    absent = [program for program in ("ip", "unshare", "mount") if shutil.which(program) is None]
    return f"{', '.join(absent)} not installed" if absent else None


class Machines:
    """Machines by name. Files under `shared` are the same on all; /tmp and the home are each one's own."""

    def __init__(self, names: Sequence[str], shared: Path, tag: str) -> None:
        self.shared, self.tag, self._names = shared, tag, list(names)

    def address(self, name: str) -> str:
        """The machine's address in the network of all."""
        return f"{NET}.{self._names.index(name) + 1}"

    def home(self, name: str) -> Path:
        """The machine's home folder, as this process sees it."""
        return self.shared / "machines" / name / "home"

    def up(self) -> None:
        """Make bridge, namespaces and folders."""
        bridge = f"{self.tag}br"
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{NET}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for name in self._names:
            for folder in ("home", "tmp"):
                (self.home(name).parent / folder).mkdir(parents=True)
            space = self._space(name)
            outside = f"{self.tag}v{self._names.index(name)}"
            _ip("netns", "add", space)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", space, "link", "set", device, "up")
            _ip("-n", space, "route", "add", "default", "via", f"{NET}.254")

    def down(self) -> None:
        """End what runs there, and remove everything."""
        for name in self._names:
            pids = subprocess.run(["ip", "netns", "pids", self._space(name)], capture_output=True, text=True, check=False).stdout.split()
            for pid in pids:  # the first process of a namespace obeys no other signal
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", self._space(name)], check=False)
        subprocess.run(["ip", "link", "delete", f"{self.tag}br"], check=False)

    def command(self, name: str, command: Sequence[str], cwd: Path | None = None) -> list[str]:
        """The command that runs `command` on the machine."""
        space = ["ip", "netns", "exec", self._space(name), "unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
        return [*space, "bash", "-c", _ENTER, str(self.home(name).parent / "tmp"), str(cwd or self.shared), *command]

    def environment(self, name: str, extra: Mapping[str, str]) -> dict[str, str]:
        """What a shell on the machine has in its environment."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.home(name)), "LANG": "C.UTF-8", "RAY_USAGE_STATS_ENABLED": "0", **extra}

    def run(
        self, name: str, *command: str, cwd: Path | None = None, extra: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end; what it prints comes back as one text."""
        return subprocess.run(
            self.command(name, command, cwd),
            env=self.environment(name, extra or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _space(self, name: str) -> str:
        return f"{self.tag}-{name}"


@contextlib.contextmanager
def machines(*names: str) -> Iterator[Machines]:
    """Machines of these names, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="reid_ray_machines", dir="/var/tmp", ignore_cleanup_errors=True) as shared:
        made = Machines(names, Path(shared), f"rr{os.getpid() % 10000}")
        try:
            made.up()
            yield made
        finally:
            made.down()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
