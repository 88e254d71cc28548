"""What changes were answered, by the key of the request: a client that lost an answer asks again, and nothing is done twice.

A file a key in a folder that all replicas see; it holds digests, statuses and counts, no item. Knows keys, files and processes; not what is
changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_ray.errors import ConfigError
from reid_ray.serve.operations.writer_turns import BusyError
from reid_ray.storage.files import write_json
from reid_ray.storage.lock import is_gone_from_here, this_process
from reid_ray.versions import check_json, numbered

KEPT_S = 86_400.0
_TIDY_EVERY_S = 600.0
_BEGUN_LASTS_S = 3_600.0  # on another host, whose processes cannot be looked at


@dataclass(frozen=True)
class ChangeAnswer:
    """What a change was answered with: an HTTP status and a JSON object."""

    status: int
    body: dict[str, Any]


class RememberedAnswers:
    """Does a change once a key, and answers the same key the same for a day.

    Args:
        folder: of the files; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidied = float("-inf")
        self._ongoing: dict[str, tuple[str, asyncio.Task[ChangeAnswer]]] = {}

    async def once(self, key: str | None, *, of: str, request: Any, do: Callable[[], Awaitable[ChangeAnswer]]) -> ChangeAnswer:
        """The answer to a change; it is done to its end even if nobody waits for it any more.

        Args:
            key: names the request; None: it is done, and not remembered.
            of: whose key it is.
            request: what is asked for, as JSON: a key goes with one request.
            do: does it. What it raises is not remembered: a further try is one.

        Raises:
            ConfigError: the key was another request's.
            BusyError: another process is at it.
        """
        if key is None:
            return await asyncio.shield(asyncio.ensure_future(do()))
        name = hashlib.sha256(f"{of}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if name not in self._ongoing:
            task = asyncio.create_task(self._looked_up(name, digest, do))
            self._ongoing[name] = digest, task
            task.add_done_callback(lambda _: self._ongoing.pop(name, None))
        known, task = self._ongoing[name]
        _refuse_other(known, digest)
        return await asyncio.shield(task)

    async def _looked_up(self, name: str, digest: str, do: Callable[[], Awaitable[ChangeAnswer]]) -> ChangeAnswer:
        path = self._folder / f"{name}.json"
        found = await asyncio.to_thread(self._begin, path, digest)
        if found is not None:
            return found
        try:
            answer = await do()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        await asyncio.to_thread(_write, path, {"digest": digest, "status": answer.status, "body": answer.body})
        return answer

    def _begin(self, path: Path, digest: str) -> ChangeAnswer | None:
        """Note that it is begun, unless it is answered."""
        self._tidy()
        note = json.dumps({**numbered("service_answer"), "digest": digest, "owner": this_process("change")}).encode()
        hidden = path.with_name(f".{path.stem}.{os.getpid()}.{time.monotonic_ns()}")
        hidden.write_bytes(note)
        try:
            os.link(hidden, path)  # whole, and the first one's
            return None
        except FileExistsError:
            found = _read(path)
        finally:
            hidden.unlink()
        if found is None:
            path.unlink(missing_ok=True)
            return self._begin(path, digest)
        _refuse_other(found["digest"], digest)
        if "status" in found:
            return ChangeAnswer(found["status"], found["body"])
        owner = found["owner"]
        same_host = owner["host"] == this_process("change")["host"]
        if (same_host and not is_gone_from_here(owner)) or (not same_host and _age_s(path) < _BEGUN_LASTS_S):
            raise BusyError("this request is being answered already; ask again in a moment")
        path.unlink(missing_ok=True)  # who began it was killed: it was done whole or not at all, and is done again
        return self._begin(path, digest)

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied < _TIDY_EVERY_S:
            return
        self._tidied = time.monotonic()
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > KEPT_S:
                    os.unlink(entry.path)


def _write(path: Path, value: dict[str, Any]) -> None:
    write_json(path, {**numbered("service_answer"), **value})


def _read(path: Path) -> dict[str, Any] | None:
    """What was noted; None where it is gone or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    check_json("service_answer", found, origin=path)
    return found if "digest" in found and ("status" in found or "owner" in found) else None


def _refuse_other(known: str, digest: str) -> None:
    if known != digest:
        raise ConfigError("Idempotency-Key: was another request's; take a new one for each change")


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
