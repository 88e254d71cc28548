"""What the manifest counts, against rows counted by hand."""

from __future__ import annotations

import pytest

from reid_ray.caption.rows import staged_table
from reid_ray.caption.tally import Tally, run_facts

COMMON = {"image_id": "i", "seconds": 0.5, "tokens": 10, "prompt_tokens": 100}


def _row(number: int, kind: str, status: str = "ok", **columns):
    reason = {"failed": "refused: no", "unfaithful": "unfaithful: far"}.get(status)
    return COMMON | {"caption_id": f"{number}", "kind": kind, "status": status, "reason": reason, "tries": 1} | columns


def test_retries_replacements_rewrites_and_prefix_hits_are_counted_by_captioner():
    first = Tally()
    completed = first.add(
        staged_table(
            [
                _row(0, "dynamic", image_outcome="ok", tries=2, cached_tokens=30, startup_seconds=4.0),
                _row(1, "rewrite", tries=3, faithfulness=0.75),
                _row(2, "dynamic", "failed", image_outcome="ok", tries=2),
                _row(3, "static"),  # in place of row 2
                _row(4, "rewrite", "unfaithful", tries=3, faithfulness=0.25),
                _row(5, "dynamic", "failed", image_outcome="refused", tries=0),
            ]
        )
    )
    second = Tally()
    second.add(staged_table([_row(6, "static", image_outcome="ok")]))
    assert completed == first.images == 3
    facts = run_facts({"a": first, "b": second}, {"a": {"images": 2, "seconds": 1.0, "images_per_second": 2.0}})
    assert facts["captions"] == {"ok": {"static": 2, "dynamic": 1}, "failed": {"dynamic: refused": 2}}
    assert facts["rewrites"] == {"asked": 2, "generated": 6, "accepted": 1, "unfaithful": 1, "failed": 0, "mean_faithfulness": 0.75}
    a, b = facts["passes"]["a"], facts["passes"]["b"]
    assert (a["images"], a["images_with_a_caption"], a["generated"], a["retried_with_another_template"]) == (3, 2, 5, 2)
    assert a["captions"]["ok"]["static"] == 1  # dynamic alone was asked for: this one replaced a failed one
    assert a["captioner"]["prefix_cache"] == {"queries": 400, "hits": 30, "hit_rate": 0.075}
    assert a["captioner"]["images_per_second"] == pytest.approx(3 / 2.0)
    assert a["captioner"]["startup_seconds"] == 4.0
    assert a["rewriter"]["rewrites_per_second"] == pytest.approx(2 / 1.0)
    assert a["throughput"]["images_per_second"] == 2.0
    assert (b["images"], b["rewriter"], b["throughput"]) == (1, None, None)


def test_the_first_batch_is_not_counted_into_the_throughput():
    tally = Tally()
    assert tally.throughput()["images_per_second"] is None
    for number in range(3):
        tally.add(staged_table([_row(number, "static", image_outcome="ok")]))
    whole = tally.throughput()
    assert whole["images"] == 2
    assert whole["images_per_second"] == pytest.approx(2 / whole["seconds"])


def test_rewrites_alone_are_counted_where_nobody_made_the_captions_and_their_failures_by_the_commonest_code():
    rows = [_row(0, "human", "failed"), _row(1, "rewrite", "failed"), _row(2, "rewrite", "failed"), _row(3, "rewrite", "failed")]
    rows[0]["reason"] = None  # a table of other origin need not say
    rows[3]["reason"] = "copied: the same"
    tally = Tally()
    tally.add_rewrites(staged_table(rows))
    assert (tally.rewrites_asked, tally.why_no_rewrite()) == (3, "2 of 3 are refused")
    assert tally.rewrites() | {"generated": 0} == {
        "asked": 3, "generated": 0, "accepted": 0, "unfaithful": 0, "failed": 3, "mean_faithfulness": None,
    }  # fmt: skip
