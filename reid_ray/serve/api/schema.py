"""Request and response schemas of the retrieval service's HTTP API: strict types, no unknown fields.

Knows their shape; not HTTP, Ray or models.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

MOST_CLUES = 16
_Text = Annotated[
    str, Field(description="free text in any language the encoder knows", examples=["a woman in a red coat with a white bag"])
]
# Whatever names something is of bounded length; Pydantic refuses halves of surrogate pairs in such texts, too.
_Id = Annotated[str, Field(max_length=4096)]
_Column = Annotated[str, Field(max_length=256)]
_Missing = Annotated[list[int], Field(description="shares of the gallery that are lost for now: their items are not in this answer")]
_Where = Annotated[
    dict[str, JsonValue],
    Field(
        description='what items must be, by column: a value, a list of values, or {"from": low, "to": high}; times in ISO 8601',
        examples=[{"camera_id": [1, 2]}],
    ),
]


class StrictModel(BaseModel):
    """Base of what is asked: strict types, and a field that is unknown is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ClueIn(StrictModel):
    """One thing that is known of the person: exactly one of text, image and item."""

    text: _Text | None = None
    image: str | None = Field(None, description="JPEG, PNG, WebP, BMP, GIF or TIFF file, base64; a data: URL is understood")
    item: _Id | None = Field(None, description="id of an item of the gallery", examples=["cam1/0001.jpg"])
    weight: float = Field(1.0, ge=-100, le=100, description="how much it counts beside the others; below 0: less like it")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(value is not None for value in (self.text, self.image, self.item)) != 1:
            raise ValueError("give exactly one of text, image and item")
        return self


class Question(StrictModel):
    """Whom to look for, where, and how many hits."""

    text: _Text | None = Field(None, description="a description of the person: the same as one clue of it")
    clues: list[ClueIn] = Field([], max_length=MOST_CLUES, description="what is known of the person; their weighted vectors are added")
    k: int | None = Field(None, ge=1, description="hits a page; null takes the service's default")
    where: _Where = Field({})
    without: list[_Id] = Field([], max_length=1000, description="ids of items that are not wanted")
    threshold: float | None = Field(None, ge=-1, le=1, description="the least score, a cosine")
    one_per: _Column | None = Field(None, description="a column: only the best hit of each of its values", examples=["person_id"])
    cursor: str | None = Field(None, description="of the page before; null for the first page")
    rerank: int | None = Field(
        None,
        ge=1,
        description="so many of the first hits are ranked anew by their k-reciprocal neighbours; such an answer has no further page",
    )
    exact: bool = Field(False, description="compare every item that passes, whatever the gallery's kind")

    @model_validator(mode="after")
    def _text_or_clues(self) -> Self:
        if self.text is not None and self.clues:
            raise ValueError("give text or clues, not both; a clue may be a text")
        if self.rerank is not None and self.cursor is not None:
            raise ValueError("rerank goes with no cursor: what is ranked anew has no further pages")
        if self.clues and all(clue.weight <= 0 for clue in self.clues):
            raise ValueError("no clue has a weight above 0: say what the person is like, too")
        return self


class BatchIn(StrictModel):
    """Several questions at once."""

    questions: list[Question] = Field(min_length=1, max_length=64)


class ExplainIn(StrictModel):
    """Why an item scores as it does for a question."""

    text: _Text | None = Field(None, description="a description of the person: the same as one clue of it")
    clues: list[ClueIn] = Field([], max_length=MOST_CLUES, description="what is known of the person, as it was searched for")
    item_id: _Id = Field(description="the item", examples=["cam1/0001.jpg"])

    @model_validator(mode="after")
    def _text_or_clues(self) -> Self:
        if (self.text is None) == (not self.clues):
            raise ValueError("give text or clues, one of them; a clue may be a text")
        return self


class BrowseIn(StrictModel):
    """A page of the gallery without a question, newest items first."""

    k: int | None = Field(None, ge=1, description="items a page; null takes the service's default")
    where: _Where = Field({})
    cursor: str | None = Field(None, description="of the page before; null for the first page")


class FacetsIn(StrictModel):
    """How often values occur."""

    columns: list[_Column] = Field(min_length=1, max_length=32, examples=[["camera_id"]])
    where: _Where = Field({})
    limit: int = Field(50, ge=1, le=1000, description="most values told of each column, the most frequent first")


class HitOut(BaseModel):
    """One gallery item that was found."""

    rank: int = Field(description="1 is best, counted on this page")
    score: float = Field(description="cosine similarity in [-1, 1], or what a re-ranking made of it")
    generation: int = Field(description="of the gallery, in which the item was found")
    item_id: str = Field(description="names the item for good, whatever is added to the gallery or deleted from it")
    item: dict[str, Any] = Field(description="its columns, such as camera_id, person_id or synthetic")
    thumbnail: str = Field(description="path of the small picture, relative to the service")


class LatencyOut(BaseModel):
    """Where the time went, milliseconds; encoding and search are those of the whole batch."""

    total: float
    encode: float
    search: float


class SearchOut(BaseModel):
    """Ranked hits, best first."""

    hits: list[HitOut]
    k: int = Field(description="hits asked for; fewer come back where fewer items pass")
    cursor: str | None = Field(description="of the next page; null where there is none")
    generation: int = Field(description="of the gallery that was searched")
    gallery: int = Field(description="items in the gallery")
    truncated: bool = Field(description="a text has more tokens than the model reads: what is beyond was not looked for")
    missing_shares: _Missing
    batch: int = Field(description="queries that were answered together with this one, itself included")
    latency_ms: LatencyOut


class ProblemOut(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


class BatchOut(BaseModel):
    """The answers of a batch, in order: each its hits, or why it has none."""

    answers: list[SearchOut | ProblemOut]


class ItemOut(BaseModel):
    """One gallery item."""

    item_id: str
    generation: int
    item: dict[str, Any]
    thumbnail: str


class BrowseOut(BaseModel):
    """A page of the gallery."""

    items: list[ItemOut]
    cursor: str | None
    generation: int
    gallery: int = Field(description="items in the gallery")
    missing_shares: _Missing


class CountOut(BaseModel):
    """How often a value occurs."""

    value: Any
    count: int


class FacetOut(BaseModel):
    """Values of a column, the most frequent first."""

    values: list[CountOut]
    others: int = Field(description="items whose value is beyond the limit, or of a column of very many values, which are not told")


class FacetsOut(BaseModel):
    """Counts by column."""

    generation: int
    columns: dict[str, FacetOut]
    missing_shares: _Missing


class ColumnOut(BaseModel):
    """A column that a filter reads."""

    name: str
    type: str = Field(description="text, number, whole number, time in ISO 8601 or truth value")


class LimitsOut(BaseModel):
    """What the service takes at most."""

    default_k: int
    max_k: int
    max_text_chars: int
    max_upload_bytes: int
    max_pixels: int


class MeOut(BaseModel):
    """Who asks."""

    name: str
    role: str = Field(description="search, write or admin")
    login: bool = Field(description="by a session of the page")


class InfoOut(BaseModel):
    """What the service searches, its limits, and the number of its interface: of this file, and of the routes."""

    format: int
    items: int
    missing_shares: _Missing
    generation: int
    columns: list[ColumnOut]
    dim: int
    index_kind: str
    encoder_fingerprint: str
    reads_texts: bool
    drawn_people_only: bool = Field(
        description="the encoder was trained on drawn people alone: search by picture; words find colours at best"
    )
    limits: LimitsOut
    me: MeOut


class StatusOut(BaseModel):
    """That the service lives, or answers searches."""

    status: str


class WordOut(BaseModel):
    """A word of a text that was searched for."""

    clue: int = Field(description="which clue it is of, from 0")
    word: str
    start: int = Field(description="its first character in the clue's text, from 0")
    end: int = Field(description="the character behind its last one")
    effect: float = Field(description="what the score loses without it, a cosine")


class PatchesOut(BaseModel):
    """A grid over the item's small picture: what the score loses without each patch."""

    rows: int
    columns: int
    effects: list[list[float]] = Field(description="cosines, [rows][columns] from the top left")


class ExplainOut(BaseModel):
    """What carries a score."""

    score: float = Field(description="cosine of the question and the item's stored vector; effects of words are relative to it")
    words: list[WordOut] = Field(description="in their order, the first 128 of all texts")
    words_left_out: int = Field(description="how many more there are")
    picture_score: float | None = Field(
        description="cosine of the question and the item's small picture, which is what the gallery keeps; effects of patches are relative "
        "to it; null: there is no picture"
    )
    patches: PatchesOut | None = Field(description="null: there is no picture")
