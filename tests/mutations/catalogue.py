"""The mutations that the quick tests must kill: places where a mistake would lose, double, age or leak something without a word.

A list, by area. `old` stands exactly once in `file`; `tests` are what pytest is given.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One change of one place, and the tests that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_CAPTION, _DATA, _RETRIEVAL, _TRAIN, _SERVE = (f"tests/unit/{name}/" for name in ("caption", "data", "retrieval", "train", "serve"))
_ATTEMPTS, _LEDGER_TESTS = (_CAPTION + "test_attempts.py",), (_CAPTION + "test_ledger.py", _CAPTION + "test_compaction.py")
_KEYS, _IDS = (_CAPTION + "test_keys.py",), (_CAPTION + "test_identity.py",)
_BATCHES, _SOURCES, _PAIRS = (_DATA + "test_batches.py",), (_DATA + "test_sources.py",), (_DATA + "test_pairs.py",)
_DURABLE, _PROVENANCE, _OUTPUT, _PLACE = (
    (f"tests/unit/storage/test_{name}.py",) for name in ("durability", "provenance", "output", "place")
)
_PRIVACY = ("tests/unit/privacy/test_left_behind.py",)
_INDEX, _GUARD, _CHECKPOINT = (_RETRIEVAL + "test_index.py",), (_SERVE + "test_schema.py",), (_TRAIN + "test_checkpoints.py",)
_BEST, _FINITE, _FOLDERS = (_TRAIN + "test_best.py",), (_TRAIN + "test_finite.py",), (_TRAIN + "test_run_folders.py",)

MUTATIONS = (
    # --- the life of an output
    Mutation(
        "a durable file has its name before its bytes are on the disk",
        "reid_ray/storage/files.py",
        "        write(hidden)\n        sync(hidden)\n",
        "        write(hidden)\n",
        _DURABLE,
    ),
    Mutation(
        "a durable file's name is not on the disk",
        "reid_ray/storage/files.py",
        "        hidden.unlink(missing_ok=True)\n    sync(path.parent)\n",
        "        hidden.unlink(missing_ok=True)\n",
        _DURABLE,
    ),
    Mutation(
        "a result appears before its files are on the disk",
        "reid_ray/storage/place.py",
        "        sync_tree(self.folder, (name for name, _ in files_below(self.folder)))\n",
        "",
        _DURABLE,
    ),
    Mutation(
        "provenance looks through one parent only",
        "reid_ray/storage/provenance.py",
        "for folder in (here, *here.parents):",
        "for folder in (here, *here.parents[:1]):",
        _PROVENANCE,
    ),
    Mutation(
        "weights are told apart by their size",
        "reid_ray/storage/provenance.py",
        "(file.relative_to(path).as_posix(), _sha256(file)) for",
        "(file.relative_to(path).as_posix(), file.stat().st_size) for",
        _PROVENANCE,
    ),
    Mutation(
        "a result is kept whatever it was made from",
        "reid_ray/storage/output.py",
        'manifest.get("provenance") != self.provenance or ',
        "",
        _PROVENANCE,
    ),
    Mutation(
        "inputs are looked at when the work is done",
        "reid_ray/storage/output.py",
        "            self.provenance  # noqa: B018  (what lies there now, before any of it is read)\n",
        "",
        _PROVENANCE,
    ),
    Mutation(
        "a result that lacks a file is kept",
        "reid_ray/storage/output.py",
        'return manifest if all(kind == "foreign" for kind, _ in differences(self.path)) else None',
        "return manifest",
        _OUTPUT,
    ),
    Mutation(
        "the output's lock is not taken",
        "reid_ray/storage/place.py",
        "        self._lock.acquire()\n",
        "",
        _PLACE,
    ),
    Mutation(
        "what appeared while the job ran is replaced",
        "reid_ray/storage/place.py",
        "            self.check(files=True)\n            self._appear()\n",
        "            self._appear()\n",
        _PLACE,
    ),
    Mutation(
        "a neighbour's hidden folders are cleared away",
        "reid_ray/storage/place.py",
        'match["name"] == self.path.name',
        'match["name"].startswith(self.path.name)',
        _PLACE,
    ),
    Mutation(
        "a file that was edited is removed with the old result",
        "reid_ray/storage/listing.py",
        "if file.lstat().st_size == size:",
        "if file.lstat():",
        _PLACE,
    ),
    Mutation(
        "the older result is not restored",
        "reid_ray/storage/place.py",
        'if folder.suffix == ".old" and not os.path.lexists(self.path)',
        'if folder.suffix == ".older" and not os.path.lexists(self.path)',
        ("tests/unit/storage/test_kills_at_every_call.py",),
    ),
    Mutation(
        "a process of the same number is the dead owner",
        "reid_ray/storage/lock.py",
        'owner["boot"] != _boot() or owner["started"] != _started(owner["pid"])',
        '_started(owner["pid"]) is None',
        ("tests/unit/storage/test_lock.py",),
    ),
    # --- what died, and who is to blame
    Mutation("two deaths at the start are enough", "reid_ray/caption/attempts.py", "_STARTS = 8", "_STARTS = 2", _ATTEMPTS),
    Mutation("a start that dies is tried for ever", "reid_ray/caption/attempts.py", "_STARTS = 8", "_STARTS = 800", _ATTEMPTS),
    Mutation(
        "a streak is never forgotten",
        "reid_ray/caption/attempts.py",
        "        mark.clear()\n        self._streak.unlink(missing_ok=True)\n",
        "        mark.clear()\n",
        _ATTEMPTS,
    ),
    Mutation("one death is enough to give a row up", "reid_ray/caption/attempts.py", "_DEATHS_ALONE = 2", "_DEATHS_ALONE = 1", _ATTEMPTS),
    Mutation(
        "a batch that was committed is done again",
        "reid_ray/caption/attempts.py",
        "if earlier is not None:",
        "if earlier is None and earlier is not None:",
        _ATTEMPTS,
    ),
    Mutation(
        "an exception leaves no reason",
        "reid_ray/caption/attempts.py",
        "                mark.explain(without_texts(reason_of(error), _texts(rows)))\n",
        "",
        _ATTEMPTS,
    ),
    # --- the ledger
    Mutation(
        "compaction merges files that somebody reads", "reid_ray/caption/ledger.py", "if file not in keep]", "if True]", _LEDGER_TESTS
    ),
    Mutation("compaction merges young files", "reid_ray/caption/ledger.py", " or stat.st_mtime > youngest:", ":", _LEDGER_TESTS),
    Mutation(
        "compaction writes nothing before it removes",
        "reid_ray/caption/ledger.py",
        "    table = pa.concat_tables([pq.read_table(file, schema=schema) for file in files])\n",
        "    table = pa.concat_tables([pq.read_table(file, schema=schema) for file in files[:-1]])\n",
        _LEDGER_TESTS,
    ),
    Mutation(
        "a dead driver's actor writes down places",
        "reid_ray/caption/ledger.py",
        '        """Write down which content was found where (SEEN rows)."""\n        self._check_owned()\n',
        '        """Write down which content was found where (SEEN rows)."""\n',
        _LEDGER_TESTS,
    ),
    Mutation(
        "a failure that no retry mends is retried",
        "reid_ray/caption/ledger.py",
        "final = pc.is_in(code, pa.array(DAMAGE)).to_numpy() | ",
        "final = ",
        _LEDGER_TESTS,
    ),
    Mutation(
        "an image that nobody saw gets a substitute",
        "reid_ray/caption/ledger.py",
        'pc.equal(table["tries"], 0)',
        'pc.equal(table["tries"], -1)',
        _LEDGER_TESTS,
    ),
    # --- what a caption's key covers
    Mutation(
        "a key without the sections of the configuration",
        "reid_ray/caption/wanted.py",
        "key_of(name, self.digest, prompts[: k + 1])",
        "key_of(name, prompts[: k + 1])",
        _KEYS,
    ),
    Mutation(
        "a key without the templates tried before",
        "reid_ray/caption/wanted.py",
        "key_of(name, self.digest, prompts[: k + 1])",
        "key_of(name, self.digest, k, prompts[k])",
        _KEYS,
    ),
    Mutation(
        "a rewrite's key without the scorer",
        "reid_ray/caption/wanted.py",
        'faithfulness.model_dump(mode="json"), scorer_revision)',
        'faithfulness.model_dump(mode="json"))',
        _KEYS,
    ),
    Mutation(
        "a key without the largest picture that is decoded",
        "reid_ray/caption/wanted.py",
        "exclude=harmless), max_pixels)",
        "exclude=harmless))",
        _KEYS,
    ),
    Mutation(
        "a captioner's key without the version of the rules",
        "reid_ray/caption/wanted.py",
        'digest("captioner", RULES, ',
        'digest("captioner", ',
        _KEYS,
    ),
    Mutation(
        "a rewriter's key without the version of the rules",
        "reid_ray/caption/wanted.py",
        'digest("rewriter", RULES, ',
        'digest("rewriter", ',
        _KEYS,
    ),
    Mutation(
        "a stage's marks without the weights' revision",
        "reid_ray/caption/wanted.py",
        'self.stage = digest(self.digest, config.model, revision, config.sampling.model_dump(mode="json"))  # one engine\'s work',
        'self.stage = digest(self.digest, config.model, config.sampling.model_dump(mode="json"))',
        _KEYS,
    ),
    Mutation(
        "a caption's id without the image's content",
        "reid_ray/caption/identity.py",
        'digest("caption", image_id, image_sha256, ',
        'digest("caption", image_id, ',
        _IDS,
    ),
    Mutation(
        "one seed for every request",
        "reid_ray/caption/identity.py",
        'digest("seed", seed, *about)',
        'digest("seed", seed)',
        _IDS,
    ),
    Mutation(
        "a second try draws from the first one's seed",
        "reid_ray/caption/captioning.py",
        'return f"{self._id(draft)} {draft.tries}" if draft.tries else self._id(draft)',
        "return self._id(draft)",
        (_CAPTION + "test_captioning.py",),
    ),
    Mutation(
        "every try of a rewrite draws from one seed",
        "reid_ray/caption/rewriting.py",
        '[f"{rewrite.id} {rewrite.tries}" for rewrite in rewrites]',
        "[rewrite.id for rewrite in rewrites]",
        (_CAPTION + "test_rewriting.py",),
    ),
    # --- putting the result in order
    Mutation(
        "a bucket counts the first row of the next one",
        "reid_ray/caption/publishing.py",
        "(orders < (bucket + 1) * span)",
        "(orders <= (bucket + 1) * span)",
        (_CAPTION + "test_publishing.py",),
    ),
    Mutation(
        "a failure is published where a text is there",
        "reid_ray/caption/publishing.py",
        '("_failed", "ascending"), ',
        "",
        (_CAPTION + "test_publishing.py",),
    ),
    Mutation(
        "of two texts the later one is published",
        "reid_ray/caption/publishing.py",
        '("made", "ascending")',
        '("made", "descending")',
        (_CAPTION + "test_publishing.py",),
    ),
    Mutation(
        "rows that are missing are not noticed",
        "reid_ray/caption/publishing.py",
        "if table.num_rows != expected:",
        "if table.num_rows > expected:",
        (_CAPTION + "test_publishing.py",),
    ),
    # --- where images come from
    Mutation(
        "a file that changed while it was read is taken for seen",
        "reid_ray/caption/missing.py",
        "zip(seen, before, after, strict=True) if a == b]",
        "zip(seen, before, after, strict=True)]",
        (_CAPTION + "test_places.py",),
    ),
    Mutation(
        "a reader out of file descriptors blames the file",
        "reid_ray/data/files.py",
        "_SYSTEM = frozenset({errno.EMFILE, errno.ENFILE, ",
        "_SYSTEM = frozenset({",
        _SOURCES,
    ),
    Mutation(
        "a file of this second is known for good",
        "reid_ray/data/sources.py",
        "recent = time.time() - stat.st_mtime < SETTLED_S",
        "recent = False",
        _SOURCES,
    ),
    Mutation(
        "a file is known without its time of change",
        "reid_ray/data/sources.py",
        "{stat.st_size} {stat.st_mtime_ns}",
        "{stat.st_size}",
        _SOURCES,
    ),
    Mutation(
        "a table of paths is known by the table's own state",
        "reid_ray/data/sources.py",
        "chunk.statistics is not None and chunk.statistics.null_count == 0 for",
        "chunk.statistics is not None for",
        _SOURCES,
    ),
    Mutation(
        "a file far too large is read whole",
        "reid_ray/data/sources.py",
        "None if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES else file.read()",
        "file.read()",
        _SOURCES,
    ),
    # --- tables for training
    Mutation("captions drop out uncounted", "reid_ray/data/pairs.py", "    counts.failed.update(reasons)\n", "", _PAIRS),
    Mutation(
        "people of two data sets are one person",
        "reid_ray/data/pairs.py",
        "np.where(known, dataset, -1)",
        "np.where(known, 0, -1)",
        _PAIRS,
    ),
    Mutation(
        "captions lost with their image are not counted",
        "reid_ray/data/ingest.py",
        '            self.captions_failed["image_failed"] += len(row.captions)\n',
        "            pass\n",
        (_DATA + "test_ingest.py",),
    ),
    Mutation(
        "a second record of an id is written",
        "reid_ray/data/ingest.py",
        "        if digest in seen:",
        "        if digest in ():",
        (_DATA + "test_ingest.py",),
    ),
    # --- which samples a step sees
    Mutation(
        "every epoch shows the same batches",
        "reid_ray/data/batches.py",
        "default_rng([self._seed, _ORDER, epoch]).permutation(self._samples)",
        "default_rng([self._seed, _ORDER]).permutation(self._samples)",
        _BATCHES,
    ),
    Mutation(
        "every step draws the same pictures of a person",
        "reid_ray/data/batches.py",
        "[self._seed, _MEMBERS, step]",
        "[self._seed, _MEMBERS]",
        _BATCHES,
    ),
    Mutation(
        "every sample of a step is augmented alike",
        "reid_ray/data/batches.py",
        "[seed, _AUGMENT, step, place]",
        "[seed, _AUGMENT, step]",
        _BATCHES,
    ),
    Mutation(
        "the seed of a run does not count",
        "reid_ray/data/batches.py",
        "default_rng([self._seed, _ORDER, epoch]).permutation(self._samples)",
        "default_rng([_ORDER, epoch]).permutation(self._samples)",
        _BATCHES,
    ),
    Mutation(
        "workers overlap by a sample",
        "reid_ray/data/batches.py",
        "slice(rank * each, (rank + 1) * each)",
        "slice(max(0, rank * each - 1), (rank + 1) * each - (rank > 0))",
        _BATCHES,
    ),
    # --- checkpoints and the best weights
    Mutation(
        "a cut file of a checkpoint is taken for whole",
        "reid_ray/train/checkpoint.py",
        "        if there != size:",
        "        if there is None:",
        _CHECKPOINT,
    ),
    Mutation(
        "a checkpoint without its manifest counts",
        "reid_ray/train/checkpoints.py",
        "zip(named, manifests, strict=True) if info.is_file)",
        "zip(named, manifests, strict=True))",
        _CHECKPOINT,
    ),
    Mutation(
        "the newest checkpoint is deleted",
        "reid_ray/train/checkpoints.py",
        "self.steps()[: -self._keep]",
        "self.steps()[self._keep :]",
        _CHECKPOINT,
    ),
    Mutation(
        "the best weights are not recovered",
        "reid_ray/train/best.py",
        '    best, before = folder / BEST, _beside(folder, "old")\n    wanted',
        '    return progress\n    best, before = folder / BEST, _beside(folder, "old")\n    wanted',
        _BEST,
    ),
    Mutation(
        "the weights that a checkpoint speaks of do not come back",
        "reid_ray/train/best.py",
        "            before.rename(best)\n    for end",
        "            pass\n    for end",
        _BEST,
    ),
    Mutation("weights of an attempt before stay", "reid_ray/train/best.py", "        _drop(best)\n        if", "        if", _BEST),
    Mutation(
        "better weights push out those of the checkpoint",
        "reid_ray/train/best.py",
        "    if best.is_dir() and before.is_dir():",
        "    if best.is_dir() and before.is_dir() and not shutil.rmtree(before):",
        _BEST,
    ),
    Mutation("the worker is left out of a seed", "reid_ray/train/checkpoint.py", "10_007 + rank)", "10_007)", _BEST),
    # --- numbers that are none, and one decision for all workers
    Mutation(
        "each worker chooses weights by its own score",
        "reid_ray/train/loop.py",
        "scores = agreed(validate())",
        "scores = validate()",
        _FINITE,
    ),
    Mutation("NaN is a better score", "reid_ray/train/loop.py", "    if not math.isfinite(score) or (", "    if (", _FINITE),
    Mutation(
        "a loss that is no number is trained on",
        "reid_ray/train/loop.py",
        "    if found is None:\n",
        "    if found is None or found:\n",
        _FINITE,
    ),
    Mutation("one worker's flag is not heard", "reid_ray/train/agreement.py", "op=dist.ReduceOp.MAX", "op=dist.ReduceOp.MIN", _FINITE),
    Mutation(
        "a picture that could not be encoded is everybody's best hit",
        "reid_ray/train/validation.py",
        "    lost_Q = ~torch.isfinite(score_QG).all(dim=1)",
        "    lost_Q = torch.zeros(len(score_QG), dtype=torch.bool)",
        _FINITE,
    ),
    Mutation(
        "NaN is written as a metric", "reid_ray/train/finite.py", " if value is not None and math.isfinite(value) else None", "", _FINITE
    ),
    # --- runs beside a run
    Mutation(
        "another input is the same run",
        "reid_ray/train/run_folders.py",
        "fingerprint({'config': self.config, 'input': self.inputs})",
        "fingerprint({'config': self.config})",
        _FOLDERS,
    ),
    Mutation(
        "a neighbour's run is taken for one's own",
        "reid_ray/train/run_folders.py",
        " and pattern.fullmatch(folder.name)",
        "",
        _FOLDERS,
    ),
    # --- the gallery
    Mutation(
        "an index is trained on the gallery's front",
        "reid_ray/retrieval/index.py",
        "    drawn = np.random.default_rng(config.seed).choice(len(vector_ND), config.train_vectors, replace=False)\n",
        "    drawn = np.arange(config.train_vectors)\n",
        _INDEX,
    ),
    Mutation(
        "equal scores come in no order",
        "reid_ray/retrieval/index.py",
        "order = np.lexsort((row_F, -score_F))[:k]",
        "order = np.lexsort((-row_F, -score_F))[:k]",
        _INDEX,
    ),
    Mutation(
        "a vector of NaN is indexed",
        "reid_ray/retrieval/index.py",
        "~(np.abs(norm_N - 1) <= _NORM_TOLERANCE)",
        "np.abs(norm_N - 1) > _NORM_TOLERANCE",
        _INDEX,
    ),
    Mutation(
        "a camera filter lets other cameras through",
        "reid_ray/retrieval/index.py",
        'options["sel"] = faiss.IDSelectorBitmap(np.packbits(passing_N, bitorder="little"))',
        'options["sel"] = faiss.IDSelectorBitmap(np.packbits(passing_N))',
        _INDEX,
    ),
    Mutation(
        "an index of another encoder is searched",
        "reid_ray/retrieval/index.py",
        'if facts["encoder_fingerprint"] != fingerprint:',
        'if facts["encoder_fingerprint"] is fingerprint and False:',
        _INDEX,
    ),
    Mutation(
        "a thumbnail of another row group is shown",
        "reid_ray/retrieval/thumbnails.py",
        "divmod(row, ROWS_PER_GROUP)",
        "divmod(row + 1, ROWS_PER_GROUP)",
        _INDEX,
    ),
    Mutation(
        "a vector of NaN passes for a good row",
        "reid_ray/retrieval/embed.py",
        "if not np.isfinite(vector).all():",
        "if np.isinf(vector).all():",
        (_RETRIEVAL + "test_embed.py",),
    ),
    Mutation(
        "unknown people match each other",
        "reid_ray/retrieval/metrics.py",
        " & (person_B != UNKNOWN)",
        "",
        (_RETRIEVAL + "test_metrics.py", _RETRIEVAL + "test_ranking.py"),
    ),
    Mutation(
        "runs of other queries are compared",
        "reid_ray/retrieval/comparison.py",
        'for column in ("person_id", "relevant", "candidates"):',
        'for column in ("person_id",):',
        (_RETRIEVAL + "test_evaluation.py",),
    ),
    # --- the service
    Mutation(
        "a token's first bytes are enough",
        "reid_ray/serve/guard.py",
        "hmac.compare_digest(digest_of(given), self._token_digest)",
        "hmac.compare_digest(digest_of(given)[:0], self._token_digest[:0])",
        _GUARD,
    ),
    Mutation(
        "a path that begins like health needs no token",
        "reid_ray/serve/guard.py",
        "if path not in OPEN_PATHS:",
        "if not path.startswith(tuple(OPEN_PATHS)):",
        _GUARD,
    ),
    Mutation(
        "another host's name for this machine is answered",
        "reid_ray/serve/guard.py",
        "return name is not None and is_loopback(name)",
        "return name is not None",
        _GUARD,
    ),
    Mutation(
        "a body without a length is read whole",
        "reid_ray/serve/guard.py",
        "        if seen > limit:",
        "        if seen > 1000 * limit:",
        _GUARD,
    ),
    Mutation(
        "a short token is taken",
        "reid_ray/config/serve.py",
        "if len(token) < MIN_TOKEN_CHARS:",
        "if len(token) < 1:",
        _GUARD,
    ),
    # --- configuration
    Mutation(
        "a repeated key of a file keeps the last value",
        "reid_ray/config/written.py",
        "if key.value in seen:",
        "if key.value in ():",
        ("tests/unit/test_config.py",),
    ),
    # --- what is left behind
    Mutation(
        "a reason quotes what an engine was told",
        "reid_ray/caption/attempts.py",
        "without_texts(reason_of(error), _texts(rows))",
        'f"{type(error).__name__}: {error}"',
        _PRIVACY,
    ),
    Mutation(
        "a reason repeats a text of its batch",
        "reid_ray/caption/attempts.py",
        "without_texts(reason_of(error), _texts(rows))",
        "reason_of(error)",
        _PRIVACY,
    ),
    Mutation(
        "a failed query is written into the log",
        "reid_ray/serve/app.py",
        '_LOG.error("a query failed: %s", where(error))',
        '_LOG.error("a query failed: %s", error)',
        _PRIVACY,
    ),
    Mutation(
        "a replica hands its exception to the cluster's log",
        "reid_ray/serve/deployments.py",
        "raise QueryFailedError(where(error)) from None",
        "raise QueryFailedError(where(error)) from error",
        _PRIVACY,
    ),
    Mutation(
        "processes inherit the service's token",
        "reid_ray/serve/run.py",
        "value = os.environ.pop(variable, None) if variable",
        "value = os.environ.get(variable, None) if variable",
        _PRIVACY,
    ),
    Mutation(
        "a thumbnail keeps the comment of its file",
        "reid_ray/data/images.py",
        ', comment=b"")',
        ")",
        _PRIVACY,
    ),
    Mutation(
        "waiting captions lie in a file of the folder",
        "reid_ray/data/formats/caption_store.py",
        'sqlite3.connect("")',
        'sqlite3.connect(f"/tmp/etilqs_{id(self)}")',
        _PRIVACY,
    ),
    Mutation(
        "what a dead process left in scratch stays",
        "reid_ray/scratch.py",
        "    _remove_dead()\n    home",
        "    home",
        _PRIVACY,
    ),
    Mutation(
        "scratch of the living is removed",
        "reid_ray/scratch.py",
        "            fcntl.flock(lock, fcntl.LOCK_EX)\n",
        "",
        _PRIVACY,
    ),
    Mutation(
        "a secret in a command is written down",
        "reid_ray/redaction.py",
        'return _USER.sub(rf"\\1{HIDDEN}@", _SECRET_VALUE.sub(rf"\\1{HIDDEN}", text))',
        'return _USER.sub(rf"\\1{HIDDEN}@", text)',
        ("tests/unit/privacy/test_redaction.py",),
    ),
    Mutation(
        "usage is reported",
        "reid_ray/__init__.py",
        "\n\nreport_nothing()\n",
        "\n",
        ("tests/unit/privacy/test_connections.py",),
    ),
    Mutation(
        "a text whose end was cut off stays in a reason",
        "reid_ray/errors.py",
        "(?:(?P=quote)(?!\\w)|$)",
        "(?:(?P=quote)(?!\\w))",
        ("tests/unit/test_errors.py",),
    ),
    Mutation(
        "pixels whose end was cut off stay in a reason",
        "reid_ray/errors.py",
        "    said = _OPEN.sub(_CUT, said)\n",
        "",
        ("tests/unit/test_errors.py",),
    ),
    Mutation(
        "a manifest keeps a secret of the configuration",
        "reid_ray/storage/output.py",
        'redacted(self._config.model_dump(mode="json"))',
        'self._config.model_dump(mode="json")',
        _PRIVACY,
    ),
    Mutation(
        "a manifest keeps a secret of the command",
        "reid_ray/storage/environment.py",
        'without_secrets(" ".join(sys.argv))',
        '" ".join(sys.argv)',
        _PRIVACY,
    ),
    Mutation(
        "everybody may read the ledger",
        "reid_ray/caption/ledger.py",
        "folder.mkdir(mode=0o700, ",
        "folder.mkdir(",
        _PRIVACY,
    ),
    Mutation(
        "everybody may read the pictures that are trained on",
        "reid_ray/train/run.py",
        "folder.mkdir(mode=0o700, ",
        "folder.mkdir(",
        _PRIVACY,
    ),
)
