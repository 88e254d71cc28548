"""Runs works (generators that ask an engine) to their end against a chat double, all of a round together; images as they are asked for."""

from __future__ import annotations

import pyarrow as pa

from reid_ray.caption.image_captions import Captioner
from reid_ray.caption.ledger.missing import ASK, caption_states
from reid_ray.caption.ledger.row_keys import ASK_TYPE, CaptionRecipe
from reid_ray.caption.ledger.write_ahead_log import Index, as_keys
from reid_ray.caption.streaming.scoring_loop import PairToScore

NOTHING = Index(as_keys([]), as_keys([]), as_keys([]))


def answered(works, engine, scorer=None):
    """The rows of each work."""
    rows, asked = [[] for _ in works], {}
    for number, work in enumerate(works):
        _advance(asked, rows, number, work, None)
    while asked:
        asks = [(number, place, ask) for number, (_, asks) in asked.items() for place, ask in enumerate(asks)]
        requests = [each for each in asks if not isinstance(each[2], PairToScore)]
        pairs = [each for each in asks if isinstance(each[2], PairToScore)]
        replies = {number: [None] * len(asks) for number, (_, asks) in asked.items()}
        said = engine.chat([ask.conversation for *_, ask in requests], [ask.key for *_, ask in requests]) if requests else []
        scores = scorer.score([pair.original for *_, pair in pairs], [pair.rewrite for *_, pair in pairs]).tolist() if pairs else []
        for (number, place, _), reply in [*zip(requests, said, strict=True), *zip(pairs, scores, strict=True)]:
            replies[number][place] = reply
        works_now, asked_before = {number: work for number, (work, _) in asked.items()}, dict(asked)
        asked.clear()
        for number in asked_before:
            _advance(asked, rows, number, works_now[number], replies[number])
    return rows


def _advance(asked, rows, number, work, replies):
    try:
        asked[number] = (work, next(work) if replies is None else work.send(replies))
    except StopIteration as end:
        rows[number] = end.value


def asked(images, config, *, revision="r", max_pixels=10_000_000):
    """The table with what is asked of each image, of which nothing was captioned yet: what an actor is given."""
    recipe = CaptionRecipe(config, revision=revision, templates=None, max_pixels=max_pixels)
    pairs = zip(images["image_id"].to_pylist(), images["image_sha256"].to_pylist(), strict=True)
    return images.append_column(ASK, pa.array([s.missing.column_value() for s in caption_states(list(pairs), recipe, NOTHING)], ASK_TYPE))


def captioned(images, engine, config, *, name="main", revision="r", max_pixels=10_000, templates=None):
    """A captioner's rows of an IMAGES table, of which nothing was captioned yet, in its order."""
    recipe = CaptionRecipe(config, revision=revision, templates=templates, max_pixels=max_pixels)
    captioner = Captioner(name, config, revision=revision, max_pixels=max_pixels, templates=templates)
    rows = images.to_pylist()
    states = caption_states([(row["image_id"], row["image_sha256"]) for row in rows], recipe, NOTHING)
    return [row for made in answered([captioner.work(r, s.missing) for r, s in zip(rows, states, strict=True)], engine) for row in made]
