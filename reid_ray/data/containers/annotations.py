"""Streaming JSON and text parsing with encoding detection: every reader's one way, whatever editor or script wrote a file.

UTF-8 with or without a mark, and UTF-16 and UTF-32 with one; other encodings are refused, never guessed. JSON as Python and pandas
write it, NaN and Infinity included: they are values, for the reader to judge. Large files stream record by record, so that a list of
millions costs no memory. Knows syntax; what a value means is for `values` and the readers.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store
from reid_ray.storage.regular_files import raise_if_system

_CHUNK = 1 << 20
MAX_RECORD = 64 << 20  # characters: a longer record is a quotation mark that is missing
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class RepeatedKeys(dict[str, Any]):
    """A JSON object that says some keys more than once, so that nobody can tell what it means; holds the last value of each."""

    repeated: tuple[str, ...] = ()


def stream_list(store: Store, file: str) -> Iterator[Any]:
    """The items of a JSON list, one at a time.

    Raises:
        DataError: the file cannot be read, is no text, holds no JSON list, or breaks off.
    """
    with _open_json(store, file) as text:
        text.begin("[", "a JSON list of records")
        while text.peek() != "]":
            yield text.value()
            if text.peek() != "]":
                text.take(",")
                text.expect_value()
        text.take("]")
        text.end()


def stream_pairs(store: Store, file: str) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of a JSON object, one at a time, a repeated key as often as it is there.

    Raises:
        DataError: as stream_list.
    """
    with _open_json(store, file) as text:
        text.begin("{", "a JSON object")
        while text.peek() != "}":
            if text.peek() != '"':
                raise text.wrong("a key should be a text in quotation marks")
            key = text.value()
            text.take(":")
            yield key, text.value()
            if text.peek() != "}":
                text.take(",")
                text.expect_value()
        text.take("}")
        text.end()


def first_character(store: Store, file: str) -> str:
    """The first character of a JSON file that is not blank; empty where there is none.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    with _open_json(store, file) as text:
        return text.peek(end="")


def text_lines(store: Store, file: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end and outer blanks) of every line that is not blank.

    Outer blanks are spaces and tabs too, so an empty first or last column of a table with tabs is lost: split such a file by other means.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    origin = f"{store}/{file}"
    with _open_file(store, file) as stream, io.TextIOWrapper(stream, encoding=_codec(_head(stream), origin)) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()
        except UnicodeDecodeError as error:
            raise _not_text(origin, error) from None


def parse_json(data: bytes) -> Any:
    """A small JSON text that is at hand.

    Raises:
        ValueError: it is no text or no JSON; says what is wrong, not with which file.
    """
    text = decode_text(data)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg}, at {text[error.pos : error.pos + 20]!r})") from None
    except RecursionError:
        raise ValueError("is no JSON that can be read (nested too deeply)") from None


def decode_text(data: bytes) -> str:
    """A small text that is at hand, without its mark.

    Raises:
        ValueError: its encoding is none that can be told for sure.
    """
    try:
        return data.decode(_codec(data[:4], "it"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text ({error.reason}: byte 0x{error.object[error.start]:02x} at {error.start})") from None
    except DataError:
        raise ValueError("is UTF-16 without a mark") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = [name for name, _ in pairs]
    repeating = RepeatedKeys(made)
    repeating.repeated = tuple(name for name in made if names.count(name) > 1)
    return repeating


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 64 else digits  # Python refuses to read numbers of thousands of digits


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


class _Json:
    """JSON text that is read as it is needed; says in its errors which record was next."""

    def __init__(self, stream: BinaryIO, origin: str) -> None:
        head = _head(stream)
        self._stream, self._origin = stream, origin
        self._decoder = codecs.getincrementaldecoder(_codec(head, origin))()
        self._text, self._at, self._bytes, self._values = "", 0, 0, 0
        self._ended = False

    def begin(self, bracket: str, what: str) -> None:
        """Take the opening bracket of the whole."""
        found = self.peek(end="")
        if found == bracket:
            self._at += 1
            return
        if not found:
            raise DataError(f"{self._origin}: is empty, but should be {what}")
        if bracket == "[" and found == "{" and self._is_json_lines():
            raise DataError(
                f"{self._origin}: looks like JSON lines, a record a line, but should be {what}: put [ ] around and commas between"
            )
        raise DataError(f"{self._origin}: should be {what}, but begins with {self._text[self._at : self._at + 20]!r}")

    def peek(self, end: str | None = None) -> str:
        """The next character that is not blank; `end` at the end of the file.

        Raises:
            DataError: the file has ended, if no `end` is given.
        """
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                if end is None:
                    raise self.cut()
                return end

    def take(self, character: str) -> None:
        """Pass over the next character, which must be this one."""
        if self.peek() != character:
            raise self.wrong(f"there should be a {character}")
        self._at += 1

    def expect_value(self) -> None:
        """After a comma there must be more."""
        if self.peek() in "]}":
            raise self.wrong("there should be a value after the comma")

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            problem: json.JSONDecodeError | None = None
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if self._ended or (end < len(self._text) and self._text[end] not in ".eE"):  # else a number may go on
                    self._at = end
                    self._values += 1
                    return value
            except json.JSONDecodeError as error:
                problem = error
            except RecursionError:
                raise self.wrong("it is nested too deeply") from None
            if len(self._text) - self._at > MAX_RECORD:
                raise self.wrong(f"it is longer than {MAX_RECORD >> 20} MiB; a quotation mark may be missing")
            if not self._more() and problem is not None:
                if problem.msg.startswith("Unterminated") or problem.pos >= len(self._text):
                    raise self.cut()
                self._at = problem.pos
                raise self.wrong(problem.msg)

    def end(self) -> None:
        """Refuse whatever follows the whole."""
        if found := self.peek(end=""):
            hint = "it looks like JSON lines, but should be one JSON value" if found == "{" else "put each into a file of its own"
            raise DataError(f"{self._origin}: goes on after the end of its JSON with {self._text[self._at : self._at + 20]!r}; {hint}")

    def cut(self) -> DataError:
        """The error of a file that ends too early."""
        return DataError(
            f"{self._origin}: is not whole JSON (it breaks off in record {self._values}, counted from 0); fetch the file again"
        )

    def wrong(self, what: str) -> DataError:
        """The error of a text that is no JSON here."""
        near = self._text[self._at : self._at + 20]
        return DataError(f"{self._origin}: is no JSON at record {self._values}, counted from 0 ({what}, at {near!r}); mend the file there")

    def _more(self) -> bool:
        """Read on, as much again as is still needed, so that a long value is tried few times; False at the end of the file."""
        if self._ended:
            return False
        self._text = self._text[self._at :]
        self._at = 0
        try:
            data = self._stream.read(max(_CHUNK, len(self._text)))
            self._ended = not data
            self._text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _not_text(f"{self._origin}: near record {self._values}", error, self._bytes) from None
        except OSError as error:
            raise_if_system(error)
            raise DataError(f"{self._origin}: cannot be read ({error})") from None
        self._bytes += len(data)
        return True

    def _is_json_lines(self) -> bool:
        try:
            _, end = _DECODER.raw_decode(self._text, self._at)
        except (json.JSONDecodeError, RecursionError):
            return False
        return self._text[end:].lstrip().startswith("{") and "\n" in self._text[end : end + 4]


@contextmanager
def _open_json(store: Store, file: str) -> Iterator[_Json]:
    with _open_file(store, file) as stream:
        yield _Json(stream, f"{store}/{file}")


@contextmanager
def _open_file(store: Store, file: str) -> Iterator[BinaryIO]:
    try:
        stream = store.open(file)
    except OSError as error:
        raise_if_system(error)
        raise DataError(f"{store}/{file}: cannot be read ({error})") from None
    with stream:
        yield stream


def _head(stream: BinaryIO) -> bytes:
    head = stream.read(4)
    stream.seek(0)
    return head


def _codec(head: bytes, origin: str) -> str:
    marked = next((codec for mark, codec in _MARKS if head.startswith(mark)), None)
    if marked is None and b"\0" in head:
        raise DataError(f"{origin}: is no UTF-8 text (it looks like UTF-16 without a mark, or like no text at all); save it as UTF-8")
    return marked or "utf-8"


def _not_text(origin: str, error: UnicodeDecodeError, before: int = 0) -> DataError:
    byte = f"byte 0x{error.object[error.start]:02x}" if error.start < len(error.object) else "its end"
    return DataError(
        f"{origin}: is no {error.encoding.upper()} text ({error.reason}: {byte}, about {before + error.start:,} bytes in); save it as UTF-8"
    )
