"""Live numbers of a caption run: Prometheus metrics in each actor (Ray's dashboard and endpoints), and words for the driver's bar.

Knows STAGED rows, accounts of passes and Ray's metrics; not how rows were made. The names below carry Ray's prefix `ray_` (and counters
the suffix `_total`) once scraped; Ray adds node and worker, and sends new values every ten seconds. Outside Ray nothing is recorded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.rows import reason_code
from reid_ray.caption.streaming.pass_account import ActorAccount, PassFacts, in_words

_BATCH_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
_TELL_EVERY_S = 2.0
_LINE_EVERY_S = 5.0
_COSINES = [0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


class StageMetrics:
    """Counters of one actor.

    Args:
        stage: captioner or rewriter; a tag of every number, beside the captioner's name.
    """

    def __init__(self, stage: str) -> None:
        from ray.util import metrics

        self._stage = stage
        tags = ("stage", "captioner")
        self._images = metrics.Counter("reid_ray_caption_images", "Images by outcome: ok or a reason code.", (*tags, "outcome"))
        self._rows = metrics.Counter(
            "reid_ray_caption_rows", "Captions and rewrites by status and reason code.", (*tags, "kind", "status", "reason")
        )
        self._tokens = metrics.Counter("reid_ray_caption_tokens", "Tokens generated.", tags)
        self._asked = metrics.Counter("reid_ray_caption_prefix_queries", "Prompt tokens looked up in vLLM's prefix cache.", tags)
        self._cached = metrics.Counter("reid_ray_caption_prefix_hits", "Prompt tokens found in vLLM's prefix cache.", tags)
        self._rate = metrics.Gauge("reid_ray_caption_rows_per_second", "Rows that this actor makes a second, last batch.", tags)
        self._seconds = metrics.Histogram("reid_ray_caption_batch_seconds", "Seconds of a batch in the actor.", _BATCH_SECONDS, tags)
        self._cosine = metrics.Histogram("reid_ray_caption_faithfulness", "Cosine of rewrite and original.", _COSINES, tags)

    def count(self, rows: pa.Table, seconds: float) -> None:
        """Count the STAGED rows that one batch of this stage made.

        Args:
            rows: of one captioner.
            seconds: the batch took.
        """
        if not rows.num_rows:
            return
        tags = {"stage": self._stage, "captioner": rows["captioner"][0].as_py() or ""}
        for outcome, number in Counter(rows["image_outcome"].drop_null().to_pylist()).items():
            self._images.inc(number, tags | {"outcome": outcome})
        columns = (rows[name].to_pylist() for name in ("kind", "status", "reason"))
        made = Counter((kind, status, reason_code(reason)) for kind, status, reason in zip(*columns, strict=True))
        for (kind, status, code), number in made.items():
            self._rows.inc(number, tags | {"kind": kind, "status": status, "reason": code})
        for counter, name in ((self._tokens, "tokens"), (self._asked, "prompt_tokens"), (self._cached, "cached_tokens")):
            total = pc.sum(rows[name]).as_py()
            if total:
                counter.inc(total, tags)
        for cosine in rows["faithfulness"].drop_null().to_pylist():
            self._cosine.observe(cosine, tags)
        self._seconds.observe(seconds, tags)
        self._rate.set(rows.num_rows / seconds, tags)


class LoadMetrics:
    """What one actor's engine has at hand, and where the actor's time goes.

    Args:
        stage: a tag of every number.
        captioner: another.
    """

    def __init__(self, stage: str, captioner: str) -> None:
        from ray.util import metrics

        self._tags = {"stage": stage, "captioner": captioner}
        names = tuple(self._tags)
        self._running = metrics.Gauge("reid_ray_caption_running", "Requests that the engine decodes.", names)
        self._waiting = metrics.Gauge("reid_ray_caption_waiting", "Requests and rows that wait for the engine.", names)
        self._cache = metrics.Gauge("reid_ray_caption_cache_use", "Share of the key-value cache in use.", names)
        self._seconds = metrics.Counter("reid_ray_caption_seconds", "Seconds of the actor by what they went on.", (*names, "on"))
        self._tokens = metrics.Counter(
            "reid_ray_caption_engine_tokens",
            "Tokens of answers and prompts, as they come: prompt, cached (of prompts), written.",
            (*names, "of"),
        )
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, account: ActorAccount) -> None:
        """Set and count what is new."""
        self._running.set(account.running, self._tags)
        self._waiting.set(account.waiting, self._tags)
        if account.cache_use is not None:
            self._cache.set(account.cache_use, self._tags)
        for cause, seconds in account.seconds.items():
            self._add(self._seconds, "on", cause, seconds)
        for kind, tokens in (("prompt", account.prompt_tokens), ("cached", account.cached_tokens), ("written", account.tokens)):
            self._add(self._tokens, "of", kind, tokens)

    def _add(self, counter: Any, tag: str, value: str, total: float) -> None:
        new = total - self._told.get((tag, value), 0.0)
        if new > 0:
            counter.inc(new, self._tags | {tag: value})
            self._told[tag, value] = total


class HearsAccounts(Protocol):
    """An account of a pass, here or elsewhere."""

    def tell(self, actor: str, account: ActorAccount) -> None:
        """Hear of an actor."""


class LoadReporter:
    """Has an actor tell of itself now and every two seconds, from a thread of its own.

    Args:
        take: the account of this moment.
        board: told of it.
        actor: that it is of.
        metrics: told of it, too.
    """

    def __init__(self, take: Callable[[], ActorAccount], board: HearsAccounts, actor: str, metrics: LoadMetrics) -> None:
        self._take, self._board, self._actor, self._metrics = take, board, actor, metrics
        self._lock = threading.Lock()
        self.tell()
        threading.Thread(target=self._run, name="load-reporter", daemon=True).start()

    def tell(self) -> None:
        """Tell now."""
        with self._lock:
            account = self._take()
            self._board.tell(self._actor, account)
            self._metrics.tell(account)

    def _run(self) -> None:
        while True:
            time.sleep(_TELL_EVERY_S)
            try:
                self.tell()
            except (OSError, EOFError):  # the account's process has ended, and with it the pass
                return


class TellsFacts(Protocol):
    """An account of a pass, here or elsewhere."""

    def facts(self) -> PassFacts:
        """Its sums."""


class PassLine:
    """What stands at the end of a pass's progress bar: counts, and how its stages fare.

    Args:
        bar: shows it.
        stages: the accounts, by the names of their stages.
    """

    def __init__(self, bar: Any, stages: Mapping[str, TellsFacts]) -> None:
        self._bar, self._stages, self._counts, self._load = bar, stages, "", ""
        self._clock = time.monotonic()
        self._before = dict.fromkeys(stages, PassFacts())

    def count(self, images: int, counts: str) -> None:
        """So many more images are done, and this is what is known of all."""
        self._counts = counts
        self._show()
        self._bar.update(images)

    def look(self) -> None:
        """Ask the accounts, and show what has changed since this was asked last."""
        now, told = time.monotonic(), {stage: account.facts() for stage, account in self._stages.items()}
        seconds = max(now - self._clock, 1e-3)
        self._load = "; ".join(f"{stage}: {in_words(facts.since(self._before[stage]), seconds)}" for stage, facts in told.items())
        self._clock, self._before = now, told
        self._show()
        self._bar.refresh()

    def _show(self) -> None:
        self._bar.set_postfix_str("; ".join(filter(None, (self._counts, self._load))), refresh=False)


@contextmanager
def pass_line(bar: Any, stages: Mapping[str, TellsFacts]) -> Iterator[PassLine]:
    """A PassLine that looks every five seconds, from a thread of its own, until the block ends."""
    line, ended = PassLine(bar, stages), threading.Event()

    def run() -> None:
        while not ended.wait(_LINE_EVERY_S):
            line.look()

    thread = threading.Thread(target=run, name="pass-line", daemon=True)
    thread.start()
    try:
        yield line
    finally:
        ended.set()
        thread.join(_LINE_EVERY_S)  # not longer: a cluster that is gone may not answer it
