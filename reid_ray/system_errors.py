"""Translation of operating-system and library errors (disk full, permission denied, damaged file) into one sentence with file and remedy.

Knows error numbers, and how Ray, Ray Train, pyarrow and others wrap them; not jobs. What is in no table here is taken for a fault of
this program: it keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reid_ray.errors import ReidRayError

# Faults of the place, whatever the program does; a library's error about one counts however deep it lies, and in words too.
_OF_THE_PLACE = {
    errno.ENOSPC: "the disk is full; free space there, or choose a place that has more",
    errno.EDQUOT: "the quota of this user is used up; free space there, or choose another place",
    errno.EROFS: "the file system is read-only; choose a place that can be written to",
    errno.EIO: "the disk answers with input/output errors; see the system's log, and choose another place",
    errno.ESTALE: "the network file system has lost the file; mount it again, and run the job again",
}
# Faults that say something about a path or a limit; they count where they are raised, or named as the cause.
_OF_THE_PATH = {
    errno.EACCES: "permission denied; let this user read or write there, or choose another place",
    errno.EPERM: "the system does not permit it; let this user read or write there, or choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EISDIR: "is a folder where a file is meant; move it away, or choose another place",
    errno.ENAMETOOLONG: "the name is longer than the file system allows; choose a shorter one",
    errno.ELOOP: "links lead round in a circle; mend the link, or choose another place",
    errno.EBUSY: "is in use, such as a place where something is mounted; choose a folder below it, or another place",
    errno.EXDEV: "lies on two file systems; choose a place on one",
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system can open no more files; close other programs, or raise its limit (fs.file-max)",
    errno.EFBIG: "the file would be larger than is allowed here; raise the limit (ulimit -f), or choose another file system",
    errno.ENOMEM: "no memory is left; close other programs, or give the job less at a time",
    errno.EPIPE: "whoever read the output is gone, so it could not be written; run the job without the pipe, or into a file",
    errno.ECONNREFUSED: "nothing answers there; check the address, and that the other side runs",
    errno.ECONNRESET: "the other side closed the connection; check that it runs, and run the job again",
    errno.ETIMEDOUT: "no answer in time; check the address and the network, and run the job again",
    errno.EHOSTUNREACH: "the other side cannot be reached; check the address and the network",
    errno.ENETUNREACH: "there is no network to the other side; check the address and the network",
}
_SENTENCES = {**_OF_THE_PLACE, **_OF_THE_PATH}
_NUMBER = re.compile(r"(?:\[errno |\(os error |\berrno[ =:]+)(\d+)", re.IGNORECASE)
# Libraries that do not say why fewer bytes than given were written (sqlite3, numpy, torch): a full disk is the only usual cause.
_FULL = r"database or disk is full|\d+ requested and \d+ written|inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing"
_WORDS = re.compile("|".join([f"(?P<full>{_FULL})", *(re.escape(os.strerror(number)) for number in _OF_THE_PLACE)]))
_PATH = re.compile(r"(?:file|folder|directory|path|source|name =|:) ['\"]([^'\"\n]*/[^'\"\n]*)['\"]")
_OURS = re.compile(r"reid_ray\.errors\.\w+: (.+)")
_OF_SYSTEM = re.compile(r"[\w.]*(?:Error|Interrupt)\w*: \[Errno (?P<number>\d+)\] [^:]*?(?:: ['\"](?P<path>.+?)['\"])?(?: -> .*)?")
_DAMAGED = re.compile(
    r"(parquet|arrow|ipc).*(magic|footer|file size|corrupt|truncated|damaged)|deserialize thrift|page (header|was smaller)|"
    r"(snappy|zstd|gzip|lz4|brotli).*(corrupt|failed|invalid|error)|unexpected end of (file|stream)",
    re.IGNORECASE,
)


def sentence_of(error: BaseException, *, place: str | None = None, user_paths: Sequence[str] = ()) -> str | None:
    """What a user can mend about an error, in one sentence; None if it is a fault of the program.

    Args:
        error: what ended a job.
        place: named where the error names no file: where the job writes.
        user_paths: what the names of a user's files begin with, absolute. One of them that is missing was moved or removed while the job
            ran; any other missing file is a fault of the program.
    """
    for link in _links(error):
        if isinstance(link, ReidRayError) and not _is_rays(link):
            return str(link)
        sentence = _of_link(link, place, user_paths)
        if sentence is not None:
            return sentence
    for link in _links(error, contexts=True):
        number = _number_of(link)
        if number in _OF_THE_PLACE:
            return _told(link, number, place)
    return None


def _links(error: BaseException, *, contexts: bool = False) -> Iterator[BaseException]:
    """An error and what it says caused it, outermost first; with `contexts` also what was being handled when it was raised."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        fields = vars(link)
        inner = [fields.get("cause"), link.__cause__, fields.get("controller_failure"), fields.get("training_failed_error")]
        inner += list(getattr(link, "exceptions", ())) if isinstance(link, BaseExceptionGroup) else []
        failures = fields.get("worker_failures")
        inner += list(failures.values()) if isinstance(failures, dict) else []
        inner += [link.__context__] if contexts else []
        waiting += [each for each in inner if isinstance(each, BaseException)]


def _of_link(link: BaseException, place: str | None, user_paths: Sequence[str]) -> str | None:
    said = _said_in_traceback(str(link), place) if _is_rays(link) else None
    number = _number_of(link)
    if said is None and number is not None and number in _SENTENCES:
        said = _told(link, number, place)
    if said is None and isinstance(link, FileNotFoundError):
        missing = _path_of(link)
        if missing is not None and os.path.abspath(missing).startswith(tuple(user_paths)):
            said = f"{missing}: is not there any more; leave a job's files in place until it is done, and run it again"
    if said is None and isinstance(link, MemoryError):
        said = f"{place or 'the job'}: {_SENTENCES[errno.ENOMEM]}"
    if said is None and type(link).__module__.partition(".")[0] == "pyarrow" and _DAMAGED.search(str(link)):
        said = f"{_path_in(str(link)) or 'an input'}: is not a whole Parquet or Arrow file ({_first_line(link)}); write it again"
    if said is None and type(link).__name__ in ("OutOfDiskError", "ObjectStoreFullError"):
        said = "Ray's object store found no room on its disk; free space there, or start Ray elsewhere (RAY_TMPDIR)"
    return said


def _said_in_traceback(text: str, place: str | None) -> str | None:
    """What a traceback as text says that a user can mend; Ray keeps of a task's error only the text of its causes.

    Looked at is the last line of the traceback, and that of each error which is named as the direct cause of the next.
    """
    for part in reversed(text.split("The above exception was the direct cause")):
        line = part.strip().rpartition("\n")[2]
        ours = _OURS.fullmatch(line)
        if ours is not None:
            return ours[1]
        system = _OF_SYSTEM.fullmatch(line)
        if system is not None and int(system["number"]) in _SENTENCES:
            return f"{system['path'] or place or 'the job'}: {_SENTENCES[int(system['number'])]}"
    return None


def _number_of(link: BaseException) -> int | None:
    """The error number of a link: its own, or the one that a library put into words; of a wrapped error's text only of the place."""
    if isinstance(link, OSError) and link.errno is not None and not _is_rays(link):
        return link.errno
    if isinstance(link, (SyntaxError, NameError, AttributeError, AssertionError)):
        return None  # a program's own: whatever its words say
    text = str(link)
    found = [int(number) for number in _NUMBER.findall(text)]
    number = next((each for each in found if each in (_OF_THE_PLACE if _is_rays(link) else _SENTENCES)), None)
    if number is not None:
        return number
    words = _WORDS.search(text)
    if words is None:
        return None
    return errno.ENOSPC if words["full"] else next(each for each in _OF_THE_PLACE if os.strerror(each) == words[0])


def _is_rays(link: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(link).__mro__)


def _told(link: BaseException, number: int, place: str | None) -> str:
    fallback = "standard output" if number == errno.EPIPE else place or "the job"
    return f"{_path_of(link) or fallback}: {_SENTENCES[number]}"


def _path_of(link: BaseException) -> str | None:
    """The file that an error is about, by its fields or its words; of a renaming both."""
    names = [link.filename, link.filename2] if isinstance(link, OSError) and not _is_rays(link) else []
    named = " -> ".join(os.fsdecode(name) for name in names if isinstance(name, (str, bytes, Path)) and name)
    text = str(link)
    return named or _path_in(text) or (text if text.startswith("/") and "\n" not in text else None)


def _path_in(text: str) -> str | None:
    found = _PATH.search(text)
    return None if found is None else found[1]


def _first_line(link: BaseException) -> str:
    return str(link).strip().partition("\n")[0].rstrip(".")[:200]
