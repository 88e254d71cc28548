"""Access to a model hub: a repository's files in this machine's cache, and each way it can fail as one sentence.

The only file that imports huggingface_hub. Knows names, files and the hub's answers; loads nothing and knows no node but this one. A name
is ORGANISATION/MODEL or ORGANISATION/MODEL@REVISION. A branch or tag is asked for once: from then on it stands for the commit that this
machine's cache has of it, so that a run tomorrow takes the weights of today. A download that broke off goes on with the files that are not
whole yet.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from reid_ray.errors import ConfigError, DataError
from reid_ray.terminal.own_lines import say

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]*\w)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE_S = 20.0  # for an answer about a repository


def is_hub_name(text: str) -> bool:
    """Whether a text has the form of a hub name, with or without a revision; a folder of that name goes first."""
    return _NAME.fullmatch(text) is not None


def parts_of_name(name: str) -> tuple[str, str | None]:
    """ORGANISATION/MODEL@REVISION -> the name and the revision; None where there is none."""
    found = _NAME.fullmatch(name)
    return (name, None) if found is None else (found["name"], found["revision"])


def _asked(name: str, revision: str | None, field: str) -> tuple[str, str | None]:
    """Name and revision apart; a commit, which a job sets where it has asked once, goes before what the name says."""
    plain, own = parts_of_name(name)
    if own is not None and revision not in (None, own) and not _COMMIT.fullmatch(str(revision)):
        raise ConfigError(f"{field}: {name} names a revision, and so does the key revision ({revision}); name one")
    return plain, revision or own


def hub_commit(name: str, *, field: str, revision: str | None = None) -> str:
    """The commit that a name stands for: as this machine's cache has it, else as the hub says.

    Args:
        name: see above.
        field: the dotted configuration key, named in errors.
        revision: commit, branch or tag, where the name brings none.

    Raises:
        ConfigError: the name brings another revision.
        DataError: neither has it; says why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    name, revision = _asked(name, revision, field)
    with _in_one_sentence(field, name, revision):
        try:
            return HfApi().resolve_revision(name, revision=revision, local_files_only=True).resolved
        except RevisionResolutionError:
            return HfApi().resolve_revision(name, revision=revision).resolved


@dataclass(frozen=True)
class Wanted:
    """Which files of a repository a job needs, as patterns.

    beside: of the files but the weights; weights: of forms of weights, of which the first is taken that the repository has; without: of
    files among these that are not wanted.
    """

    beside: Sequence[str]
    weights: Sequence[str] = ()
    without: Sequence[str] = ()


def hub_folder(name: str, wanted: Wanted, *, field: str, revision: str | None = None, quiet: bool = False) -> Path:
    """The snapshot of a repository in this machine's cache; what is not there is downloaded, after a line with its size and licence.

    Args:
        name: see above.
        wanted: the files.
        field: the dotted configuration key, named in that line and in errors.
        revision: commit, branch or tag, where the name brings none.
        quiet: no line and no bars: another process has said it.

    Raises:
        DataError: it cannot be had; says why.
    """
    name, revision = _asked(name, revision, field)
    commit = hub_commit(name, field=field, revision=revision)
    with _in_one_sentence(field, name, revision):
        there = _cached(name, commit, wanted)
        return there or _downloaded(name, commit, wanted, field, quiet=quiet)


def download_in_words(name: str, wanted: Wanted, *, field: str, revision: str | None = None) -> str | None:
    """What hub_folder would say before it downloads; None where everything is there.

    Raises:
        DataError: the hub does not say it; says why.
    """
    name, revision = _asked(name, revision, field)
    commit = hub_commit(name, field=field, revision=revision)
    with _in_one_sentence(field, name, revision):
        return None if _cached(name, commit, wanted) else _missing(name, commit, wanted, field).said


def _cached(name: str, commit: str, wanted: Wanted) -> Path | None:
    """The snapshot, if all of it is there that is wanted."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for form in wanted.weights or (None,):
        files = [*wanted.beside, *([] if form is None else [form])]
        without = [*wanted.without]
        try:
            folder = Path(snapshot_download(name, revision=commit, allow_patterns=files, ignore_patterns=without, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        if form is None or any(folder.glob(form)):
            return folder
    return None


@dataclass(frozen=True)
class _Missing:
    files: list[str]  # all that are wanted
    nbytes: int  # of those that are not there
    said: str


def _missing(name: str, commit: str, wanted: Wanted, field: str) -> _Missing:
    from huggingface_hub import HfApi, try_to_load_from_cache

    about = HfApi().model_info(name, revision=commit, files_metadata=True, timeout=_PATIENCE_S)
    sizes = {each.rfilename: each.size or 0 for each in about.siblings or ()}
    files = chosen_files(sizes, wanted)
    nbytes = sum(sizes[file] for file in files if not isinstance(try_to_load_from_cache(name, file, revision=commit), str))
    said = f"{field}: {name} at {commit[:12]}: {_in_words(nbytes)} to download, licence {_licence_of(about)}"
    return _Missing(files, nbytes, said)


def _downloaded(name: str, commit: str, wanted: Wanted, field: str, *, quiet: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    missing = _missing(name, commit, wanted, field)
    _refuse_full_disk(missing.nbytes, field, name)
    if not quiet:
        say(missing.said)
    hide = quiet and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=missing.files))
    finally:
        if hide:
            enable_progress_bars()


def chosen_files(sizes: Iterable[str], wanted: Wanted) -> list[str]:
    """The files of a repository that are wanted: of the weights' forms the first that it has."""
    files = [file for file in sizes if not any(fnmatch(file, pattern) for pattern in wanted.without)]
    form = next((pattern for pattern in wanted.weights if any(fnmatch(file, pattern) for file in files)), None)
    patterns = [*wanted.beside, *([] if form is None else [form])]
    return [file for file in files if any(fnmatch(file, pattern) for pattern in patterns)]


def _licence_of(about: Any) -> str:
    """As the model's card states it; "other" with the name that the card gives it."""
    card = about.card_data
    stated = None if card is None else card.get("license")
    named = None if card is None else card.get("license_name")
    if isinstance(stated, list):
        stated = ", ".join(map(str, stated))
    return str((named if stated in (None, "other") else None) or stated or "not stated")


def _in_words(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def _refuse_full_disk(nbytes: int, field: str, name: str) -> None:
    place = next(folder for folder in (_cache(), *_cache().absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < nbytes:
        raise DataError(
            f"{field} {name}: takes {_in_words(nbytes)}, but {_cache()} has {_in_words(free)} free; free space there, or let HF_HOME name "
            "a place that has it"
        )


@contextmanager
def _in_one_sentence(field: str, name: str, revision: str | None) -> Iterator[None]:
    """What the hub, or the way to it, raises inside, as a DataError with field, name and remedy."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionResolutionError, XetDownloadError

    of_http = HfHubHTTPError.__bases__[0]  # of whichever HTTP library huggingface_hub has: what all its errors are
    try:
        yield
    except (of_http, OSError, EntryNotFoundError, HFValidationError, RevisionResolutionError, XetDownloadError) as error:
        sentence = _why(error, name, revision, of_http)
        if sentence is None:
            raise
        raise DataError(f"{field} {name}: {sentence}") from None


def _why(error: BaseException, name: str, revision: str | None, of_http: type) -> str | None:
    """Why a repository cannot be had and what to do; None for errors of this machine that have a sentence of their own."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    links = _links(error)

    def raised(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in links)

    hub, here = constants.ENDPOINT, _cache()
    answer = next((link.response.status_code for link in links if isinstance(link, HfHubHTTPError)), None)
    full = any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in links)
    broken = type(error).__name__ in _BROKEN or "Consistency check failed" in str(error)
    token, copy = "give your token (hf auth login, or HF_TOKEN)", "or give the path of a local copy"
    sentences = [
        (full, f"the disk of {here} is full; free space there, or let HF_HOME name a place that has more"),
        (raised(GatedRepoError), f"its owner gives it to those who accept its licence; accept it at {hub}/{name} and {token}"),
        (raised(RevisionNotFoundError), f"the hub has no revision {revision or 'main'} of it; see {hub}/{name}/commits"),
        (
            raised(RepositoryNotFoundError, HFValidationError),
            f"neither a folder here nor a repository that {hub} shows you; check the name, or, if it is private, {token}",
        ),
        (
            raised(OfflineModeIsEnabled),
            f"neither a folder here nor whole in {here}, and HF_HUB_OFFLINE forbids to download it; unset that, {copy}",
        ),
        (answer in (401, 403), f"the hub answers {answer}; {token}, {copy}"),
        (answer is not None, f"the hub answers {answer}; try again later, {copy}"),
        (
            broken,
            f"the download broke off ({type(error).__name__}); run the command again, which goes on with the files that are not whole",
        ),
        (
            raised(of_http, ConnectionError, TimeoutError),
            f"neither a folder here nor whole in {here}, and {hub} does not answer; check the network (HF_ENDPOINT names a mirror), {copy}",
        ),
    ]
    return next((sentence for fits, sentence in sentences if fits), None)


_BROKEN = ("ReadError", "ReadTimeout", "RemoteProtocolError", "XetDownloadError", "WriteError", "CloseError")


def _links(error: BaseException) -> list[BaseException]:
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links
