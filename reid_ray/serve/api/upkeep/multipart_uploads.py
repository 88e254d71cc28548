"""Reading multipart/form-data as it comes: files go to an upload on the disk, small fields to memory; nothing is held whole.

Starlette's own reader keeps every file up to a megabyte in memory, and others in TMPDIR, before a route sees the first. Knows multipart;
not what the fields mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from reid_ray.serve.adding.uploads import Upload
from reid_ray.serve.api.problems import BadRequestError

_NAME_CHARS = 1_000


class FormReader:
    """Reads one form.

    Args:
        content_type: of the request.
        files: names of the fields that are files.
        fields: of those that are not, with the most bytes of each.
        upload: where files go.

    Attributes:
        values: the fields' texts.
        kinds: the name of the field of each file.

    Raises:
        BadRequestError: it is no multipart form.
    """

    def __init__(self, content_type: str, *, files: frozenset[str], fields: Mapping[str, int], upload: Upload) -> None:
        kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data":
            raise BadRequestError("the body must be multipart/form-data")
        if not 0 < len(boundary) <= 200:
            raise BadRequestError("the body's boundary is missing or too long", status=400)
        self._files, self._fields, self._upload = files, fields, upload
        self.values: dict[str, str] = {}
        self.kinds: list[str] = []
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = bytearray()
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_header,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._take_data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    async def read(self, body: AsyncIterator[bytes]) -> None:
        """Read it all.

        Raises:
            BadRequestError: it is malformed, or has unknown fields.
            TooLargeError: more bytes or files than the upload takes.
        """
        try:
            async for data in body:
                if data:
                    await asyncio.to_thread(self._parser.write, data)
            self._parser.finalize()
        except FormParserError as error:
            raise BadRequestError(f"the body is no well-formed multipart/form-data ({str(error)[:100]})", status=400) from None
        if not self._is_over:
            raise BadRequestError("the body breaks off before the end of its form", status=400)

    def _begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _begin_data(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name in self._files:
            file = options.get(b"filename", b"").decode("utf-8", "replace")[:_NAME_CHARS]
            self._field = None
            self.kinds.append(name)
            self._upload.begin_file(file or f"{name} {len(self.kinds)}")
        elif name in self._fields and name not in self.values:
            self._field, self._text = name, bytearray()
        else:
            known = ", ".join([*sorted(self._files), *self._fields])
            raise BadRequestError(f"the form has a field {name[:60]!r} that is unknown or there twice; there are {known}")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._upload.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > self._fields[self._field]:
            raise BadRequestError(f"{self._field}: is larger than {self._fields[self._field]:,} bytes", status=413)

    def _end(self) -> None:
        if self._field is not None:
            try:
                self.values[self._field] = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise BadRequestError(f"{self._field}: is not UTF-8") from None

    def _finish(self) -> None:
        self._is_over = True
