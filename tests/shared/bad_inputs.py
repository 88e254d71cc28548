"""Requests that a retrieval service cannot do, each with the status that it gets and what the sentence must name.

A table: what is wrong with each field of each route is spelled out by crossing fields with values that are none of theirs. The service is
that of small_services (limits: see LIMITS), so ids are "0" to "11" and there are the columns item_id, image_id, person_id and camera_id.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from reid_ray.serve.config import ServeConfig

LIMITS = ServeConfig(max_text_chars=100, max_upload_bytes=400_000, max_k=50, timeout_s=60)
JSON_TYPE = {"Content-Type": "application/json"}
SURROGATE = "\ud83d"


@dataclass(frozen=True)
class BadInput:
    """A request, the status that it gets, and a word that the sentence has."""

    what: str
    status: int | tuple[int, ...]
    names: str
    method: str = "POST"
    path: str = "/v1/search"
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]} {self.what}"


def as_sent(body: Any) -> dict[str, Any]:
    """A JSON body as httpx would not write it: NaN, halves of surrogate pairs and all."""
    return {"content": json.dumps(body).encode(), "headers": JSON_TYPE}


def packed_zeros(mebibytes: int) -> bytes:
    """Zeros as zlib packs them, by the mebibyte; put together from one, for packing them all takes a second."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    one = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (mebibytes << 20) % 65521 << 16 | 1  # Adler-32
    return b"\x78\x9c" + one * mebibytes + packer.flush() + checksum.to_bytes(4, "big")


def png(width: int, height: int, *, data: bytes | None = None, packed: bytes | None = None) -> bytes:
    """A PNG of one colour, or one whose header claims a size that its data, or packed data, lacks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    if packed is None and data is None:
        packed = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    rows = zlib.compress(data) if packed is None else packed
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    """A JPEG of noise."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 128), 90).save(buffer, "JPEG")
    return buffer.getvalue()


def bad_inputs() -> Iterator[BadInput]:
    """All of them."""
    yield from _bodies()
    yield from _fields_of_search()
    yield from _clues()
    yield from _filters()
    yield from _pictures()
    yield from _uploads()
    yield from _batches()
    yield from _reading()
    yield from _explanations()
    yield from _changes()
    yield from _jobs()
    yield from _access()
    yield from _routes()


def _bodies() -> Iterator[BadInput]:
    bodies: dict[str, tuple[bytes, int | tuple[int, ...], str]] = {
        "an empty body": (b"", 422, "body"),
        "a half object": (b"{", 422, "JSON"),
        "broken UTF-8": (b'{"text": "\xff\xfe"}', 400, "body"),
        "UTF-16": ('{"text": "1"}'.encode("utf-16"), (200, 400), ""),
        "a NUL before it": (b'\x00{"text": "1"}', (400, 422), ""),
        "arrays 50,000 deep": (b"[" * 50_000, (400, 422), ""),
        "objects 50,000 deep": (b'{"a":' * 50_000, (400, 422), ""),
        "a filter 900 deep": (b'{"text": "1", "where": {"camera_id": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}}", (400, 422), ""),
        "a number of 5,000 digits": (b'{"text": "1", "k": ' + b"9" * 5_000 + b"}", (400, 422), ""),
        "a text that is larger than any may be": (json.dumps({"text": "x" * 2_000_000}).encode(), 413, "larger than"),
        "XML": (b"<text>1</text>", 422, "JSON"),
    }
    for name, (content, status, names) in bodies.items():
        yield BadInput(name, status, names, options={"content": content, "headers": JSON_TYPE})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/jpeg"):
        yield BadInput(f"JSON sent as {kind}", (415, 422), "", options={"content": b'{"text": "1"}', "headers": {"Content-Type": kind}})
    for body in ([], [1], "text", 5, None, True):
        yield BadInput(f"the body {json.dumps(body)}", 422, "body", options={"json": body})


def _fields_of_search() -> Iterator[BadInput]:
    wrong: dict[str, list[Any]] = {
        "text": [5, True, [], {}, ["1"], 1.5, "", " \n\t ", "x" * 101, SURROGATE, "1 \udc00"],
        "k": ["5", True, 1.0, 1.5, float("nan"), float("inf"), 0, -1, 51, 10**30, [], {}, "many", ""],
        "where": ["camera_id", [], 5, True],
        "without": ["1", {}, 5, [1], [None], [True], ["x"] * 1001],
        "threshold": ["0.5", True, float("nan"), float("inf"), -1.5, 2, 10**400, []],
        "one_per": [5, True, [], "", "nothing", "embedding", SURROGATE],
        "cursor": [5, True, [], "", "no cursor", "AAAA", "ø", SURROGATE, "x" * 20_000],
        "rerank": ["5", True, 1.5, float("nan"), 0, -3, 51, 10**30],
        "exact": [1, 0, "true", "yes", None, []],
        "clues": ["1", {}, [1], [None], [[]], [{"text": "1"}] * 17],
    }
    for name, values in wrong.items():
        for number, value in enumerate(values):
            body = {name: value} if name == "clues" else {"text": "1", name: value}
            yield BadInput(f"{name} {number}: {json.dumps(value)[:40]}", 422, name, options=as_sent(body))
    for name in ("colour", "K", "camera_ids", "__proto__", "image"):
        yield BadInput(f"a field {name}", 422, name, options={"json": {"text": "1", name: 1}})
    yield BadInput("nothing is asked for", 422, "clues", options={"json": {}})
    yield BadInput("text and clues", 422, "text", options={"json": {"text": "1", "clues": [{"text": "1"}]}})
    yield BadInput("a cursor and rerank", 422, "rerank", options={"json": {"text": "1", "cursor": "x", "rerank": 3}})


def _clues() -> Iterator[BadInput]:
    clues: dict[str, tuple[Any, str]] = {
        "an empty clue": ({}, "clues"),
        "two things in one": ({"text": "1", "item": "1"}, "clues"),
        "an unknown field": ({"text": "1", "colour": "red"}, "colour"),
        "a text that is a number": ({"text": 5}, "text"),
        "an empty text": ({"text": " "}, "text"),
        "half a surrogate pair": ({"text": SURROGATE}, "text"),
        "an item that is not there": ({"item": "nobody"}, "item"),
        "an item by half a surrogate pair": ({"item": SURROGATE}, "item"),
        "an item by number": ({"item": 1}, "item"),
        "no base64": ({"image": "&&&"}, "base64"),
        "an empty picture": ({"image": ""}, "image"),
        "a data: URL without data": ({"image": "data:image/png;base64,"}, "image"),
        "base64 of no picture": ({"image": base64.b64encode(b"no picture").decode()}, "not_an_image"),
        "a weight as text": ({"text": "1", "weight": "2"}, "weight"),
        "a weight that is true": ({"text": "1", "weight": True}, "weight"),
        "a weight of NaN": ({"text": "1", "weight": float("nan")}, "weight"),
        "an infinite weight": ({"text": "1", "weight": float("inf")}, "weight"),
        "a weight beyond all": ({"text": "1", "weight": 1e300}, "weight"),
        "a weight of null": ({"text": "1", "weight": None}, "weight"),
    }
    for name, (clue, names) in clues.items():
        yield BadInput(f"a clue: {name}", 422, names, options=as_sent({"clues": [clue]}))
    several: dict[str, tuple[list[Any], str]] = {
        "only what is not wanted": ([{"text": "1", "weight": -1}], "weight"),
        "clues that cancel out": ([{"text": "1"}, {"text": "1", "weight": -1}], "cancel"),
        "a text without a vector": ([{"text": "1 nan"}], "not_finite"),
        "a weight of nothing": ([{"text": "1", "weight": 0}], "weight"),
    }
    for name, (body, names) in several.items():
        yield BadInput(f"clues: {name}", 422, names, options=as_sent({"clues": body}))


def _filters() -> Iterator[BadInput]:
    filters: dict[str, Any] = {
        "unknown column": {"nothing": 1},
        "the vectors": {"embedding": 1},
        "a text for a number": {"camera_id": "1"},
        "true for a number": {"camera_id": True},
        "null": {"camera_id": None},
        "a fraction for a whole number": {"camera_id": 1.5},
        "NaN": {"camera_id": float("nan")},
        "infinity": {"camera_id": float("inf")},
        "a number beyond 64 bits": {"camera_id": 2**63},
        "a number beyond 2^70": {"camera_id": [2**70]},
        "a number below": {"camera_id": -(2**70)},
        "1e300": {"camera_id": 1e300},
        "an unknown operator": {"camera_id": {"$gt": 1}},
        "an operator too many": {"camera_id": {"from": 1, "over": 2}},
        "an empty range": {"camera_id": {}},
        "a range of text": {"camera_id": {"from": "a"}},
        "a range beyond 64 bits": {"camera_id": {"from": 2**64}},
        "a list in a list": {"camera_id": [[1]]},
        "an object in a list": {"camera_id": [{"from": 1}]},
        "a number for a text": {"image_id": 5},
        "half a surrogate pair": {"image_id": SURROGATE},
        "a column by half a surrogate pair": {SURROGATE: 1},
        "a column's name of 10,000 letters": {"x" * 10_000: 1},
    }
    for path in ("/v1/search", "/v1/browse", "/v1/facets"):
        beside = {"/v1/search": {"text": "1"}, "/v1/browse": {}, "/v1/facets": {"columns": ["camera_id"]}}[path]
        for name, where in filters.items():
            yield BadInput(f"a filter: {name}", 422, "", path=path, options=as_sent({**beside, "where": where}))


def _files() -> dict[str, tuple[bytes, str]]:
    frames = [Image.effect_noise((64, 64), 90).convert("P") for _ in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return {
        "a header that claims 3.6 gigapixels": (png(60_000, 60_000, data=bytes(1000)), "too_many_pixels"),
        "200 megapixels in 207 kB": (png(20_000, 10_000, packed=packed_zeros(200)), "too_many_pixels"),
        "a header that claims 49 megapixels and has none": (png(7000, 7000, data=bytes(1000)), ""),
        "a truncated JPEG": (jpeg()[:1000], "truncated"),
        "the head of a JPEG": (jpeg()[:20], ""),
        "a GIF of three frames cut in its first": (buffer.getvalue()[:2000], ""),
        "HTML": (b"<html><body>no picture</body></html>", "not_an_image"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        "zeros": (bytes(5000), "not_an_image"),
        "nothing": (b"", "0 bytes"),
        "too many bytes": (bytes(LIMITS.max_upload_bytes + 1), "largest"),
    }


def _pictures() -> Iterator[BadInput]:
    for name, (data, names) in _files().items():
        status = 413 if names == "largest" else 422
        yield BadInput(f"an upload: {name}", status, names, path="/v1/search/upload", options={"files": {"image": ("x.jpg", data)}})
        clue = {"clues": [{"image": base64.b64encode(data).decode()}]}
        yield BadInput(f"base64: {name}", status, names, options={"json": clue})


def _uploads() -> Iterator[BadInput]:
    path, good = "/v1/search/upload", png(8, 16)
    questions = {
        "no JSON": "{",
        "a list": "[]",
        "a wrong k": '{"k": "5"}',
        "k of NaN": '{"k": NaN}',
        "an unknown field": '{"colour": 1}',
        "half a surrogate pair": '{"one_per": "\\ud83d"}',
        "a filter of nothing": '{"where": {"nothing": 1}}',
        "arrays 50,000 deep": "[" * 50_000,
    }
    for name, question in questions.items():
        options = {"files": {"image": ("x.png", good)}, "data": {"question": question}}
        yield BadInput(f"a question: {name}", 422, "", path=path, options=options)
    for name, weight in {"a text": "heavy", "NaN": "nan", "0": "0", "below 0": "-1", "infinity": "inf"}.items():
        options = {"files": {"image": ("x.png", good)}, "data": {"image_weight": weight}}
        yield BadInput(f"a weight: {name}", 422, "image_weight", path=path, options=options)
    yield BadInput("nine pictures", 422, "image", path=path, options={"files": [("image", ("x.png", good))] * 9})
    yield BadInput("a picture under another name", 422, "image", path=path, options={"files": {"file": ("x.png", good)}})
    yield BadInput("a picture as a text field", 422, "image", path=path, options={"data": {"image": "x"}})
    yield BadInput("a picture as the body", 422, "image", path=path, options={"content": good, "headers": {"Content-Type": "image/png"}})
    yield BadInput("JSON", 422, "image", path=path, options={"json": {"image": "x"}})
    broken = {
        "no boundary": ("multipart/form-data", b"--x\r\n\r\n"),
        "another boundary": ("multipart/form-data; boundary=y", b"--x\r\nContent-Disposition: form-data; name=image\r\n\r\nx\r\n--x--"),
        "no end": ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc'),
        "no disposition": ("multipart/form-data; boundary=x", b"--x\r\n\r\nabc\r\n--x--\r\n"),
        "2,000 fields": (
            "multipart/form-data; boundary=x",
            b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % number for number in range(2000)) + b"--x--\r\n",
        ),
        "a boundary of 5,000 letters": ("multipart/form-data; boundary=" + "x" * 5000, b"--x\r\n\r\n"),
        "a header that is no UTF-8": (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--x--\r\n',
        ),
    }
    for name, (kind, content) in broken.items():
        options = {"content": content, "headers": {"Content-Type": kind}}
        yield BadInput(f"multipart with {name}", (400, 422), "", path=path, options=options)


def _batches() -> Iterator[BadInput]:
    bodies: dict[str, Any] = {
        "nothing": {},
        "no question": {"questions": []},
        "a text": {"questions": "1"},
        "65 questions": {"questions": [{"text": "1"}] * 65},
        "a question that is a text": {"questions": ["1"]},
        "one wrong k": {"questions": [{"text": "1"}, {"text": "1", "k": "5"}]},
        "an unknown field": {"questions": [{"text": "1"}], "k": 5},
    }
    for name, body in bodies.items():
        yield BadInput(
            f"a batch: {name}", 422, "k" if name == "an unknown field" else "questions", path="/v1/search/batch", options={"json": body}
        )


def _reading() -> Iterator[BadInput]:
    for name, body in {
        "k of text": {"k": "5"},
        "k of true": {"k": True},
        "k of 1.0": {"k": 1.0},
        "k of 0": {"k": 0},
        "k beyond the most": {"k": 51},
        "k beyond all": {"k": 10**30},
    }.items():
        yield BadInput(name, 422, "k", path="/v1/browse", options={"json": body})
    for name, cursor in {"nobody": "nobody", "half a surrogate pair": SURROGATE, "a long text": "x" * 5000}.items():
        yield BadInput(f"a cursor: {name}", (409, 422), "cursor", path="/v1/browse", options=as_sent({"cursor": cursor}))
    yield BadInput("an unknown field", 422, "text", path="/v1/browse", options={"json": {"text": "1"}})
    for name, body in {
        "no columns": {"columns": []},
        "columns as text": {"columns": "camera_id"},
        "an unknown column": {"columns": ["nothing"]},
        "the vectors": {"columns": ["embedding"]},
        "half a surrogate pair": {"columns": [SURROGATE]},
        "33 columns": {"columns": ["camera_id"] * 33},
        "a number": {"columns": [1]},
    }.items():
        yield BadInput(name, 422, "column", path="/v1/facets", options=as_sent(body))
    for name, limit in {"0": 0, "text": "5", "true": True, "too many": 1001, "1.5": 1.5}.items():
        yield BadInput(f"a limit of {name}", 422, "limit", path="/v1/facets", options={"json": {"columns": ["camera_id"], "limit": limit}})
    for path in ("/v1/items", "/v1/thumbnails"):
        yield BadInput("no id", 422, "id", "GET", path)
        ids = (
            "nobody",
            "-1",
            "../../etc/passwd",
            "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "%00",
            "%ff%fe",
            "%ed%a0%bd",
            "a" * 4000,
            "0%2f..%2f1",
            "",
        )
        for value in ids:
            yield BadInput(f"the id {value[:40]}", 404, "id", "GET", f"{path}?id={value}")
        yield BadInput("an id that is longer than any", 422, "id", "GET", f"{path}?id={'a' * 5000}")


def _explanations() -> Iterator[BadInput]:
    bodies: dict[str, tuple[Any, int, str]] = {
        "nothing": ({}, 422, "item_id"),
        "no question": ({"item_id": "1"}, 422, "text"),
        "text and clues": ({"item_id": "1", "text": "1", "clues": [{"text": "1"}]}, 422, "text"),
        "an item by number": ({"item_id": 1, "text": "1"}, 422, "item_id"),
        "an item that is not there": ({"item_id": "nobody", "text": "1"}, 404, "item_id"),
        "an item by a path": ({"item_id": "../1", "text": "1"}, 404, "item_id"),
        "an item by half a surrogate pair": ({"item_id": SURROGATE, "text": "1"}, 422, "item_id"),
        "an item by 5,000 letters": ({"item_id": "x" * 5000, "text": "1"}, 422, "item_id"),
        "a text without a vector": ({"item_id": "1", "text": "1 nan"}, 422, "not_finite"),
        "an empty text": ({"item_id": "1", "text": " "}, 422, "text"),
        "clues that cancel out": ({"item_id": "1", "clues": [{"text": "1"}, {"item": "1", "weight": -1}]}, 422, "cancel"),
        "a clue that is not there": ({"item_id": "1", "clues": [{"item": "nobody"}]}, 422, "item"),
        "no picture": ({"item_id": "1", "clues": [{"image": "eHg="}]}, 422, "not_an_image"),
        "a number of hits": ({"item_id": "1", "text": "1", "k": 3}, 422, "k"),
    }
    for name, (body, status, names) in bodies.items():
        yield BadInput(f"an explanation of {name}", status, names, path="/v1/explain", options=as_sent(body))


def _changes() -> Iterator[BadInput]:
    which: dict[str, tuple[Any, str]] = {
        "nothing": ({}, "item_ids"),
        "both": ({"item_ids": ["1"], "where": {"camera_id": 1}}, "item_ids"),
        "no ids": ({"item_ids": []}, "item_ids"),
        "an id by number": ({"item_ids": [1]}, "item_ids"),
        "an empty id": ({"item_ids": [""]}, "item_ids"),
        "an id by half a surrogate pair": ({"item_ids": [SURROGATE]}, "item_ids"),
        "an id of 5,000 letters": ({"item_ids": ["x" * 5000]}, "item_ids"),
        "a filter that everything passes": ({"where": {}}, "where"),
        "an unknown column": ({"where": {"nothing": 1}}, "filter"),
        "a filter beyond 64 bits": ({"where": {"camera_id": 2**70}}, "filter"),
        "a filter of NaN": ({"where": {"camera_id": float("nan")}}, "camera_id"),
        "an expectation as text": ({"where": {"camera_id": 1}, "expect": "4"}, "expect"),
        "an expectation of true": ({"where": {"camera_id": 1}, "expect": True}, "expect"),
        "an expectation of 4.0": ({"where": {"camera_id": 1}, "expect": 4.0}, "expect"),
        "an expectation below 0": ({"where": {"camera_id": 1}, "expect": -1}, "expect"),
        "an unknown field": ({"item_ids": ["1"], "force": True}, "force"),
    }
    for verb, beside in (("delete", {}), ("erase", {"request": "letter"})):
        for name, (body, names) in which.items():
            yield BadInput(f"{verb}: {name}", 422, names, path=f"/v1/items/{verb}", options=as_sent({**body, **beside}))
    yield BadInput("another number", 409, "expect", path="/v1/items/delete", options={"json": {"where": {"camera_id": 1}, "expect": 9}})
    for name, request in {
        "a path": "../x",
        "a blank": "a b",
        "a line": "a\n",
        "nothing": "",
        "a number": 5,
        "200 letters": "x" * 200,
    }.items():
        yield BadInput(
            f"a request of {name}", 422, "request", path="/v1/items/erase", options={"json": {"item_ids": ["1"], "request": request}}
        )
        yield BadInput(f"a name of {name}", 422, "name", path="/v1/snapshots", options={"json": {"name": request}})
    yield BadInput("now as text", 422, "now", path="/v1/items/erase", options={"json": {"item_ids": ["1"], "request": "a", "now": "yes"}})
    for name in ("nothing", "..%2f..%2fetc", "%00", "%ff", "x" * 150):
        yield BadInput(f"the name {name[:20]}", (404, 422), "", path=f"/v1/snapshots/{name}/restore")
        yield BadInput(f"the name {name[:20]}", (404, 422), "", "DELETE", f"/v1/snapshots/{name}")
        yield BadInput(f"the request {name[:20]}", (404, 422), "", "GET", f"/v1/erasures/{name}")


def _jobs() -> Iterator[BadInput]:
    good = {"image": ("x.png", png(8, 16))}
    forms: dict[str, tuple[dict[str, Any], str]] = {
        "JSON": ({"json": {}}, ""),
        "nothing": ({}, ""),
        "items that are no JSON": ({"files": good, "data": {"items": "{"}}, "items"),
        "items that are no list": ({"files": good, "data": {"items": "{}"}}, "items"),
        "items of another file": ({"files": good, "data": {"items": '[{"file": "y.png"}]'}}, ""),
        "an item's camera of NaN": ({"files": good, "data": {"items": '[{"file": "x.png", "camera_id": NaN}]'}}, "items"),
        "items nested 50,000 deep": ({"files": good, "data": {"items": "[" * 50_000}}, "items"),
        "caption of maybe": ({"files": good, "data": {"caption": "maybe"}}, "caption"),
        "an unknown field": ({"files": good, "data": {"colour": "red"}}, "colour"),
        "a table that is none": ({"files": {"table": ("t.parquet", b"PAR1 no table")}}, "table"),
        "a table and pictures": ({"files": {**good, "table": ("t.parquet", b"PAR1")}}, "table"),
    }
    for name, (options, names) in forms.items():
        yield BadInput(f"a job of {name}", (400, 415, 422), names, path="/v1/jobs", options=options)
    for wait in ("nan", "inf", "-1", "61", "soon", "true"):
        yield BadInput(f"to wait {wait}", 422, "wait", path=f"/v1/jobs?wait={wait}", options={"files": good})
        yield BadInput(f"to wait {wait}", 422, "wait", "GET", f"/v1/jobs/1?wait={wait}")
    for job in ("nothing", "..%2f..%2fetc", "%00", "%ff", "x" * 150):
        yield BadInput(f"the job {job[:20]}", (404, 422), "", "GET", f"/v1/jobs/{job}")
        yield BadInput(f"the job {job[:20]}", (404, 422), "", "DELETE", f"/v1/jobs/{job}")


def _access() -> Iterator[BadInput]:
    logins: dict[str, tuple[Any, int, str]] = {
        "nothing": ({}, 422, "token"),
        "a token by number": ({"token": 5}, 422, "token"),
        "a token of null": ({"token": None}, 422, "token"),
        "a token of half a surrogate pair": ({"token": SURROGATE}, 422, "token"),
        "a token of 300 letters": ({"token": "x" * 300}, 422, "token"),
        "a purpose by number": ({"token": "x", "purpose": 5}, 422, "purpose"),
        "a purpose of 600 letters": ({"token": "x", "purpose": "x" * 600}, 422, "purpose"),
        "an unknown field": ({"token": "x", "role": "admin"}, 422, "role"),
        "a token, where there are none": ({"token": "x"}, 409, "no tokens"),
        "a body of 100 kB": ({"token": "x", "purpose": "x" * 100_000}, 413, "larger"),
    }
    for name, (body, status, names) in logins.items():
        yield BadInput(f"a login with {name}", status, names, path="/v1/login", options=as_sent(body))
    for name in ("limit", "before"):
        for value in ("0", "-1", "many", "1.5", "true", "nan", "", "%ff"):
            yield BadInput(f"{name}={value}", 422, name, "GET", f"/v1/audit?{name}={value}")
    yield BadInput("limit=1001", 422, "limit", "GET", "/v1/audit?limit=1001")
    for purpose in ("x" * 600, "a\tb", "é"):
        headers = {"Reid-Purpose": purpose.encode("latin-1"), **JSON_TYPE}
        yield BadInput(f"a purpose {purpose[:9]!r}", (400, 422), "", options={"content": b'{"text": "1", "k": 0}', "headers": headers})


def _routes() -> Iterator[BadInput]:
    methods = {
        "/v1/search": ("GET", "PUT", "DELETE", "PATCH"),
        "/v1/search/upload": ("GET", "PUT"),
        "/v1/search/batch": ("GET",),
        "/v1/explain": ("GET", "PUT"),
        "/v1/browse": ("GET", "DELETE"),
        "/v1/facets": ("GET",),
        "/v1/info": ("POST", "DELETE"),
        "/v1/items": ("POST", "PATCH"),
        "/v1/items/delete": ("GET", "DELETE"),
        "/v1/jobs": ("PUT", "DELETE"),
        "/v1/erasures": ("POST",),
        "/v1/generations": ("POST",),
        "/v1/snapshots": ("GET",),
        "/v1/compact": ("GET",),
        "/v1/login": ("GET", "PUT"),
        "/v1/logout": ("GET",),
        "/v1/audit": ("POST", "DELETE"),
        "/metrics": ("POST",),
        "/v1/thumbnails": ("PUT",),
        "/v1/live": ("POST",),
        "/v1/ready": ("DELETE",),
        "/openapi.json": ("POST",),
        "/": ("POST",),
    }
    for path, wrong in methods.items():
        for method in wrong:
            yield BadInput("the wrong method", 405, "", method, path)
    for path in (
        "/v2/search",
        "/search/text",
        "/v1",
        "/v1/search/",
        "/v1/../v1/nothing",
        "/v1/%2e%2e/etc/passwd",
        "/docs",
        "/.env",
        "/v1//search",
    ):
        yield BadInput("an unknown path", (307, 404), "", "GET", path)
    yield BadInput(
        "a header of 100,000 letters that counts for nothing", 422, "k", options={"json": {"k": 0}, "headers": {"X-Long": "x" * 100_000}}
    )
    yield BadInput("a header that is no ASCII", 400, "x-name", options={"json": {"k": 0}, "headers": {"X-Name": "é".encode("latin-1")}})
