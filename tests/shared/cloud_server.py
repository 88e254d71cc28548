"""What obstore asks of Google Cloud Storage (its XML API) and of Azure Blob Storage, answered by a small server of this machine.

One store of objects in memory with the conditional writes of each: x-goog-if-generation-match there, If-Match and If-None-Match here.
Written by the published protocols, as moto is for S3; signatures are not looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

ACCOUNT, BUCKET = "account", "data"
# A service account that asks nobody for a token; unsigned requests, which obstore knows, are of Google's store only to read.
_NOBODY = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
# No credentials are asked for; obstore would look for the machine's own.
ENVIRONMENT = {
    "gs": {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(_NOBODY)},
    "az": {"AZURE_SKIP_SIGNATURE": "true", "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT},
}


@dataclass(frozen=True)
class Kept:
    """An object, and the number of its change."""

    data: bytes
    version: int
    changed: str


class Cloud:
    """A store of objects by key, and its addresses."""

    def __init__(self, scheme: str) -> None:
        self.scheme, self.endpoint = scheme, ""
        self.objects: dict[str, Kept] = {}
        self.requests: Counter[str] = Counter()
        self.refused = 0  # conditional writes that came too late
        self._numbers, self._lock = count(1_700_000_000_000_000), Lock()

    def address(self, key: str) -> str:
        """Where `key` lies."""
        return f"{self.scheme}://{BUCKET}/{key}?endpoint_override={self.endpoint}&scheme=http"

    def put(self, key: str, data: bytes, allowed: object) -> Kept | None:
        """Write an object if `allowed` says so of the one that is there (None: none is)."""
        with self._lock:
            if not allowed(self.objects.get(key)):
                self.refused += 1
                return None
            self.objects[key] = kept = Kept(data, next(self._numbers), formatdate(usegmt=True))
            return kept

    def delete(self, key: str) -> bool:
        """Remove an object; False if there is none."""
        with self._lock:
            return self.objects.pop(key, None) is not None

    def listed(self, prefix: str, delimiter: str) -> tuple[list[tuple[str, Kept]], list[str]]:
        """Objects whose keys begin so, and the names of folders."""
        files, folders = [], set()
        with self._lock:
            for key, kept in sorted(self.objects.items()):
                if key.startswith(prefix):
                    rest = key[len(prefix) :]
                    if delimiter and delimiter in rest:
                        folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                    else:
                        files.append((key, kept))
        return files, sorted(folders)


class _Handler(BaseHTTPRequestHandler):
    cloud: Cloud
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's body would wait 40 ms for the client to acknowledge its head

    def do_PUT(self) -> None:
        key, _ = self.asked()
        kept = self.cloud.put(key, self.body(), self.condition())
        self.answer(412 if kept is None else self.created, {} if kept is None else self.headers_of(kept))

    def do_GET(self) -> None:
        key, options = self.asked()
        if not key:
            return self.answer(200, {"Content-Type": "application/xml"}, self.listing(options).encode())
        kept = self.cloud.objects.get(key)
        if kept is None:
            return self.answer(404, self.no_object, b"")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or self.headers.get("x-ms-range") or "")
        if asked is None:
            return self.answer(200, self.headers_of(kept), kept.data)
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(kept.data))
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(kept.data)}"}
        return self.answer(206, {**self.headers_of(kept), **told}, kept.data[start:stop])

    def do_DELETE(self) -> None:
        key, _ = self.asked()
        self.body()
        done = self.cloud.delete(key)
        self.answer(self.deleted if done else 404, {} if done else self.no_object)

    def do_POST(self) -> None:
        """Azure's batch: deletions in parts of one body."""
        _, options = self.asked()
        assert options.get("comp") == ["batch"], self.path
        parts = []
        for number, path in enumerate(re.findall(rb"DELETE (\S+) HTTP/1.1", self.body())):
            done = self.cloud.delete(unquote(urlsplit(path.decode()).path).partition(f"/{BUCKET}/")[2])
            status = "202 Accepted" if done else "404 The specified blob does not exist."
            error = "" if done else "x-ms-error-code: BlobNotFound\r\n"
            parts.append(f"--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\n{error}\r\n\r\n")
        self.answer(202, {"Content-Type": "multipart/mixed; boundary=batch"}, ("".join(parts) + "--batch--\r\n").encode())

    def asked(self) -> tuple[str, dict[str, list[str]]]:
        self.cloud.requests[self.command] += 1
        where = urlsplit(self.path)
        return unquote(where.path).partition(f"/{BUCKET}")[2].lstrip("/"), parse_qs(where.query, keep_blank_values=True)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class _Google(_Handler):
    created, deleted, no_object = 200, 204, {}

    def condition(self) -> object:
        wanted = self.headers.get("x-goog-if-generation-match")
        return lambda kept: wanted is None or int(wanted) == (0 if kept is None else kept.version)

    def headers_of(self, kept: Kept) -> dict[str, str]:
        return {"ETag": f'"{kept.version:x}"', "x-goog-generation": str(kept.version), "Last-Modified": kept.changed}

    def listing(self, options: dict[str, list[str]]) -> str:
        files, folders = self.cloud.listed(options.get("prefix", [""])[0], options.get("delimiter", [""])[0])
        rows = [
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{kept.version:x}&quot;</ETag>"
            f"<Size>{len(kept.data)}</Size></Contents>"
            for key, kept in files
        ]
        rows += [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in folders]
        told = f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>{''.join(rows)}"
        return f'<?xml version="1.0"?><ListBucketResult>{told}</ListBucketResult>'


class _Azure(_Handler):
    created, deleted, no_object = 201, 202, {"x-ms-error-code": "BlobNotFound"}

    def condition(self) -> object:
        new, over = self.headers.get("If-None-Match"), self.headers.get("If-Match")
        if new == "*":
            return lambda kept: kept is None
        return lambda kept: over is None or (kept is not None and over == f'"{kept.version:x}"')

    def headers_of(self, kept: Kept) -> dict[str, str]:
        return {"ETag": f'"{kept.version:x}"', "Last-Modified": kept.changed, "x-ms-blob-type": "BlockBlob"}

    def listing(self, options: dict[str, list[str]]) -> str:
        files, folders = self.cloud.listed(options.get("prefix", [""])[0], options.get("delimiter", [""])[0])
        rows = [
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{kept.changed}</Last-Modified><Etag>{kept.version:x}</Etag>"
            f"<Content-Length>{len(kept.data)}</Content-Length><Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for key, kept in files
        ]
        rows += [f"<BlobPrefix><Name>{escape(each)}</Name></BlobPrefix>" for each in folders]
        return f'<?xml version="1.0"?><EnumerationResults><Blobs>{"".join(rows)}</Blobs><NextMarker/></EnumerationResults>'


@contextmanager
def cloud_server(scheme: str) -> Iterator[Cloud]:
    """A store at gs:// or az://, whose server ends with the block."""
    cloud = Cloud(scheme)
    handler = type("Handler", ({"gs": _Google, "az": _Azure}[scheme],), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    cloud.endpoint = quote(f"127.0.0.1:{server.server_port}", safe=":")
    Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT[scheme].items():
            environment.setenv(name, value)
        try:
            yield cloud
        finally:
            server.shutdown()
            server.server_close()
