"""Rewriter with a scripted engine and scorer: LLM-DA's rule, try by try."""

from __future__ import annotations

import numpy as np

from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.ledger.content_keys import falls_in_share
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import ledger_rows
from reid_ray.caption.rewrites import Rewriter
from reid_ray.caption.rows import staged_table
from reid_ray.caption.streaming.in_rounds import run_in_rounds
from reid_ray.records import CAPTIONS, conform


class ScriptedEngine:
    """The n-th answer to each caption, from a dictionary of lists."""

    def __init__(self, answers: dict[str, list[str | None]]) -> None:
        self.answers, self.keys = {text: list(said) for text, said in answers.items()}, []

    def chat(self, conversations, keys):
        self.keys += keys
        texts = [self.answers[message["content"].split("\n")[0]].pop(0) for (message,) in conversations]
        return [Reply(text, error="too long" if text is None else None, tokens=5) for text in texts]


class LastNumber:
    """Scores a rewrite by the number it ends in."""

    def score(self, originals, rewrites):
        return np.array([float(text.split()[-1]) for text in rewrites], np.float32)


def _captions(*texts: str | None):
    common = {"kind": "static", "tokens": 7, "seconds": 0.5}
    rows = []
    for n, text in enumerate(texts):
        outcome = {"status": "ok", "image_outcome": "ok"} if text else {"status": "failed", "reason": "empty: 0", "image_outcome": "empty"}
        rows.append({"caption_id": f"c{n}", "image_id": f"{n}.png", "person_id": n, "text": text, **common, **outcome})
    return staged_table(rows)


def _run(answers, captions, *, max_tries=3, min_agreement=None, **config):
    engine = ScriptedEngine(answers)
    config = RewriterConfig(**{"share": 1.0, **config})
    faithfulness = FaithfulnessConfig(alpha=0.6, max_tries=max_tries, min_agreement=min_agreement)
    recipe = RewriteRecipe(config, faithfulness, revision="r", scorer_revision="s")
    rewriter = Rewriter(config, faithfulness, recipe=recipe, revision="r")
    asked = [row for row in captions.to_pylist() if row["status"] == "ok" and recipe.keys(row["caption_id"], b"k")]
    made = run_in_rounds([rewriter.work(row | {"key": b"k"}) for row in asked], engine, LastNumber())
    rows = [row for each in made for row in each]
    conform(ledger_rows(rows, "run"), CAPTIONS, origin="rewriter")
    return rows, engine


def _outcome(row):
    return row["status"], row["tries"], row["text"], row["faithfulness"] if row["faithfulness"] is None else round(row["faithfulness"], 3)


def test_a_rewrite_is_drawn_again_until_it_is_faithful_or_the_tries_are_spent():
    answers = {
        "first": ["a good rewrite 0.9"],
        "second": ["a bad rewrite 0.2", "a good rewrite 0.6"],
        "third": ["a bad rewrite 0.1", "a better rewrite 0.5", "a worse rewrite 0.3"],
        "fourth": [None, "short", "Fourth!"],
    }
    rows, engine = _run(answers, _captions(*answers))
    rewrites = {row["parent_id"]: row for row in rows}
    assert _outcome(rewrites["c0"]) == ("ok", 1, "a good rewrite 0.9", 0.9)
    assert _outcome(rewrites["c1"]) == ("ok", 2, "a good rewrite 0.6", 0.6)
    assert _outcome(rewrites["c2"]) == ("unfaithful", 3, "a better rewrite 0.5", 0.5)
    assert _outcome(rewrites["c3"]) == ("failed", 3, None, None)
    assert rewrites["c0"]["reason"] is None
    assert rewrites["c1"]["reason"] is None
    assert rewrites["c2"]["reason"].startswith("unfaithful: cosine 0.500")
    assert len(set(engine.keys)) == len(engine.keys) == 1 + 2 + 3 + 3  # every try draws from a stream of its own
    assert [row["tokens"] for row in rewrites.values()] == [5, 10, 15, 15]


def test_a_rewrite_that_changes_an_attribute_is_drawn_again_however_close_it_sounds():
    original = "a man in a red coat"
    answers = {original: ["A man in a black coat 0.95", "The man wears a red coat 0.7", "never asked"]}
    (rewrite,), _ = _run(answers, _captions(original), min_agreement=0.75)
    assert _outcome(rewrite) == ("ok", 2, "The man wears a red coat 0.7", 0.7)
    assert rewrite["agreement"] == 1
    answers = {original: ["A man in a black coat 0.95", "A man in a blue coat 0.8", "A man in a bag 0.65"]}
    (rewrite,), _ = _run(answers, _captions(original), min_agreement=0.75)
    assert _outcome(rewrite) == ("unfaithful", 3, "A man in a black coat 0.95", 0.95)
    assert rewrite["reason"] == "unfaithful: attribute agreement 0.000 is below 0.75 (contradicted: upper color black)"
    (rewrite,), _ = _run({original: ["A man in a black coat 0.95"]}, _captions(original))
    assert (rewrite["status"], rewrite["agreement"]) == ("ok", 0)


def test_each_caption_has_its_rewrites_and_failed_captions_are_left_alone():
    rows, _ = _run(
        {"one": ["rewrite of one 1", "other of one 1"], "two": ["rewrite of two 1", "other of two 1"]},
        _captions("one", None, "two"),
        count=2,
    )
    assert [row["parent_id"] for row in rows] == ["c0", "c0", "c2", "c2"]
    assert len({row["caption_id"] for row in rows}) == len(rows)
    assert all(row.get("image_outcome") is None for row in rows)
    assert {row["person_id"] for row in rows if row["parent_id"] == "c2"} == {2}


def test_a_copy_is_no_rewrite():
    rows, _ = _run({"a man in red": ["A man in red!", "A man, in red.", "a man in RED"]}, _captions("a man in red"))
    assert rows[0]["status"] == "failed"
    assert rows[0]["reason"].startswith("copied")


def test_only_the_share_that_the_digest_picks_is_rewritten():
    texts = [f"caption {n}" for n in range(200)]
    rows, _ = _run({text: ["a new wording 1"] for text in texts}, _captions(*texts), share=0.25)
    rewritten = {row["parent_id"] for row in rows if row["kind"] == "rewrite"}
    assert rewritten == {f"c{n}" for n in range(200) if falls_in_share(f"c{n}", 0.25)}
    assert 20 < len(rewritten) < 80


def test_a_batch_without_anything_to_rewrite_asks_nothing():
    rows, engine = _run({}, _captions(None, None))
    assert rows == []
    assert engine.keys == []
