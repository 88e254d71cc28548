"""A model hub in this process: one repository behind the few requests that huggingface_hub makes of one; it counts what was downloaded."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1" * 40


class FakeHub:
    """The repository `name` with `files`; `downloads` counts the files that were sent whole, by path."""

    def __init__(self, name: str, files: Mapping[str, bytes], host: str) -> None:
        self.name, self.files, self.downloads = name, dict(files), Counter[str]()
        hub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

            def do_HEAD(self) -> None:
                self.answer(send=False)

            def do_GET(self) -> None:
                self.answer(send=True)

            def answer(self, *, send: bool) -> None:
                path = self.path.partition("?")[0]
                below = f"/{hub.name}/resolve/{COMMIT}/"
                if path.startswith(f"/api/models/{hub.name}/tree/"):
                    self.say(json.dumps([entry(path, data) for path, data in hub.files.items()]).encode(), send=send)
                elif path.startswith(f"/api/models/{hub.name}"):
                    siblings = [{"rfilename": path} for path in hub.files]
                    self.say(json.dumps({"id": hub.name, "modelId": hub.name, "sha": COMMIT, "siblings": siblings}).encode(), send=send)
                elif path.startswith(below) and (file := path.removeprefix(below)) in hub.files:
                    if send:
                        with lock:
                            hub.downloads[file] += 1
                    self.say(hub.files[file], send=send, tag=sha1(hub.files[file]).hexdigest())
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def say(self, data: bytes, *, send: bool, tag: str | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                if tag is not None:
                    self.send_header("ETag", f'"{tag}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if send:
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer((host, 0), Handler)

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://{self.server.server_address[0]!s}:{self.server.server_address[1]}"


def entry(path: str, data: bytes) -> dict[str, object]:
    """A file as the hub lists it."""
    return {"type": "file", "path": path, "size": len(data), "oid": sha1(data).hexdigest()}


@contextlib.contextmanager
def fake_hub(name: str, files: Mapping[str, bytes], host: str = "127.0.0.1") -> Iterator[FakeHub]:
    """A hub that answers while the block runs."""
    hub = FakeHub(name, files, host)
    thread = threading.Thread(target=hub.server.serve_forever, name="fake-hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
