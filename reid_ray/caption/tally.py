"""Run statistics of a caption job, summed table by table for its manifest: outcomes, reasons, rewrites, rates, prefix-cache hits.

Knows STAGED rows; not how they were made or where they go. An image is counted once for each captioner that was asked about it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.rows import reason_code

_SUMMED = ("tokens", "seconds", "tries", "prompt_tokens", "cached_tokens")


class Tally:
    """Sums what the private columns of one captioner's rows, and of their rewrites, say."""

    def __init__(self) -> None:
        self.images = 0
        self.retried = 0  # dynamic captions that were asked for again with another template
        self.outcomes: Counter[str] = Counter()  # of images: ok, or the code of the failure
        self.kinds: Counter[str] = Counter()  # of rows: "static ok", "rewrite unfaithful", ...
        self.reasons: Counter[str] = Counter()  # of captions that failed though their image may have another
        self.why: Counter[str] = Counter()  # of rewrites that failed, as far as add_rewrites saw them: the code
        self.examples: dict[str, str] = {}  # code of a failure -> an image and its whole reason
        self.sums: Counter[str] = Counter()  # "captioner tokens", "rewriter seconds", ...
        self.startup = {"captioner": 0.0, "rewriter": 0.0}
        self._seen: list[tuple[float, int]] = []  # when the first and the newest table came, and the images by then

    def add(self, table: pa.Table) -> int:
        """Count a STAGED table; returns how many images it completes."""
        outcomes = table["image_outcome"].drop_null().to_pylist()
        self.images += len(outcomes)
        self._seen[1:] = [(time.perf_counter(), self.images)]
        self.outcomes.update(outcomes)
        self.kinds.update(f"{kind} {status}" for kind, status in _pairs(table, "kind", "status"))
        self.retried += sum(kind == "dynamic" and tries > 1 for kind, tries in _pairs(table, "kind", "tries"))
        is_rewrite = pc.equal(table["kind"], "rewrite")
        failed = table.filter(pc.and_(pc.equal(table["status"], "failed"), pc.invert(is_rewrite)))
        self.reasons.update(f"{kind}: {reason.split(':')[0]}" for kind, reason in _pairs(failed, "kind", "reason"))
        for image_id, reason in _pairs(failed, "image_id", "reason"):
            self.examples.setdefault(reason_code(reason), f"{image_id}: {reason}")
        for stage, rows in (("captioner", table.filter(pc.invert(is_rewrite))), ("rewriter", table.filter(is_rewrite))):
            for name in _SUMMED:
                self.sums[f"{stage} {name}"] += pc.sum(rows[name]).as_py() or 0
            self.startup[stage] = max(self.startup[stage], pc.max(rows["startup_seconds"]).as_py() or 0.0)
            if stage == "rewriter":
                accepted = rows.filter(pc.equal(rows["status"], "ok"))
                self.sums["faithfulness"] += pc.sum(accepted["faithfulness"]).as_py() or 0
        return len(outcomes)

    def add_rewrites(self, table: pa.Table) -> None:
        """Count the rewrites of a STAGED table whose other rows nobody made here."""
        rewrites = table.filter(pc.equal(table["kind"], "rewrite"))
        self.add(rewrites)
        failed = rewrites.filter(pc.equal(rewrites["status"], "failed"))
        self.why.update(reason_code(reason) for reason in failed["reason"].to_pylist())

    def merge(self, other: Tally) -> None:
        """Add the sums of another captioner's rows."""
        self.images += other.images
        self.retried += other.retried
        self.examples = other.examples | self.examples
        for name in ("outcomes", "kinds", "reasons", "sums"):
            getattr(self, name).update(getattr(other, name))

    def why_none(self) -> str:
        """Where no image has a caption: the commonest reason and an example of it."""
        (code, count), *_ = self.outcomes.most_common(1) or [("unknown", 0)]
        return f"{count} of {self.images} are {code}, such as {self.examples.get(code, 'none that is known')}"

    def why_no_rewrite(self) -> str:
        """Where no rewrite has a text: the commonest reason."""
        (code, count), *_ = self.why.most_common(1) or [("unknown", self.rewrites_asked)]
        return f"{count} of {self.rewrites_asked} are {code}"

    @property
    def rewrites_asked(self) -> int:
        """Rewrites that were wanted, whatever came of them."""
        return sum(self.kinds[f"rewrite {status}"] for status in ("ok", "unfaithful", "failed"))

    def captions(self) -> dict[str, Any]:
        """Captions by kind where they succeeded, by kind and reason where they failed."""
        return {
            "ok": {kind: self.kinds[f"{kind} ok"] for kind in ("static", "dynamic")},
            "failed": dict(sorted(self.reasons.items())),
        }

    def rewrites(self) -> dict[str, Any]:
        """Rewrites by outcome."""
        accepted, unfaithful, failed = (self.kinds[f"rewrite {status}"] for status in ("ok", "unfaithful", "failed"))
        return {
            "asked": self.rewrites_asked,
            "generated": int(self.sums["rewriter tries"]),
            "accepted": accepted,
            "unfaithful": unfaithful,
            "failed": failed,
            "mean_faithfulness": self.sums["faithfulness"] / accepted if accepted else None,
        }

    def throughput(self) -> dict[str, Any]:
        """Images a second of the whole pass, from the first rows that came to the last: engines start before, and end after."""
        if len(self._seen) < 2:
            return {"images": 0, "seconds": 0.0, "images_per_second": None}
        (start, before), (end, after) = self._seen
        seconds = end - start
        return {"images": after - before, "seconds": seconds, "images_per_second": (after - before) / seconds if seconds else None}

    def pass_facts(self) -> dict[str, Any]:
        """One captioner's pass: its images and captions, and what a second of an actor yields, its start apart."""
        rewriter = self._engine("rewriter", rewrites=self.rewrites_asked) if self.rewrites_asked else None
        return {
            "images": self.images,
            "images_with_a_caption": self.outcomes["ok"],
            "generated": int(self.sums["captioner tries"]),  # answers asked for, retries with another template included
            "retried_with_another_template": self.retried,
            "captions": self.captions(),
            "rewrites_asked": self.rewrites_asked,
            "captioner": self._engine("captioner", images=self.images),
            "rewriter": rewriter,
        }

    def _engine(self, stage: str, **made: int) -> dict[str, Any]:
        seconds = self.sums[f"{stage} seconds"]
        rates = {f"{name}_per_second": number / seconds if seconds else 0.0 for name, number in made.items()}
        asked, cached = int(self.sums[f"{stage} prompt_tokens"]), int(self.sums[f"{stage} cached_tokens"])
        return {
            "startup_seconds": self.startup[stage],
            "busy_seconds": seconds,
            **rates,
            "tokens": int(self.sums[f"{stage} tokens"]),
            "tokens_per_second": self.sums[f"{stage} tokens"] / seconds if seconds else 0.0,
            # In vLLM's own terms: prompt tokens looked up in the prefix cache, and those found there.
            "prefix_cache": {"queries": asked, "hits": cached, "hit_rate": round(cached / asked, 4) if asked else None},
        }


def run_facts(passes: Mapping[str, Tally], throughput: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's facts of a run: totals over all captioners, and each captioner's pass by its name.

    Args:
        passes: captioner -> all rows of the result.
        throughput: captioner -> Tally.throughput() of what this run made; absent where it made nothing.
    """
    total = Tally()
    for tally in passes.values():
        total.merge(tally)
    return {
        "captions": total.captions(),
        "rewrites": total.rewrites(),
        "passes": {name: {**tally.pass_facts(), "throughput": throughput.get(name)} for name, tally in passes.items()},
    }


def _pairs(table: pa.Table, first: str, second: str) -> Iterable[tuple[Any, Any]]:
    return zip(table[first].to_pylist(), table[second].to_pylist(), strict=True)
