"""Object-store error classification: the store, the network or the credentials are at fault, or one object.

Knows the words of S3, Google Cloud Storage and Azure as pyarrow (reading) and obstore (outputs) hand them on; not what was asked. An
object that is gone or forbidden is a row with a reason, but a store that is too busy or knows nobody would make rows of millions of good
objects: that is a sentence.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BUSY = re.compile(
    r"SLOW_?DOWN|INTERNAL_FAILURE|THROTTL|REQUEST_LIMIT|SERVICE_UNAVAILABLE|SERVER_?BUSY|RESOURCE_EXHAUSTED|"
    r"\bUNAVAILABLE\b|HTTP status (429|5\d\d)\b",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|DEADLINE_EXCEEDED|timed? ?out|could not (resolve|connect)|connection (refused|reset)",
    re.IGNORECASE,
)
_UNKNOWN_USER = re.compile(
    r"INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|SIGNATURE|EXPIRED|UNAUTHENTICATED|"
    r"Authentication ?Failed|no credentials|HTTP status 40[01]\b",
    re.IGNORECASE,
)
_FORBIDDEN = re.compile(r"ACCESS_DENIED|PERMISSION_DENIED|AuthorizationFailure|HTTP status 403\b", re.IGNORECASE)

_STATUS = re.compile(r"status code: (409|412|429|5\d\d)")
_REFUSED = re.compile(r"status code: 40[013]\b|token request|/latest/(api|meta-data)/|computeMetadata")

_GIVE_CREDENTIALS = (
    "give credentials that may read there to the environment of every node (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
)


class Trouble(NamedTuple):
    """What is wrong with a store, with the remedy, and whether it may be over a moment later."""

    said: str
    passes: bool


def trouble_of(error: BaseException) -> Trouble | None:
    """What is wrong with the store as a whole; None if the error is about the one object that was asked for."""
    text = _answer(error)
    if _BUSY.search(text):
        return Trouble("the store is too busy, or broken for now; run the job again later, or with fewer readers", True)
    if _UNREACHABLE.search(text):
        return Trouble("the store does not answer; check the address and the network, and run the job again", True)
    if _UNKNOWN_USER.search(text):
        return Trouble(f"the store does not accept the credentials; {_GIVE_CREDENTIALS}", False)
    return None


def refusal_of(error: BaseException, what: str) -> str:
    """Why a whole folder or address cannot be listed, or `what` else, with the remedy: as trouble_of, and that this user may not."""
    trouble = trouble_of(error)
    if trouble is not None:
        return trouble.said
    if _FORBIDDEN.search(_answer(error)):
        return f"this user may not read there; {_GIVE_CREDENTIALS}"
    return f"cannot be {what} ({getattr(error, 'strerror', None) or error}); give this user the right to read it"


def write_trouble_of(error: BaseException) -> str:
    """What is wrong with a store that did not do as asked, with the remedy; `error` is of obstore, whose client has tried for a while."""
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return "the store knows no such bucket; make it, or check the address"
    if "status code: 501" in text or type(error).__name__ == "NotSupportedError":
        return "the store has no conditional writes (If-None-Match, If-Match), which outputs need; write to a folder and copy it there"
    if _STATUS.search(text):
        return "the store is too busy, or broken for now; run the job again later"
    return "the store does not answer; check the address and the network, and run the job again"


def forbidden_to_write(error: BaseException) -> str | None:
    """Why a store will never do as asked for this user, with the remedy; None if that is not it. `error` is of obstore."""
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError") or _REFUSED.search(str(error)):
        return (
            "the store lets this user not read, write and delete there; give credentials that may to the environment of every node "
            "(for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    return None


def _answer(error: BaseException) -> str:
    """What the store said, without the name that was asked for, which may hold any word."""
    text = str(error)
    return text[text.rfind("AWS Error ") :] if "AWS Error " in text else re.sub(r"'.*'", "", text)
