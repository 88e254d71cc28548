"""The tokens file: who may ask the service, as what, until when. JSON of mode 0600 that holds no token, only salted digests.

A token is `reidray_ID_SECRET`: ID finds its entry, SECRET are 256 random bits, so that a single SHA-256 is enough to keep it. Every change
reads, changes and replaces the file under a lock beside it: two commands at once lose nothing, and whoever reads sees it whole. Knows
files and entries; not requests.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from reid_ray.errors import ConfigError, DataError
from reid_ray.serve.access.roles import AccessRole
from reid_ray.storage.files import replacing, sync
from reid_ray.storage.regular_files import read_regular
from reid_ray.versions import check_json, number_of

PREFIX = "reidray"
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LONGEST = 16 << 20  # bytes of a tokens file
_NOBODY = hashlib.sha256(b"").hexdigest()  # what a token without an entry is compared with, so that it takes as long


@dataclass(frozen=True)
class TokenEntry:
    """A token as the file holds it. `created` and `expires` are seconds since 1970; `expires` None: never."""

    id: str
    name: str
    role: AccessRole
    salt: str
    digest: str
    created: float
    expires: float | None

    def valid_at(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


def digest_of(secret: str, salt: str) -> str:
    """Salted SHA-256 of a token's secret, hex."""
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()


def entry_of(token: str, entries: Mapping[str, TokenEntry]) -> TokenEntry | None:
    """The entry of `entries` (by id) that a token proves to belong to, expired or not; compared in constant time."""
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        return None
    entry = entries.get(parts[1])
    same = hmac.compare_digest(digest_of(parts[2], entry.salt if entry else "00"), entry.digest if entry else _NOBODY)
    return entry if same else None


def read_tokens(path: Path) -> list[TokenEntry]:
    """The entries of a tokens file.

    Raises:
        DataError: it is missing, others may write to it, or it holds something else.
    """
    try:
        status = path.stat()
        data = read_regular(path, limit=_LONGEST)
    except OSError as error:
        raise DataError(
            f"{path}: the tokens file cannot be read ({error.strerror}); make one: reid-ray tokens create NAME --role search {path}"
        ) from None
    if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise DataError(f"{path}: others than you and root may write to this tokens file; chown it to yourself and chmod 600 it")
    return parsed_tokens(path, data)


def parsed_tokens(path: Path, data: bytes) -> list[TokenEntry]:
    """The entries of a tokens file's bytes.

    Raises:
        DataError: they are something else; names what is wrong.
    """
    try:
        found = json.loads(data)
        check_json("tokens", found, origin=path)
        entries = [TokenEntry(**{**row, "role": AccessRole.named(row["role"])}) for row in found["tokens"]]
        sound = all(map(_is_sound, entries)) and len({entry.id for entry in entries}) == len(entries)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is no tokens file ({type(error).__name__}); restore it, or move it away and make a new one") from None
    if not sound:
        raise DataError(f"{path}: is no tokens file (a value of a wrong kind, or two entries of one id); restore it")
    return entries


def _is_sound(entry: TokenEntry) -> bool:
    texts = (entry.id, entry.name, entry.salt, entry.digest)
    if not all(isinstance(text, str) for text in texts) or not _NAME.fullmatch(entry.name):
        return False
    times = (entry.created, *(() if entry.expires is None else (entry.expires,)))
    return (
        all(isinstance(each, int | float) and not isinstance(each, bool) for each in times)
        and re.fullmatch(r"[0-9a-f]{12}", entry.id) is not None
        and re.fullmatch(r"(?:[0-9a-f]{2}){16,}", entry.salt) is not None
        and re.fullmatch(r"[0-9a-f]{64}", entry.digest) is not None
    )


def create_token(path: Path, name: str, role: AccessRole, *, days: float | None) -> str:
    """Add a token to the file, which is made if it is not there. Returns the token: nothing else ever knows it.

    Raises:
        ConfigError: the name is taken or no name, or `days` is no time to come.
        DataError: the file is none of ours.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: a token's name has up to 64 letters, digits and . _ @ -, and begins with a letter or digit")
    token, entry = _made(name, role, _expiry(days))

    def add(entries: list[TokenEntry]) -> list[TokenEntry]:
        if any(each.name == name for each in entries):
            raise ConfigError(f"{name}: {path} has a token of this name; rotate or revoke it, or choose another name")
        return [*entries, entry]

    _change(path, add, may_make=True)
    return token


def rotate_token(path: Path, name: str, *, days: float | None, keep_hours: float = 0.0) -> str:
    """Replace a token by a new one of the same name and role; the old one stays valid for `keep_hours`. Returns the new token.

    Raises:
        ConfigError: there is none of this name, or a number is out of range.
        DataError: the file is none of ours.
    """
    if not 0 <= keep_hours <= 24 * 366:
        raise ConfigError(f"--keep-hours {keep_hours:g}: must be between 0 and 8784, a year")
    expires, made = _expiry(days), []

    def replace(entries: list[TokenEntry]) -> list[TokenEntry]:
        now = time.time()
        old = [each for each in _named(path, entries, name) if each.valid_at(now)] if keep_hours else []
        end = now + keep_hours * 3600
        kept = [TokenEntry(**{**each.__dict__, "expires": min(end, each.expires or end)}) for each in old]
        token, entry = _made(name, max(each.role for each in _named(path, entries, name)), expires)
        made.append(token)
        return [each for each in entries if each.name != name] + kept + [entry]

    _change(path, replace)
    return made[0]


def revoke_token(path: Path, name: str) -> None:
    """Take a token, and what rotating left of it, out of the file.

    Raises:
        ConfigError: there is none of this name.
        DataError: the file is none of ours.
    """
    _change(path, lambda entries: [each for each in entries if each not in _named(path, entries, name)])


def _named(path: Path, entries: Sequence[TokenEntry], name: str) -> list[TokenEntry]:
    found = [each for each in entries if each.name == name]
    if not found:
        raise ConfigError(f"{name}: {path} has no token of this name; reid-ray tokens list {path} shows those it has")
    return found


def _expiry(days: float | None) -> float | None:
    if days is not None and not 0 < days <= 36_600:
        raise ConfigError(f"--days {days:g}: must be above 0, and at most 36600")
    return None if days is None else time.time() + days * 86_400


def _made(name: str, role: AccessRole, expires: float | None) -> tuple[str, TokenEntry]:
    token_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
    entry = TokenEntry(token_id, name, role, salt, digest_of(secret, salt), time.time(), expires)
    return f"{PREFIX}_{token_id}_{secret}", entry


def _change(path: Path, change: Callable[[list[TokenEntry]], list[TokenEntry]], *, may_make: bool = False) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: there is no such folder; make it, or name another place for the tokens file")
    target = path.resolve()  # behind a link: the link stays
    with _locked(target):
        entries = [] if may_make and not target.exists() else read_tokens(target)
        rows = [{**asdict(entry), "role": entry.role.word} for entry in change(entries)]
        text = json.dumps({"format": number_of("tokens"), "tokens": rows}, indent=2) + "\n"
        with replacing(target) as hidden:
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            sync(hidden)
        sync(target.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
