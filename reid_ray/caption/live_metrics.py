"""Prometheus metrics of a caption run (Ray's dashboard and endpoints), counted in each actor, batch by batch.

Knows STAGED rows and Ray's metrics; not how rows were made. The names below carry Ray's prefix `ray_` (and counters the suffix
`_total`) once scraped; Ray adds node and worker, and sends new values every ten seconds. Outside Ray nothing is recorded.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.rows import reason_code

_BATCH_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
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
