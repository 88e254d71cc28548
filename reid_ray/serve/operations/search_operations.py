"""What a service process does: it holds the engine, batches searches, decodes pictures beside them, and reads the gallery.

Knows what can be asked and how long a question may take; not HTTP, Ray or who asks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from PIL import Image

from reid_ray.config.paths import with_absolute_places
from reid_ray.data.images import BadImageError
from reid_ray.errors import ReidRayError, ResourceError
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.model.encoder import Encoder
from reid_ray.redaction import error_location
from reid_ray.retrieval.ahead_of_time import compile_before_others_wait
from reid_ray.retrieval.encoder_identity import encoder_identity, pinned_encoder
from reid_ray.retrieval.explain.explained_item import explain_item
from reid_ray.retrieval.explain.score_explanation import Explanation
from reid_ray.retrieval.generation_turns import TurnKeeper
from reid_ray.retrieval.query import Answer, Clue, Query, text_query
from reid_ray.retrieval.query_pictures import QueryPictures, TooManyPicturesError
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import FacetCounts, NewestPage, encoder_of, refuse_unfit
from reid_ray.serve.client_presence import ClientGoneError, stays
from reid_ray.serve.config import SearcherConfig, ServeConfig, ServeJob
from reid_ray.serve.operations.explanation_turns import ExplanationTurns, ManyExplanationsError
from reid_ray.serve.operations.micro_batches import MicroBatcher

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_PROBED_EVERY_S = 1.0
_EXPLAINED_TIMES = 4  # as long as any other question may an explanation take: it asks the encoder some fifty times
_READERS = 4  # threads that read the gallery for who does not search


class StartingError(Exception):
    """The service does not hold its model and gallery yet."""


class OverloadedError(Exception):
    """Too many queries are waiting, and this one is not taken."""


class IncompleteError(Exception):
    """A part of the gallery cannot be searched for now."""


class LateError(Exception):
    """There was no answer within the time that a question may take."""


class QueryFailedError(Exception):
    """A query that could not be answered; says where, never what was asked."""


class RefusedError(Exception):
    """A question that cannot be answered as asked; the message says why, in a sentence."""


class EncoderElsewhere(Encoder, Protocol):
    """Interface (protocol) of an encoder whose weights are not here.

    Attributes:
        drawn_people_only: as knows_drawn_people_only says of its weights.
    """

    drawn_people_only: bool


class SearchOperations:
    """What one process of the service does.

    Args:
        load: gives the engine; called once, by `load`.
        limits: of questions.
        batching: of searches.
        lanes: batches at one time: where others encode, more than one.
    """

    def __init__(self, load: Callable[[], SearchEngine], limits: ServeConfig, batching: SearcherConfig, *, lanes: int = 1) -> None:
        self.limits = limits
        self._load = load
        self._engine: SearchEngine | None = None
        self._batcher = MicroBatcher(self._answer, max_batch_size=batching.max_batch_size, lanes=lanes, timeout_s=limits.timeout_s)
        self._batching = batching
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="gallery")
        self._pictures = QueryPictures(max_pixels=limits.max_pixels)
        self._explanations = ExplanationTurns()
        self._probed = (-_PROBED_EVERY_S, False)
        self._probing: asyncio.Lock | None = None
        self._told: list[Callable[[Answer], None]] = []

    @property
    def engine(self) -> SearchEngine:
        """The engine, once it is loaded.

        Raises:
            StartingError: it is not.
        """
        if self._engine is None:
            raise StartingError
        return self._engine

    @property
    def is_loaded(self) -> bool:
        """Whether model and gallery are there."""
        return self._engine is not None

    @property
    def waiting(self) -> int:
        """Searches that wait for a batch."""
        return len(self._batcher)

    @property
    def in_hand(self) -> int:
        """Searches that are not answered yet."""
        return self._batcher.in_hand

    @property
    def wait_s(self) -> float:
        """What a search that comes now would wait for its answer, about, seconds."""
        return self._batcher.wait_s()

    def on_answer(self, told: Callable[[Answer], None]) -> None:
        """Have `told` called with every answer from now on."""
        self._told.append(told)

    def load(self) -> None:
        """Load model and gallery; from then on questions are answered.

        Raises:
            DataError: a folder is missing, or gallery and encoder do not belong together.
        """
        self._engine = self._load()

    def close(self) -> None:
        """End threads."""
        self._pictures.close()
        self._batcher.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._explanations.close()

    def is_full(self, coming: int = 0) -> bool:
        """Whether a search that comes now, after `coming` others that do not wait yet, is one too many.

        The queue is full, or it would miss the next batch and wait too long. Those of the next batch are no crowd: where they wait long,
        what is slow is the search, and to refuse one of two helps nobody.
        """
        limits, before = self._batching, self.waiting + coming
        if before >= limits.max_queued_requests:
            return True
        return before >= limits.max_batch_size and self._batcher.wait_s(coming) > limits.max_wait_s

    async def search(self, query: Query, is_gone: Callable[[], bool] = stays) -> Answer:
        """Answer one query, together with those that arrived while the last batch was answered.

        Raises:
            StartingError, OverloadedError, IncompleteError, LateError, RefusedError, QueryFailedError: why there is no answer.
            ClientGoneError: `is_gone` said so when it was the query's turn.
        """
        assert self.engine is not None
        if self.is_full():
            raise OverloadedError
        answer = await self._in_words(self._batcher.submit(query, is_gone))
        for told in self._told:
            told(answer)
        if answer.refused is not None:
            raise RefusedError(answer.refused)
        return answer

    async def picture(self, data: bytes) -> Image.Image:
        """A picture of a question, decoded and shrunk beside the searches.

        Raises:
            RefusedError: it is no picture that can be decoded.
            OverloadedError: too many large pictures wait.
        """
        try:
            found: Image.Image = await self._in_time(asyncio.wrap_future(self._pictures.decode(data)))
        except BadImageError as error:
            raise RefusedError(f"image: {error}") from None
        except TooManyPicturesError:
            raise OverloadedError from None
        return found

    async def explain(self, clues: Sequence[Clue], item_id: str, is_gone: Callable[[], bool] = stays) -> Explanation | None:
        """Why an item scores as it does for these clues; None where the gallery lacks the item.

        Raises:
            OverloadedError: as many explanations wait as may.
            StartingError, IncompleteError, LateError, RefusedError, QueryFailedError: why there is none.
            ClientGoneError: `is_gone` said so meanwhile.
        """
        engine = self.engine
        try:
            explaining = self._explanations.take(lambda go_on: explain_item(engine, clues, item_id, go_on=go_on), is_gone)
            return await self._in_time(explaining, times=_EXPLAINED_TIMES)
        except ManyExplanationsError:
            raise OverloadedError from None

    async def describe(self) -> dict[str, Any]:
        """As SearchEngine.describe."""
        return await self._read(self.engine.describe)

    async def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None) -> FacetCounts:
        """As SearchedGallery.facets."""
        return await self._read(self.engine.gallery.facets, columns, where)

    async def newest(self, k: int, *, where: Mapping[str, Any] | None, after: str | None) -> NewestPage:
        """As SearchedGallery.newest."""
        return await self._read(partial(self.engine.gallery.newest, k, where=where, after=after))

    async def item(self, item_id: str) -> Listed | None:
        """As SearchedGallery.item."""
        return await self._read(self.engine.gallery.item, item_id)

    async def thumbnail(self, item_id: str) -> bytes | None:
        """As SearchedGallery.thumbnail."""
        return await self._read(self.engine.gallery.thumbnail, item_id)

    async def is_ready(self) -> bool:
        """Whether a real search succeeds: encoded and looked for; tried at most once a second, by one that asks."""
        if self._engine is None:
            return False
        self._probing = self._probing or asyncio.Lock()
        async with self._probing:
            if time.monotonic() - self._probed[0] >= _PROBED_EVERY_S:
                self._probed = (time.monotonic(), await self._probe())
        return self._probed[1]

    async def _probe(self) -> bool:
        try:
            await self.search(_probe_of(self.engine))
        except OverloadedError:
            return True  # it is at work
        except (IncompleteError, LateError, RefusedError, QueryFailedError) as error:
            _LOG.warning("the service is not ready: %s", error_location(error))
            return False
        return True

    def _answer(self, queries: list[Query]) -> list[Answer]:
        return self.engine.answer(queries)

    async def _read(self, call: Callable[..., Result], *words: Any) -> Result:
        return await self._in_time(asyncio.get_running_loop().run_in_executor(self._readers, partial(call, *words)))

    async def _in_time(self, answer: Any, *, times: int = 1) -> Any:
        return await self._in_words(asyncio.wait_for(answer, times * self.limits.timeout_s))

    async def _in_words(self, answer: Awaitable[Any]) -> Any:
        """An answer, or why there is none in the words of this class."""
        try:
            return await answer
        except TimeoutError:
            raise LateError from None
        except ResourceError:
            raise IncompleteError from None
        except ReidRayError as error:
            raise RefusedError(str(error)) from None
        except (BadImageError, TooManyPicturesError, ManyExplanationsError, ClientGoneError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever stands behind may fail in any way, and quote the query when it does
            _LOG.error("a question failed: %s", error_location(error))
            raise QueryFailedError(error_location(error)) from None


def _probe_of(engine: SearchEngine) -> Query:
    """A question that any gallery and encoder can answer."""
    if engine.encoder.reads_texts:
        return text_query("a person", k=1)
    return Query((Clue(picture=Image.new("RGB", (16, 32))),), 1)


def refuse_what_cannot_work(config: ServeJob) -> ServeJob:
    """Refuse a service whose parts do not belong together, before anything is loaded; its encoder is named then, and every path absolute.

    Raises:
        DataError: gallery or encoder are missing, or do not belong together, or an editor made pictures of the gallery.
    """
    encoder = pinned_encoder(encoder_of(config.index, config.encoder))
    dim, fingerprint = encoder_identity(encoder)
    refuse_unfit(config.index, dim=dim, fingerprint=fingerprint, include_synthetic=config.include_synthetic)
    found = with_absolute_places(config.model_copy(update={"encoder": encoder}))
    # A link that is set elsewhere later does not change what is searched.
    return found if "://" in found.index else found.model_copy(update={"index": os.path.realpath(found.index)})


def open_operations(
    config: ServeJob, *, turns: TurnKeeper | None = None, replica: str = "", encoders: Callable[[], EncoderElsewhere] | None = None
) -> SearchOperations:
    """What a process of a service does, not loaded yet; `turns` as SearchedGallery has it.

    `encoders` gives what encodes elsewhere; then what cannot work was refused before, and no weights are read here.
    """
    searcher = config.searcher
    options: dict[str, Any] = {
        "threads": max(1, int(searcher.num_cpus)),
        "shares": config.shares,
        "turns": turns,
        "replica": replica,
        "gallery_device": "cuda:0" if searcher.gallery_on_gpu else None,
    }

    def loaded() -> SearchEngine:
        if encoders is not None:
            encoder = encoders()
            refuse_unfit(config.index, dim=encoder.dim, fingerprint=encoder.fingerprint, include_synthetic=config.include_synthetic)
            return SearchEngine.over(config.index, encoder, drawn_people_only=encoder.drawn_people_only, **options)
        fit, device = refuse_what_cannot_work(config), "cuda:0" if searcher.num_gpus else "cpu"
        return SearchEngine.load(fit.index, fit.encoder, device=device, batch_size=searcher.max_batch_size, **options)

    def load() -> SearchEngine:
        engine = loaded()
        engine.answer([_probe_of(engine)])  # the first search takes far longer than others: pages of files, a model's first pass
        compile_before_others_wait(has_searched=len(engine.gallery) > 0)
        return engine

    # One batch more than there are encoders: none of them waits while another batch is looked for in the gallery.
    return SearchOperations(load, config.serve, searcher, lanes=1 if encoders is None else config.encoders.most + 1)
