"""Ray Data actors of a caption run: Captioner and Rewriter, each behind the write-ahead log and the poison-row guard.

Knows which rows a batch is about and how a quarantined one is recorded; captioning and rewriting know the rest.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.vllm_engine import ChatEngine
from reid_ray.caption.image_captions import Captioner
from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.missing import MISSING
from reid_ray.caption.ledger.quarantine import PoisonRowGuard
from reid_ray.caption.ledger.row_keys import CaptionRecipe, RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import LEDGER, Ledger, ledger_table
from reid_ray.caption.rewrites import Rewriter
from reid_ray.caption.rows import STAGED
from reid_ray.errors import DataError

QUARANTINED = "quarantined"  # reason code of a row that ended its engine


class CaptionStage:
    """IMAGES rows with the column MISSING -> LEDGER rows of the captions they lacked, committed.

    Args:
        captioner: arguments of Captioner, which is built here, in the actor.
        config: the captioner's section.
        recipe: what it makes.
        ledger: of this run.
        timeout_s: what one batch may take.
    """

    def __init__(
        self, captioner: dict[str, Any], config: CaptionerConfig, *, recipe: CaptionRecipe, ledger: Ledger, timeout_s: float
    ) -> None:
        self._arguments, self._config, self._recipe, self._ledger = captioner, config, recipe, ledger
        self._guard = PoisonRowGuard(ledger, stage=f"caption {recipe.stage}", timeout_s=timeout_s)
        self._captioners: dict[tuple[str, ...], Captioner] = {}
        with self._guard.starting():
            self._engine: ChatEngine = self._captioner(config.instructions).engine

    def __call__(self, images: pa.Table) -> pa.Table:
        """A batch's captions; images that lack the same kinds are asked together."""
        done = [LEDGER.empty_table()]
        for missing in sorted(set(images[MISSING].to_pylist())):
            rows = images.filter(pc.equal(images[MISSING], missing)).drop_columns([MISSING])
            captioner = self._captioner(tuple(missing.split("+")))
            names = [digest(missing, *row) for row in zip(rows["image_id"].to_pylist(), rows["image_sha256"].to_pylist(), strict=True)]

            def work(part: pa.Table, captioner: Captioner = captioner) -> pa.Table:
                return self._ledger_rows(captioner(part))

            def give_up(part: pa.Table, why: str, captioner: Captioner = captioner) -> pa.Table:
                # Without its bytes no decoder and no engine will touch the image.
                column = part.schema.get_field_index("image")
                staged = captioner(part.set_column(column, "image", pa.nulls(part.num_rows, pa.binary())))
                return self._ledger_rows(_with_reason(staged, why))

            done.append(self._guard.run(rows, names, work=work, give_up=give_up))
        return pa.concat_tables(done)

    def _captioner(self, kinds: tuple[str, ...]) -> Captioner:
        """A captioner for these kinds; all share one engine."""
        if kinds not in self._captioners:
            shared = {"engine": next(iter(self._captioners.values())).engine} if self._captioners else {}
            config = self._config.model_copy(update={"instructions": kinds})
            self._captioners[kinds] = Captioner(config=config, **{**self._arguments, **shared})
        return self._captioners[kinds]

    def _ledger_rows(self, staged: pa.Table) -> pa.Table:
        try:
            keys = [self._recipe.key_of_row(row) for row in staged.to_pylist()]
        except LookupError as error:
            raise DataError(f"{error}: caption.wanted and caption.captioning disagree about it") from None
        return ledger_table(staged, keys, self._ledger.run)


class RewriteStage:
    """LEDGER rows of captions -> the same rows and their rewrites, committed.

    Args:
        rewriter: arguments of Rewriter, which is built here, in the actor.
        recipe: what it makes.
        ledger: of this run.
        timeout_s: what one batch may take.
    """

    def __init__(self, rewriter: dict[str, Any], *, recipe: RewriteRecipe, ledger: Ledger, timeout_s: float) -> None:
        self._arguments, self._recipe, self._ledger = rewriter, recipe, ledger
        self._guard = PoisonRowGuard(ledger, stage=f"rewrite {recipe.stage}", timeout_s=timeout_s)
        with self._guard.starting():
            self._rewriter = Rewriter(**rewriter)

    def __call__(self, captions: pa.Table) -> pa.Table:
        """The batch and its rewrites."""
        ids, keys, statuses = (captions[name].to_pylist() for name in ("caption_id", "key", "status"))
        wanted = [status == "ok" and bool(self._recipe.keys(name, key)) for name, key, status in zip(ids, keys, statuses, strict=True)]
        parents = captions.filter(pa.array(wanted))
        if not parents.num_rows:
            return captions
        names = [key.hex() for key in parents["key"].to_pylist()]
        return pa.concat_tables([captions, self._guard.run(parents, names, work=self._work, give_up=self._give_up)])

    def _work(self, parents: pa.Table) -> pa.Table:
        return self._ledger_rows(parents, self._rewriter(parents.select(STAGED.names)))

    def _give_up(self, parent: pa.Table, why: str) -> pa.Table:
        return self._ledger_rows(parent, self._rewriter.given_up(parent.select(STAGED.names), f"{QUARANTINED}: {why}"))

    def _ledger_rows(self, parents: pa.Table, staged: pa.Table) -> pa.Table:
        keys: dict[str, bytes] = {}
        for parent_id, key in zip(parents["caption_id"].to_pylist(), parents["key"].to_pylist(), strict=True):
            keys |= self._recipe.keys_by_id(parent_id, key)
        rewrites = staged.filter(pc.equal(staged["kind"], "rewrite"))
        unknown = sorted(set(rewrites["caption_id"].to_pylist()) - set(keys))
        if unknown:
            raise DataError(f"rewrite {unknown[0]} is none that the configuration asks for: caption.wanted and caption.rewriting disagree")
        return ledger_table(rewrites, [keys[name] for name in rewrites["caption_id"].to_pylist()], self._ledger.run)


def _with_reason(staged: pa.Table, why: str) -> pa.Table:
    """The rows of an image that was given up, with its reason."""
    reason = pa.array([f"{QUARANTINED}: {why}"] * staged.num_rows, pa.string())
    table = staged.set_column(staged.schema.get_field_index("reason"), STAGED.field("reason"), reason)
    outcome = pa.array([None if code is None else QUARANTINED for code in staged["image_outcome"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("image_outcome"), STAGED.field("image_outcome"), outcome)
