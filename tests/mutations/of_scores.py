"""Scores: what weights have seen and could pass for unseen."""

from __future__ import annotations

from mutation import Mutation

_EXPOSURE = ("tests/unit/retrieval/evaluate/test_exposure.py",)
_PLACES = ("tests/unit/retrieval/evaluate/test_seen_everywhere.py",)
_SEEN = ("tests/unit/train/feed/test_seen.py",)
_LOOKUP, _WORDS = "reid_ray/retrieval/evaluate/seen_lookup.py", "reid_ray/retrieval/evaluate/exposure.py"

MUTATIONS = (
    Mutation(
        "weights that do not tell are called clean",
        "reid_ray/data/seen_rows.py",
        "    if None in {bound, own} or bound != own:\n        yield unknown_rows(name)\n",
        "    if None in {bound, own} or bound != own:\n        pass\n",
        _EXPOSURE,
    ),
    Mutation(
        "a record of other weights is taken for one of these",
        "reid_ray/data/seen_rows.py",
        "if None in {bound, own} or bound != own:",
        "if None in {bound, own}:",
        _EXPOSURE,
    ),
    Mutation(
        "from which data set a mixed one took a picture is not asked",
        "reid_ray/data/dataset_overlap.py",
        "if source is None else (source,)",
        "",
        _EXPOSURE,
    ),
    Mutation(
        "what the weights before have seen is forgotten",
        "reid_ray/data/seen_rows.py",
        "        yield from seen_by(folder, name)\n",
        "        pass\n",
        _EXPOSURE,
    ),
    Mutation("near duplicates are one bit too far away", "reid_ray/retrieval/index/near_hashes.py", "bits + 1)", "bits)", _EXPOSURE),
    Mutation(
        "what chose the weights is no exposure",
        _WORDS,
        'seen = any(side[role][what] for side in sides for role in ROLES for what in ("images", "near", "identities"))',
        'seen = any(side["train"][what] for side in sides for what in ("images", "near", "identities"))',
        _PLACES + _EXPOSURE,
    ),
    Mutation("a flat picture looks like every other", _LOOKUP, "telling_M = hash_MB.any(axis=1)", "telling_M = row_M >= 0", _EXPOSURE),
    Mutation(
        "equal numbers of synthetic people pass for others",
        _LOOKUP,
        "for met in self._met.values() for who in met if who[0] in _RENUMBERED",
        "for met in () for who in met if who[0] in _RENUMBERED",
        _EXPOSURE,
    ),
    Mutation(
        "rewrites are no texts that were trained on",
        "reid_ray/train/feed/seen.py",
        'if "rewrites" in batch.schema.names:',
        "if False:",
        _SEEN,
    ),
    Mutation(
        "validation is compared with itself",
        "reid_ray/train/feed/seen.py",
        'pc.or_(pc.not_equal(piece["role"], "val"), pc.is_valid(piece["weights"]))',
        'pc.is_valid(piece["role"])',
        _SEEN,
    ),
    Mutation(
        "a query's own row is a copy of it",
        "reid_ray/retrieval/evaluate/shown.py",
        "return np.unique(query_P[~removed_P & ",
        "return np.unique(query_P[",
        _PLACES,
    ),
    Mutation(
        "galleries of one size are one gallery",
        "reid_ray/retrieval/compare/job.py",
        '("protocol", "split", "datasets", "gallery", "gallery_digest")',
        '("protocol", "split", "datasets", "gallery")',
        _PLACES,
    ),
    Mutation(
        "a run's own manifest is not asked",
        "reid_ray/retrieval/evaluate/weights_history.py",
        "same_table=None if recorded or folder is None else _same_table(config, folder)",
        "same_table=None",
        _PLACES,
    ),
)
