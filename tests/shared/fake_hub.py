"""A model hub in this process: one repository behind the few requests that huggingface_hub makes of one.

It counts what was downloaded, and can be one that asks for a licence to be accepted, that breaks off in the middle of a file, or that is
ill.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1" * 40
TOKEN = "hf_" + "a" * 34


class FakeHub:
    """The repository `name` with `files`; `downloads` counts the files that were sent whole, by path, `asked` all requests by path.

    Change while it answers: `card`, the model card's fields; `gated`, files for those alone who bring TOKEN; `breaks`, path -> how often
    its connection is still to break off in the middle of it; `ill`, a status that every request is answered with; `pauses`, whether a
    file's second half never comes; `tags`, further names of COMMIT.
    """

    def __init__(self, name: str, files: Mapping[str, bytes], host: str) -> None:
        self.name, self.files, self.downloads, self.asked = name, dict(files), Counter[str](), Counter[str]()
        self.card: dict[str, Any] = {}
        self.gated, self.breaks, self.ill = False, dict[str, int](), 0
        self.tags = {"main", COMMIT}
        self.pauses, self.paused, self.stopped = False, threading.Event(), threading.Event()
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
                with lock:
                    hub.asked[path] += 1
                below, about = f"/{hub.name}/resolve/{COMMIT}/", f"/api/models/{hub.name}"
                revision = path.removeprefix(f"{about}/revision/") if path.startswith(f"{about}/revision/") else "main"
                if hub.ill:
                    self.refuse(hub.ill, None)
                elif path.startswith(f"{about}/tree/"):
                    self.say(json.dumps([entry(path, data) for path, data in hub.files.items()]).encode(), send=send)
                elif path.startswith(about) and revision not in hub.tags:
                    self.refuse(404, "RevisionNotFound")
                elif path.startswith(about):
                    self.say(json.dumps(hub.described()).encode(), send=send)
                elif path.startswith(below) and hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.refuse(401, "GatedRepo")
                elif path.startswith(below) and (file := path.removeprefix(below)) in hub.files:
                    self.file(file, send=send)
                else:
                    self.refuse(404, "RepoNotFound")

            def file(self, file: str, *, send: bool) -> None:
                data, tag = hub.files[file], sha1(hub.files[file]).hexdigest()
                if not send:
                    self.say(data, send=False, tag=tag)
                    return
                with lock:
                    broken = hub.breaks.get(file, 0) > 0
                    hub.breaks[file] = hub.breaks.get(file, 0) - 1
                    hub.downloads[file] += not broken and not hub.pauses
                self.say(data, send=True, tag=tag, until=len(data) // 2 if broken or hub.pauses else None)

            def refuse(self, status: int, code: str | None) -> None:
                self.send_response(status)
                if code is not None:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def say(self, data: bytes, *, send: bool, tag: str | None = None, until: int | None = None) -> None:
                begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
                if tag is not None:
                    self.send_header("ETag", f'"{tag}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if send:
                    self.wfile.write(data[begin:until])
                if send and until is not None:
                    self.wfile.flush()
                    if hub.pauses:
                        hub.paused.set()
                        hub.stopped.wait()
                    self.close_connection = True

        self.server = ThreadingHTTPServer((host, 0), Handler)

    def described(self) -> dict[str, Any]:
        """What the hub says of its repository, with the sizes of its files."""
        siblings = [{"rfilename": path, "size": len(data)} for path, data in self.files.items()]
        return {"id": self.name, "modelId": self.name, "sha": COMMIT, "siblings": siblings, "cardData": self.card, "gated": self.gated}

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
        hub.stopped.set()
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def hub_environment(endpoint: str, home: str | Path, **further: str) -> dict[str, str]:
    """The environment of a process that asks this hub, and keeps what it has of it below `home`."""
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE"))}
    return {**kept, **ours, **further}


def files_of(folder: Path) -> dict[str, bytes]:
    """A model's folder as the files of a repository."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
