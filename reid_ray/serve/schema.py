"""Request and response schemas of the search service's HTTP API, and their limits.

Knows their shape; not HTTP, Ray or models. Limits that are configured are checked by `checked_text` and `checked_k`, so that the
message can name them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from reid_ray.serve.config import ServeConfig


class BadRequestError(Exception):
    """A question that cannot be answered as asked; the message says why, in a sentence. `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: int | None = Field(None, ge=1, description="number of hits; null takes the service's default; more than the gallery gives it all")
    camera_ids: list[int] | None = Field(None, min_length=1, max_length=1000, description="only items of these cameras; null takes all")


class TextQuestion(_Question):
    """A description of a person."""

    text: str = Field(description="free text in any language the encoder knows", examples=["a woman in a red coat with a white bag"])


class ImageQuestion(_Question):
    """A picture of a person as base64; multipart/form-data at /search/image carries it in fewer bytes."""

    image_base64: str = Field(description="JPEG, PNG, WebP, BMP, GIF or TIFF file, base64; a data: URL is understood")


class HitOut(BaseModel):
    """One gallery item."""

    rank: int = Field(description="1 is best")
    score: float = Field(description="cosine similarity in [-1, 1]")
    generation: int = Field(description="of the gallery, in which the item was found")
    item_id: str = Field(description="names the item for good, whatever is added to the gallery or deleted from it")
    image_id: str
    person_id: int | None = Field(description="identity, where the gallery knows it")
    camera_id: int | None
    dataset: str | None
    split: str | None
    synthetic: bool | None = Field(description="whether an editor made the picture; null: unknown")
    thumbnail: str = Field(description="path of the thumbnail, relative to the service")


class LatencyOut(BaseModel):
    """Where the time went, milliseconds; encoding and search are those of the whole batch."""

    total: float
    encode: float
    search: float


class SearchOut(BaseModel):
    """Ranked hits, best first."""

    hits: list[HitOut]
    k: int = Field(description="hits asked for; fewer come back where the gallery, or the cameras asked for, hold fewer")
    gallery: int = Field(description="items in the gallery")
    truncated: bool = Field(False, description="the text has more tokens than the model reads: what is beyond was not looked for")
    batch: int = Field(description="queries that were answered together with this one, itself included")
    latency_ms: LatencyOut
    missing_shares: list[int] = Field([], description="shares of the gallery that are lost for now: their items were not searched")


class InfoOut(BaseModel):
    """What the service searches, its limits, and the number of its interface: of this file, and of the routes."""

    format: int
    items: int
    cameras: list[int]
    dim: int
    index_kind: str
    encoder_fingerprint: str
    default_k: int
    max_k: int
    max_text_chars: int
    max_upload_bytes: int


class ProblemOut(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


def checked_text(text: str, limits: ServeConfig) -> str:
    """The text without surrounding white space.

    Raises:
        BadRequestError: it is empty, too long or not Unicode.
    """
    text = text.strip()
    if not text:
        raise BadRequestError("text: the query is empty; describe the person to look for")
    if len(text) > limits.max_text_chars:
        raise BadRequestError(f"text: the query has {len(text)} characters; the longest allowed is {limits.max_text_chars}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can smuggle one in, and it would fail the whole batch in the tokenizer
        raise BadRequestError("text: holds half of a surrogate pair, so it is not valid Unicode") from None
    return text


def checked_k(k: int | None, limits: ServeConfig) -> int:
    """The number of hits to look for.

    Raises:
        BadRequestError: more than the service gives.
    """
    if k is not None and k > limits.max_k:
        raise BadRequestError(f"k: {k} hits are asked for; the most allowed is {limits.max_k}")
    return limits.default_k if k is None else k


def checked_image(data: bytes, limits: ServeConfig) -> bytes:
    """The encoded image; whether it can be decoded is found out where it is decoded.

    Raises:
        BadRequestError: it is empty or too large.
    """
    if not data:
        raise BadRequestError("image: the upload has 0 bytes; send an image file")
    if len(data) > limits.max_upload_bytes:
        raise BadRequestError(f"image: {len(data)} bytes; the largest allowed is {limits.max_upload_bytes}", status=413)
    return data


def decoded_base64(text: str) -> bytes:
    """The bytes of base64, or of a data: URL.

    Raises:
        BadRequestError: it is not base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"image_base64: is not base64 ({error})") from None


def sentence(errors: Sequence[Any]) -> str:
    """Pydantic's errors as one line that names each field and never repeats the input, which may be a megabyte."""
    parts = []
    for error in errors[:5]:
        field = ".".join(str(part) for part in error["loc"] if part != "body")[:100] or "the request body"
        parts.append(f"{field}: {error['msg'][:200]}")
    return "; ".join(parts) + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
