"""Captions: what could be asked again, forgotten, doubled, put in the wrong order or found under a key that it has no right to."""

from __future__ import annotations

from mutation import Mutation

_ATTEMPTS = ("tests/unit/caption/ledger/test_attempt_board.py",)
_STREAMS = ("tests/unit/caption/streaming/test_streams.py",)
_CAPTION = "tests/unit/caption/"
_IDS = ("tests/unit/caption/ledger/test_content_keys.py",)
_KEYS = ("tests/unit/caption/ledger/test_row_keys.py",)
_LEDGER_TESTS = (
    "tests/unit/caption/ledger/test_write_ahead_log.py",
    "tests/unit/caption/ledger/test_compaction.py",
)
_PRIVACY = ("tests/unit/privacy/test_left_behind.py",)

_EXISTING = ("tests/unit/caption/existing/test_asked.py",)

MUTATIONS = (
    # --- rewriting what exists
    Mutation(
        "captions of test are rewritten with those of train",
        "reid_ray/caption/existing/asked.py",
        'left_out["other_split"] = pc.invert(here)',
        'left_out["other_split"] = pc.and_(pc.invert(here), False)',
        _EXISTING,
    ),
    Mutation(
        "a caption that was mended keeps the rewrites of its old text",
        "reid_ray/caption/existing/asked.py",
        'key_of("existing", *pair)',
        'key_of("existing", pair[0])',
        _EXISTING,
    ),
    Mutation(
        "a rewrite stands before its original",
        "reid_ray/caption/existing/interleave.py",
        "order + order // count + 1]",
        "order + order // count - 1]",
        _EXISTING,
    ),
    # --- what died, and who is to blame
    Mutation(
        "four deaths are enough to take an engine for dead",
        "reid_ray/caption/ledger/attempt_board.py",
        "_DOWN_AFTER = 8",
        "_DOWN_AFTER = 4",
        _ATTEMPTS,
    ),
    Mutation(
        "an engine that dies is tried for ever",
        "reid_ray/caption/ledger/attempt_board.py",
        "_DOWN_AFTER = 8",
        "_DOWN_AFTER = 800",
        _ATTEMPTS,
    ),
    Mutation("a streak is never forgotten", "reid_ray/caption/ledger/attempt_board.py", "        self._streak = 0\n", "", _ATTEMPTS),
    Mutation(
        "one death is enough to give a row up",
        "reid_ray/caption/ledger/attempt_board.py",
        "_DEATHS_ALONE = 2",
        "_DEATHS_ALONE = 1",
        _ATTEMPTS,
    ),
    Mutation(
        "a broken actor gives up the rows that it is handed",
        "reid_ray/caption/ledger/attempt_board.py",
        "_BROKEN_AFTER = 4",
        "_BROKEN_AFTER = 400",
        _ATTEMPTS,
    ),
    Mutation(
        "a row is blamed by an engine that made none between its deaths",
        "reid_ray/caption/ledger/attempt_board.py",
        "state.made == made_then and others",
        "False",
        _ATTEMPTS,
    ),
    Mutation(
        "the device of a broken actor is forgotten",
        "reid_ray/caption/ledger/attempt_board.py",
        "self._past.devices.get(device)",
        "None",
        _ATTEMPTS,
    ),
    Mutation(
        "a broken actor hands back whenever others wait for the source",
        "reid_ray/caption/ledger/attempt_board.py",
        "(_IDLE_THROUGH_S if through else _IDLE_S)",
        "_IDLE_THROUGH_S",
        _ATTEMPTS,
    ),
    Mutation(
        "an engine that steps while pictures are decoded counts for decoding",
        "reid_ray/caption/streaming/stage_clock.py",
        "for name, there in self._at.items() if there",
        "for name, there in reversed(self._at.items()) if there",
        ("tests/unit/caption/streaming/test_pass_account.py",),
    ),
    Mutation(
        "what an actor says of its end is forgotten",
        "reid_ray/caption/ledger/attempt_board.py",
        "state.explained or reason or _NO_WORD",
        "reason or _NO_WORD",
        _ATTEMPTS,
    ),
    Mutation(
        "suspects are with the engine beside others",
        "reid_ray/caption/streaming/admission.py",
        "or group != self._next() or",
        "or",
        _STREAMS,
    ),
    Mutation(
        "calls are let in by turns, all of them",
        "reid_ray/caption/streaming/admission.py",
        "if line.free), self.width)",
        "if line.free), None)",
        _STREAMS,
    ),
    Mutation(
        "a slow request holds its engine for ever",
        "reid_ray/caption/streaming/engine_loop.py",
        "self._engine.abort(slow)",
        "return",
        _STREAMS,
    ),
    # --- the ledger
    Mutation(
        "compaction merges files that somebody reads",
        "reid_ray/caption/ledger/write_ahead_log.py",
        "if file.location in keep or ",
        "if ",
        _LEDGER_TESTS,
    ),
    Mutation(
        "compaction merges young files", "reid_ray/caption/ledger/write_ahead_log.py", " or file.changed > youngest:", ":", _LEDGER_TESTS
    ),
    Mutation(
        "compaction writes nothing before it removes",
        "reid_ray/caption/ledger/write_ahead_log.py",
        "read_ledger_file, schema=schema), locations))\n",
        "read_ledger_file, schema=schema), locations[:-1]))\n",
        _LEDGER_TESTS,
    ),
    Mutation(
        "a dead driver's actor writes down places",
        "reid_ray/caption/ledger/write_ahead_log.py",
        '        """Add to the digest cache which content was found where (DIGEST_CACHE rows)."""\n        self._check_owned()\n',
        '        """Add to the digest cache which content was found where (DIGEST_CACHE rows)."""\n',
        _LEDGER_TESTS,
    ),
    Mutation(
        "a failure that no retry mends is retried",
        "reid_ray/caption/ledger/write_ahead_log.py",
        "final = pc.is_in(code, pa.array(DAMAGE)).to_numpy() | ",
        "final = ",
        _LEDGER_TESTS,
    ),
    Mutation(
        "an image that nobody saw gets a fallback",
        "reid_ray/caption/ledger/write_ahead_log.py",
        'pc.equal(table["tries"], 0)',
        'pc.equal(table["tries"], -1)',
        _LEDGER_TESTS,
    ),
    # --- what a caption's key covers
    Mutation(
        "a key without the sections of the configuration",
        "reid_ray/caption/ledger/row_keys.py",
        "key_of(name, self.digest, prompts[: k + 1])",
        "key_of(name, prompts[: k + 1])",
        _KEYS,
    ),
    Mutation(
        "a key without the templates tried before",
        "reid_ray/caption/ledger/row_keys.py",
        "key_of(name, self.digest, prompts[: k + 1])",
        "key_of(name, self.digest, k, prompts[k])",
        _KEYS,
    ),
    Mutation(
        "a rewrite's key without the scorer",
        "reid_ray/caption/ledger/row_keys.py",
        "thresholds, scorer_revision)",
        "thresholds)",
        _KEYS,
    ),
    Mutation(
        "a key without the largest picture that is decoded",
        "reid_ray/caption/ledger/row_keys.py",
        "exclude=excluded), max_pixels)",
        "exclude=excluded))",
        _KEYS,
    ),
    Mutation(
        "a captioner's key without the version of the rules",
        "reid_ray/caption/ledger/row_keys.py",
        'digest("captioner", RULES_VERSION, ',
        'digest("captioner", ',
        _KEYS,
    ),
    Mutation(
        "a rewriter's key without the version of the rules",
        "reid_ray/caption/ledger/row_keys.py",
        'digest("rewriter", RULES_VERSION, ',
        'digest("rewriter", ',
        _KEYS,
    ),
    Mutation(
        "a stage's marks without the weights' revision",
        "reid_ray/caption/ledger/row_keys.py",
        'self.stage = digest(self.digest, config.model, revision, config.sampling.model_dump(mode="json"))  # one engine\'s work',
        'self.stage = digest(self.digest, config.model, config.sampling.model_dump(mode="json"))',
        _KEYS,
    ),
    Mutation(
        "a caption's id without the image's content",
        "reid_ray/caption/ledger/content_keys.py",
        'digest("caption", image_id, image_sha256, ',
        'digest("caption", image_id, ',
        _IDS,
    ),
    Mutation(
        "one seed for every request",
        "reid_ray/caption/ledger/content_keys.py",
        'digest("seed", seed, *about)',
        'digest("seed", seed)',
        _IDS,
    ),
    Mutation(
        "a second try draws from the first one's seed",
        "reid_ray/caption/image_captions.py",
        'return f"{draft.ask.caption_id} {draft.tries}" if draft.tries else draft.ask.caption_id',
        "return draft.ask.caption_id",
        (_CAPTION + "test_image_captions.py",),
    ),
    Mutation(
        "every try of a rewrite draws from one seed",
        "reid_ray/caption/rewrites.py",
        'f"{rewrite.id} {rewrite.tries}"',
        "rewrite.id",
        (_CAPTION + "test_rewrites.py",),
    ),
    Mutation(
        "an answer that was cut at the token limit is whole",
        "reid_ray/caption/filters/cleaning.py",
        "    if finished or rest:",
        "    if True:",
        (_CAPTION + "filters/test_cleaning.py",),
    ),
    Mutation(
        "a rewrite that changes an attribute is faithful",
        "reid_ray/caption/rewrites.py",
        "reason = why_unfaithful(score, agreement, self._faithfulness)",
        "reason = None if score >= self._faithfulness.alpha else why_unfaithful(score, agreement, self._faithfulness)",
        (_CAPTION + "test_rewrites.py",),
    ),
    Mutation(
        "a copy passes for a rewrite",
        "reid_ray/caption/rewrites.py",
        'raise BadAnswerError("copied", "the rewrite repeats the original word for word")',
        "pass",
        (_CAPTION + "test_rewrites.py",),
    ),
    Mutation(
        "an image that is given up is shown to the engine",
        "reid_ray/caption/image_captions.py",
        "        if not asked:  # an image that is given up must not touch the engine at all\n            return\n",
        "",
        _PRIVACY,
    ),
    # --- putting the result in order
    Mutation(
        "a bucket counts the first row of the next one",
        "reid_ray/caption/ledger/publish.py",
        "(orders < (bucket + 1) * span)",
        "(orders <= (bucket + 1) * span)",
        (_CAPTION + "ledger/test_publish.py",),
    ),
    Mutation(
        "a failure is published where a text is there",
        "reid_ray/caption/ledger/publish.py",
        '("_failed", "ascending"), ',
        "",
        (_CAPTION + "ledger/test_publish.py",),
    ),
    Mutation(
        "of two texts the later one is published",
        "reid_ray/caption/ledger/publish.py",
        '("made", "ascending")',
        '("made", "descending")',
        (_CAPTION + "ledger/test_publish.py",),
    ),
    Mutation(
        "rows that are missing are not noticed",
        "reid_ray/caption/ledger/publish.py",
        "if table.num_rows != expected:",
        "if table.num_rows > expected:",
        (_CAPTION + "ledger/test_publish.py",),
    ),
)
