"""Load over HTTP from a process of its own: python benchmarks/http_load.py, its order as JSON on stdin, what it saw as JSON on stdout.

Plain HTTP/1.1 on kept connections, so that the generator takes little of the machine; its own seconds of CPU are part of what it says.
A closed loop has N clients that ask again once they are answered; an open loop sends at a rate, whatever is answered.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Seen:
    """What a load saw, one entry a request: status (0: no answer), milliseconds until it was there; and over all.

    seconds: from the first request to the last answer.
    cpu_s: that the generator itself took.
    batches: what answers said of their batch.
    """

    statuses: list[int]
    latencies_ms: list[float]
    batches: list[int]
    seconds: float
    cpu_s: float


def load(port: int, bodies: list[dict[str, Any]], *, clients: int = 0, requests: int = 0, rate: float = 0.0, seconds: float = 0.0) -> Seen:
    """Ask a service in a process of its own: `requests` by `clients` in a closed loop, or at a `rate` for `seconds`."""
    order = {"port": port, "bodies": bodies, "clients": clients, "requests": requests, "rate": rate, "seconds": seconds}
    done = subprocess.run([sys.executable, __file__], input=json.dumps(order), capture_output=True, text=True, check=True)
    return Seen(**json.loads(done.stdout))


class _Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; 0 where the connection broke."""
        try:
            if self._streams is not None and self._streams[0].at_eof():  # the service has closed what nobody used for a while
                self._close()
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().split(b"\r\n")
            length = next(int(field[15:]) for field in fields if field.startswith(b"content-length:"))
            body = await reader.readexactly(length)
            if b"connection: close" in fields:
                self._close()
            return int(head[9:12]), body
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            self._close()
            return 0, b""

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class _Generator:
    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._requests = [_encoded(body) for body in order["bodies"]]
        self._asked = 0
        self._idle: list[_Connection] = []
        self.statuses: list[int] = []
        self.latencies_ms: list[float] = []
        self.batches: list[int] = []

    async def closed(self) -> None:
        """N clients, each asks again once it is answered."""

        async def client() -> None:
            connection = _Connection(self._order["port"])
            while self._asked < self._order["requests"]:
                await self._one(connection)

        await asyncio.gather(*(client() for _ in range(self._order["clients"])))

    async def open(self) -> None:
        """Requests at a rate."""
        started, tasks = time.perf_counter(), []
        for number in range(int(self._order["rate"] * self._order["seconds"])):
            wait = started + number / self._order["rate"] - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._pooled()))
        await asyncio.gather(*tasks)

    async def _pooled(self) -> None:
        connection = self._idle.pop() if self._idle else _Connection(self._order["port"])
        await self._one(connection)
        self._idle.append(connection)

    async def _one(self, connection: _Connection) -> None:
        request = self._requests[self._asked % len(self._requests)]
        self._asked += 1
        started = time.perf_counter()
        status, body = await connection.ask(request)
        self.latencies_ms.append(round((time.perf_counter() - started) * 1e3, 3))
        self.statuses.append(status)
        if status == 200 and len(self.batches) < 2000:
            self.batches.append(int(json.loads(body).get("batch", 0)))


def _encoded(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


if __name__ == "__main__":
    order = json.load(sys.stdin)
    generator = _Generator(order)
    cpu, clock = time.process_time(), time.perf_counter()
    asyncio.run(generator.open() if order["rate"] else generator.closed())
    found = {"statuses": generator.statuses, "latencies_ms": generator.latencies_ms, "batches": generator.batches}
    json.dump({**found, "seconds": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}, sys.stdout)
