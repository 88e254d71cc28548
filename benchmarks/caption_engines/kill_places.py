"""Where the jobs of the kill harness read and write: a folder of this machine, or a bucket of an S3 server (moto's) that it starts.

Knows places of tables and ledgers; not jobs or kills. What the server holds is gone with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from pyarrow import fs

BUCKET = "data"
_START_S = 60.0


@dataclass(frozen=True)
class Places:
    """Places by their names.

    Args:
        state: the harness's folder.
        endpoint: host and port of the S3 server; None: all lies in the folder.
    """

    state: Path
    endpoint: str | None

    def of(self, name: str) -> str:
        """Path or address."""
        if self.endpoint is None:
            return str(self.state / name)
        return f"s3://{BUCKET}/{name}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"

    def captions(self, job: str) -> str:
        """The table of a finished job."""
        path, mark, options = self.of(job).partition("?")
        return f"{path}/captions{mark}{options}"

    def put(self, name: str) -> None:
        """Have a folder of the state at its place."""
        if self.endpoint is not None:
            self._store.create_dir(BUCKET)
            local = fs.LocalFileSystem()
            fs.copy_files(str(self.state / name), f"{BUCKET}/{name}", source_filesystem=local, destination_filesystem=self._store)

    def blocks(self, job: str) -> int:
        """Files of rows in a job's ledger."""
        if self.endpoint is None:
            return len(list((self.state / f".{job}.ledger" / "rows").glob("[bp]*.parquet")))
        found = self._store.get_file_info(fs.FileSelector(f"{BUCKET}/{job}/.ledger/rows", allow_not_found=True))
        return sum(each.base_name.endswith(".parquet") for each in found)

    def remove(self, job: str) -> None:
        """Remove a job's output and ledger."""
        if self.endpoint is not None:
            self._store.delete_dir(f"{BUCKET}/{job}")
            return
        for left in (self.state / job, self.state / f".{job}.ledger"):
            shutil.rmtree(left)

    def give_credentials(self) -> None:
        """Have the server's credentials in this process's environment, and in those of the processes that it starts."""
        if self.endpoint is not None:
            for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                os.environ.setdefault(each, "test")

    @property
    def _store(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(endpoint_override=self.endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)


class S3Server:
    """`with S3Server() as server: server.endpoint`: in a process of its own."""

    def __enter__(self) -> S3Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + _START_S
        while True:
            try:
                urlopen(f"http://{self.endpoint}/moto-api/", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > until:
                    self._process.kill()
                    raise
                time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
