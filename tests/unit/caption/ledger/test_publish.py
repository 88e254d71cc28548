"""The result in order: rows that lie in the ledger as they came, against sorting them in a list."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from reid_ray.caption.ledger import publish as publishing
from reid_ray.caption.ledger.missing import CachedListing, DigestCache, PassPlan, place_key
from reid_ray.caption.ledger.row_keys import key_of
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, Ledger, as_keys, ledger_table, open_ledger
from reid_ray.caption.rows import staged_table
from reid_ray.data.sources import ImageListing
from reid_ray.errors import DataError

STRIDE, IMAGES = 4, 23


@pytest.mark.slow
def test_rows_come_once_each_in_the_images_order_whatever_the_ledger_looks_like(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "_BUCKET_ROWS", 9)
    draw = random.Random(3)
    wanted = [(image, slot) for image in range(IMAGES) for slot in sorted(draw.sample(range(STRIDE), draw.randint(1, 3)))]
    bad = {at for at in wanted if draw.random() < 0.3}
    written = [(at, at in bad) for at in wanted]
    written += [(at, True) for at in wanted if at not in bad and draw.random() < 0.3]  # failed in an earlier run
    written += [((99, number), False) for number in range(20)]  # of another prompt
    written += draw.sample(written, 10)  # left twice by a driver that died while it merged
    draw.shuffle(written)
    seen = pa.Table.from_pylist(
        [
            {"place": place_key(f"{image}"), "image_id": f"i{image}", "image_sha256": "s", "person_id": 100 + image}
            for image in range(IMAGES)
        ],
        schema=DIGEST_CACHE,
    )
    view = CachedListing(ImageListing(IMAGES, "here", ()), DigestCache(as_keys(seen["place"]), seen), np.arange(IMAGES), np.array([0]))
    with open_ledger(tmp_path / "out") as ledger:
        for at in range(0, len(written), 7):
            block = written[at : at + 7]
            rows = [
                {
                    "caption_id": f"{image}/{slot}",
                    "image_id": f"i{image}",
                    "kind": "static",
                    "status": "failed" if failed else "ok",
                    "text": None if failed else f"tëxt {image}/{slot}",
                    "reason": f"code{slot}: why" if failed else None,
                    "captioner": "old",
                    "person_id": 5,
                }
                for (image, slot), failed in block
            ]
            ledger.commit(f"{at}", ledger_table(staged_table(rows), [key_of(image, slot) for (image, slot), _ in block], ledger.run))
        plan = PassPlan(
            result_key=as_keys([key_of(image, slot) for image, slot in wanted]),
            result_order=np.array([image * STRIDE + slot for image, slot in wanted]),
        )
        tables = list(publishing.published_rows(ledger, view, plan, stride=STRIDE, captioner="new"))
        assert not (ledger.folder / "publishing").exists()
    rows = pa.concat_tables(tables).to_pylist()
    assert len(tables) > 3
    assert [row["caption_id"] for row in rows] == [f"{image}/{slot}" for image, slot in wanted]
    assert [row["status"] for row in rows] == ["failed" if at in bad else "ok" for at in wanted]
    assert [row["text"] for row in rows] == [None if at in bad else f"tëxt {at[0]}/{at[1]}" for at in wanted]
    assert {row["captioner"] for row in rows} == {"new"}
    assert [row["person_id"] for row in rows] == [100 + image for image, _ in wanted]
    for image in range(IMAGES):
        mine = [(at, row) for at, row in zip(wanted, rows, strict=True) if at[0] == image]
        good, codes = [at for at, _ in mine if at not in bad], [f"code{at[1]}" for at, _ in mine if at in bad]
        assert [row["image_outcome"] for _, row in mine] == ["ok" if good else codes[-1], *[None] * (len(mine) - 1)]


def _survey(images: int) -> CachedListing:
    rows = [{"place": place_key(f"{image}"), "image_id": f"i{image}", "image_sha256": "s"} for image in range(images)]
    seen = pa.Table.from_pylist(rows, schema=DIGEST_CACHE)
    return CachedListing(ImageListing(images, "here", ()), DigestCache(as_keys(seen["place"]), seen), np.arange(images), np.array([0]))


def _commit(ledger: Ledger, image: int, text: str, *, made: float) -> None:
    row = {"caption_id": f"{image}", "image_id": f"i{image}", "kind": "static", "status": "ok", "text": text}
    table = ledger_table(staged_table([row]), [key_of(image)], ledger.run)
    at = table.schema.get_field_index("made")
    ledger.commit(f"{image} {text}", table.set_column(at, table.schema.field(at), pa.array([made])))


def _published(ledger: Ledger, images: int) -> list[str]:
    plan = PassPlan(result_key=as_keys([key_of(image) for image in range(images)]), result_order=np.arange(images) * STRIDE)
    tables = publishing.published_rows(ledger, _survey(images), plan, stride=STRIDE, captioner="new")
    return pa.concat_tables(tables)["text"].to_pylist()


def test_of_two_texts_under_one_key_the_first_is_published_for_rewrites_rest_on_it(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        for text, made in (("later", 2.0), ("first", 1.0), ("last", 3.0)):
            _commit(ledger, 0, text, made=made)
        assert _published(ledger, 1) == ["first"]


def test_a_row_that_is_there_no_longer_is_an_error_and_no_gap(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        for image in (0, 2):
            _commit(ledger, image, "text", made=1.0)
        with refused(DataError, "1 rows"):
            _published(ledger, 3)
