"""Which captions of a table are rewritten, under which keys, and that originals and rewrites come out in the table's order."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.existing import row_ranges as ranges
from reid_ray.caption.existing.asked import ASKED, AskedCaptions, parent_keys
from reid_ray.caption.existing.config import ExistingCaptions, RewriteJob
from reid_ray.caption.existing.interleave import interleaved
from reid_ray.caption.ledger.publish import ORDER
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import LEDGER, ledger_table
from reid_ray.caption.rows import staged_table
from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.records import CAPTIONS, table_of

RECIPE = RewriteRecipe(RewriterConfig(share=1.0, count=2), FaithfulnessConfig(), revision="r", scorer_revision="s")


def caption(number: int, **columns) -> dict:
    row = {"caption_id": f"c{number}", "image_id": f"{number}.jpg", "kind": "human", "status": "ok", "text": f"text {number}"}
    return row | {"split": "train"} | columns


def asked(share: float = 1.0, **config) -> AskedCaptions:
    return AskedCaptions(ExistingCaptions(path="x", **config), share, RECIPE)


def test_train_alone_is_rewritten_unless_more_is_asked_for_and_each_other_row_says_why():
    rows = [
        caption(0),
        caption(1, split="test"),
        caption(2, split="val"),
        caption(3, split=None),
        caption(4, kind="rewrite", parent_id="c0"),
        caption(5, status="failed", text=None, reason="null_caption"),
        caption(6, text="  "),
        caption(7, kind="static"),
    ]
    table = table_of(CAPTIONS, rows)
    usual = [ASKED, "other_split", "other_split", "other_split", "earlier_rewrite", "failed", "no_text", ASKED]
    assert asked().outcomes(table).to_pylist() == usual
    assert asked().of(table)["caption_id"].to_pylist() == ["c0", "c7"]
    others = asked(splits=[None, "val"], kinds=["human"]).outcomes(table).to_pylist()
    assert others == ["other_split", "other_split", ASKED, ASKED, "earlier_rewrite", "failed", "no_text", "other_kind"]
    assert asked().outcomes(CAPTIONS.empty_table()).to_pylist() == []


def test_a_share_is_a_share_and_a_larger_one_contains_it():
    table = table_of(CAPTIONS, [caption(number) for number in range(400)])
    some, more = (set(asked(share).of(table)["caption_id"].to_pylist()) for share in (0.3, 0.6))
    assert 80 < len(some) < 160
    assert some < more


def test_a_key_changes_with_the_text_and_with_the_caption_and_with_nothing_else_of_the_row():
    rows = [caption(0), caption(0, text="other"), caption(1), caption(0, split="val", image_id="moved.jpg")]
    first, mended, other, moved = asked().keys(table_of(CAPTIONS, rows)).tolist()
    assert first == moved
    assert len({*first, *mended, *other}) == 6


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_each_original_is_followed_by_its_rewrites_whatever_the_sizes_of_the_tables(batch):
    draw = random.Random(batch)
    count, rows = 3, 30
    numbers = sorted(draw.sample(range(rows), 22))  # the others are rewrites that the table held
    made = [(number, slot) for number in numbers if draw.random() < 0.6 for slot in range(count)]
    table = table_of(CAPTIONS, [caption(number, person_id=number) for number in numbers])
    originals = ((np.array(numbers[at : at + batch]), table.slice(at, batch)) for at in range(0, len(numbers) + batch, batch))
    staged = [{**caption(number, kind="rewrite"), "caption_id": f"c{number}/{slot}", "person_id": -1} for number, slot in made]
    orders = pa.array([number * count + slot for number, slot in made], pa.int64())
    ledger = ledger_table(staged_table(staged), [bytes(16)] * len(made), "run").append_column(ORDER, orders)
    rewrites = (ledger.slice(at, 7) for at in range(0, len(made), 7))
    tables = list(interleaved(originals, rewrites, count=count))
    expected = [name for number in numbers for name in (f"c{number}", *(f"c{n}/{slot}" for n, slot in made if n == number))]
    result = pa.concat_tables(tables)
    assert result["caption_id"].to_pylist() == expected
    assert result["person_id"].to_pylist() == [int(name[1:].partition("/")[0]) for name in expected]  # as the original has it now


def test_a_table_is_read_by_row_groups_with_the_numbers_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "_BATCH_ROWS", 3)
    table = table_of(CAPTIONS, [caption(number) for number in range(17)])
    pq.write_table(table.slice(0, 12), tmp_path / "a.parquet", row_group_size=5)
    pq.write_table(table.slice(12), tmp_path / "b.parquet")
    parts = ranges.row_ranges(str(tmp_path))
    assert [(part.first, part.rows) for part in parts] == [(0, 5), (5, 5), (10, 2), (12, 5)]
    batches = [batch for part in parts for batch in part.batches()]
    assert max(batch.num_rows for _, batch in batches) == 3
    assert all(batch["caption_id"][0].as_py() == f"c{first}" for first, batch in batches)
    assert pa.concat_tables([batch for _, batch in batches]) == table


def test_the_parents_of_the_ledger_are_the_captions_of_the_table():
    table = table_of(CAPTIONS, [caption(0), caption(1)])
    rows = ledger_table(staged_table(table.to_pylist()), parent_keys(table), "")
    assert rows.schema == LEDGER
    names = rows["caption_id"].to_pylist()
    keys = [RECIPE.keys(name, key) for name, key in zip(names, rows["key"].to_pylist(), strict=True)]
    assert keys == asked().keys(table).tolist()


def test_a_rewriter_of_nothing_is_refused():
    with refused(ConfigError, "rewriter.share"):
        load_config(RewriteJob, None, ["captions.path=x", "output.path=x", "rewriter.share=0"])
