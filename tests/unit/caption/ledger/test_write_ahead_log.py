"""The ledger without Ray: keys, blocks, what is missing, and processes that die at work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from answered_works import captioned

from reid_ray.caption.config import CaptionerConfig, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.ledger.missing import caption_states
from reid_ray.caption.ledger.row_keys import CaptionRecipe, ImageAsk, RewriteRecipe, key_of
from reid_ray.caption.ledger.write_ahead_log import KEYS, Ledger, as_keys, find, ledger_table, open_ledger, read_index
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.rows import staged_table
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.records import IMAGES
from reid_ray.storage import sha256_of

GOOD = "A man in a grey coat and black shoes."
SECOND = {"revision": "r", "templates": None, "max_pixels": 10_000}


def images(number: int) -> pa.Table:
    return SyntheticPeople(SyntheticConfig(identities=number, images_per_identity=1)).image_table().select(IMAGES.names)


class FailsFirst:
    """Fails the first dynamic question about every other picture."""

    def __init__(self) -> None:
        self.calls = 0

    def chat(self, conversations, keys):
        first, self.calls = self.calls == 0, self.calls + 1
        return [Reply(GOOD if not (number % 4 == 0 and first) else "A [hair description] <") for number in range(len(conversations))]


def test_a_captioners_rows_lie_under_the_keys_that_its_recipe_asks_for():
    config = CaptionerConfig(instructions=("dynamic", "static"), template_tries=2)
    recipe = CaptionRecipe(config, **SECOND)
    table = images(6)
    rows = captioned(table, FailsFirst(), config)
    asks = [ask for row in table.to_pylist() for ask in recipe.requests(row["image_id"], row["image_sha256"])]
    assert len({row["key"] for row in rows}) == len(rows) == len(asks)
    for row, ask in zip(rows, asks, strict=True):
        assert row["caption_id"] == ask.caption_id
        assert row["key"] == ask.keys[row["tries"] - 1 if row["kind"] == "dynamic" else 0]
    assert {row["tries"] for row in rows if row["kind"] == "dynamic"} == {1, 2}


def test_only_images_that_drew_a_changed_template_get_other_keys():
    config = CaptionerConfig(instructions=("dynamic",), template_tries=2)
    other = {**TEMPLATES, "t07": TEMPLATES["t07"] + " It rains."}
    one, two = (CaptionRecipe(config, **{**SECOND, "templates": templates}) for templates in (dict(TEMPLATES), other))
    for number in range(300):
        (before,), (after,) = (recipe.requests(f"{number}", sha256_of(f"{number}".encode())) for recipe in (one, two))
        assert before.instruction_ids == after.instruction_ids
        same = [a == b for a, b in zip(before.keys, after.keys, strict=True)]
        changed = [name == "dynamic/t07" for name in before.instruction_ids]
        assert same == [not changed[0], not any(changed)]


@pytest.mark.parametrize(
    "change", [{"max_side": 99}, {"limits": {"min_words": 2}}, {"sampling": {"seed": 1}}, {"engine": {"dtype": "auto"}}]
)
def test_what_shapes_an_answer_changes_its_key(change):
    keys = {CaptionRecipe(CaptionerConfig(**values), **SECOND).requests("i", "s")[0].keys for values in ({}, change)}
    assert len(keys) == 2


def test_rewrites_hang_on_their_parents_key_and_on_the_thresholds():
    def keys(parent: bytes = b"p", **faithfulness: float) -> list[bytes]:
        recipe = RewriteRecipe(RewriterConfig(share=1, count=2), FaithfulnessConfig(**faithfulness), revision="r", scorer_revision="s")
        return recipe.keys("parent", parent)

    made = [*keys(), *keys(b"q"), *keys(alpha=0.7)]
    assert len(set(made)) == 6
    assert keys() == made[:2]
    none = RewriteRecipe(RewriterConfig(share=0.1), FaithfulnessConfig(), revision="r", scorer_revision="s")
    assert sum(bool(none.keys(f"{n}", b"p")) for n in range(500)) == pytest.approx(50, abs=25)


def ledger_rows(ledger: Ledger, *rows: tuple[bytes, str, str | None], made: float | None = None) -> pa.Table:
    staged = staged_table(
        [
            {"caption_id": key.hex(), "image_id": "i", "kind": "static", "status": status, "reason": reason, "tries": 1}
            for key, status, reason in rows
        ]
    )
    return ledger_table(staged, [key for key, _, _ in rows], ledger.run)


def test_merging_blocks_keeps_every_row_and_a_failure_counts_until_the_next_run(tmp_path):
    keys = [key_of(number) for number in range(6)]
    with open_ledger(tmp_path / "out") as ledger:
        for at in range(3):
            ledger.commit(f"{at}", ledger_rows(ledger, (keys[at], "ok", None)))
        ledger.commit("bad", ledger_rows(ledger, (keys[3], "failed", "rejected: x"), (keys[4], "failed", "truncated: y")))
        index = read_index(ledger, retry_failed=True)
        assert sorted(index.ok.tolist()) == sorted(as_keys(keys[:3]).tolist())
        assert sorted(index.failed.tolist()) == sorted(as_keys(keys[3:5]).tolist())
        ledger.compact()
        assert [Path(file).name[:4] for file in ledger.row_files()] == ["part"]
        with pytest.raises(DataError, match="another run writes this output"), open_ledger(tmp_path / "out"):
            pass
    with open_ledger(tmp_path / "out") as later:
        again, final = read_index(later, retry_failed=True), read_index(later, retry_failed=False)
        assert len(again.ok) == 3
        assert again.failed.tolist() == as_keys(keys[4:5]).tolist()  # its bytes are at fault, whoever looks
        assert len(final.failed) == 2
        with pytest.raises(DataError, match="another run writes here"):
            ledger.commit("late", ledger_rows(ledger, (keys[5], "ok", None)))


def test_finding_keys_agrees_with_a_dictionary():
    keys = [key_of(number) for number in range(500)]
    ordered = np.sort(as_keys(keys[:300]))
    assert (find(as_keys(keys), ordered) >= 0).tolist() == [True] * 300 + [False] * 200
    assert find(as_keys([]), ordered).size == 0
    column = pa.chunked_array([pa.array(keys[:7], pa.binary(16)).slice(2), pa.array(keys[7:9], pa.binary(16))])
    assert as_keys(column).tolist() == np.array(keys[2:9], KEYS).tolist()


def test_a_failed_dynamic_caption_asks_for_its_substitute_unless_nobody_saw_the_image(tmp_path):
    recipe = CaptionRecipe(CaptionerConfig(instructions=("dynamic",)), **SECOND)
    (dynamic,), static = recipe.requests("i", "s"), recipe.fallback("i", "s")
    with open_ledger(tmp_path / "out") as ledger:
        assert caption_states([("i", "s")], recipe, read_index(ledger, retry_failed=True))[0].missing == ImageAsk((dynamic,), static)
        ledger.commit("a", ledger_rows(ledger, (dynamic.keys[-1], "failed", "markup: <")))
        assert caption_states([("i", "s")], recipe, read_index(ledger, retry_failed=True))[0].missing == ImageAsk((static,), None)
        ledger.commit("b", ledger_rows(ledger, (static.keys[0], "ok", None)))
        settled = caption_states([("i", "s")], recipe, read_index(ledger, retry_failed=True))[0]
        assert [(ask.kind, ok) for ask, _, ok in settled.rows] == [("dynamic", False), ("static", True)]
        assert settled.missing is None
