"""An S3 server on this machine (moto's), with one bucket: what is put there is read through pyarrow's S3 client and HTTP."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from pyarrow import fs

from reid_ray.storage.object_store.pointer import Pointer, run_folder

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")  # come from the environment, never from the address


class Bucket:
    """A bucket `data`: puts local folders into it, says the address of what it holds, and counts the requests that reach it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.options = f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"
        self.filesystem = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
        self.filesystem.create_dir("data")
        self.requests: Counter[str] = Counter()  # by HTTP method, LIST for a listing
        self.requests_of: Counter[tuple[str, str]] = Counter()  # by method and the first folder of the key

    def put(self, folder: Path, key: str) -> str:
        """Copy a folder into the bucket; returns its address."""
        fs.copy_files(str(folder), f"data/{key}", source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem)
        return self.address(key)

    def put_output(self, folder: Path, key: str) -> str:
        """Copy a job's output into the bucket as a job writes one there; returns its address."""
        run = run_folder(json.loads((folder / "manifest.json").read_text())["run_id"])
        self.put(folder, f"{key}/{run}")
        self.write(f"{key}/current.json", Pointer(run, None, None, "").encoded())
        return self.address(key)

    def write(self, key: str, data: bytes) -> None:
        """Write one object."""
        with self.filesystem.open_output_stream(f"data/{key}") as stream:
            stream.write(data)

    def address(self, key: str) -> str:
        """Where `key` lies."""
        return f"s3://data/{quote(key)}{self.options}"


class _Requests(logging.Handler):
    def __init__(self, bucket: Bucket) -> None:
        super().__init__(logging.INFO)
        self._bucket = bucket

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        method = said.partition('"')[2].partition(" ")[0].rpartition("m")[2]  # werkzeug colours the line
        method = "LIST" if "list-type" in said else method
        folder = re.search(r"prefix=([^/&%]+)" if method == "LIST" else r" /data/([^/ ]+)", said)
        self._bucket.requests[method] += 1
        self._bucket.requests_of[method, "" if folder is None else folder[1]] += 1


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """A bucket on a server that ends with the block; without moto the test is skipped."""
    server = pytest.importorskip("moto.server", reason="no S3 server here: make setup installs moto")
    logger = logging.getLogger("werkzeug")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    endpoint = "{}:{}".format(*running.get_host_and_port())
    # what earlier servers of this process held is kept otherwise
    urlopen(Request(f"http://{endpoint}/moto-api/reset", method="POST"), timeout=60).close()
    with pytest.MonkeyPatch.context() as environment:
        for name in CREDENTIALS:
            environment.setenv(name, "test")
        bucket = Bucket(endpoint)
        handler = _Requests(bucket)
        environment.setattr(logger, "propagate", False)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield bucket
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.ERROR)
            running.stop()
