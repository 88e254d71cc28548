"""Images and tables: what could be dropped uncounted, taken for seen, or joined to the wrong person."""

from __future__ import annotations

from mutation import Mutation

_CAPTION = "tests/unit/caption/"
_DATA = "tests/unit/data/"
_PAIRS = ("tests/unit/train/feed/test_pairs.py",)
_SHARDS, _ANNOTATIONS = (_DATA + "formats/generic/test_webdataset.py",), (_DATA + "containers/test_annotations.py",)
_SOURCES = ("tests/unit/data/test_sources.py",)

MUTATIONS = (
    # --- where images come from
    Mutation(
        "a file that changed while it was read is taken for seen",
        "reid_ray/caption/ledger/missing.py",
        "zip(seen, before, after, strict=True) if a == b]",
        "zip(seen, before, after, strict=True)]",
        (_CAPTION + "ledger/test_missing.py",),
    ),
    Mutation(
        "an object that changed after it was listed is taken for seen",
        "reid_ray/caption/ledger/missing.py",
        "after = piece.renewed().places(",
        "after = piece.places(",
        (_CAPTION + "ledger/test_missing.py",),
    ),
    Mutation(
        "a busy store makes failed rows",
        "reid_ray/storage/file_systems.py",
        "trouble = None if isinstance(error, FileNotFoundError) else trouble_of(error)",
        "trouble = None",
        (_DATA + "test_object_store.py",),
    ),
    Mutation(
        "a name that was asked for is taken for the store's answer",
        "reid_ray/storage/store_errors.py",
        """    text = _answer(error)
    if _BUSY""",
        """    text = str(error)
    if _BUSY""",
        (_DATA + "test_object_store.py",),
    ),
    Mutation(
        "a reader out of file descriptors blames the file",
        "reid_ray/storage/regular_files.py",
        "_SYSTEM = frozenset({errno.EMFILE, errno.ENFILE, ",
        "_SYSTEM = frozenset({",
        _SOURCES,
    ),
    Mutation(
        "a file of this second is known for good",
        "reid_ray/data/pieces.py",
        "recent = time.time() - changed / 1e9 < SETTLED_S",
        "recent = False",
        _SOURCES,
    ),
    Mutation(
        "a file is known without its time of change",
        "reid_ray/data/pieces.py",
        '{size} {changed}"',
        '{size}"',
        _SOURCES,
    ),
    Mutation(
        "a table of paths is known by the table's own state",
        "reid_ray/data/table_listing.py",
        "chunk.statistics is not None and chunk.statistics.null_count == 0 for",
        "chunk.statistics is not None for",
        _SOURCES,
    ),
    Mutation(
        "a file far too large is read whole",
        "reid_ray/data/fetch.py",
        "image.store.read_bytes(image.name, limit=max_bytes + 1)",
        "image.store.read_bytes(image.name, limit=max_bytes)",
        _SOURCES,
    ),
    # --- what a data set's files say
    Mutation(
        "two images of one name are mixed up",
        "reid_ray/data/formats/generic/webdataset.py",
        "        if differing:",
        "        if False:",
        _SHARDS,
    ),
    Mutation(
        "the sample at a break comes without its text",
        "reid_ray/data/formats/generic/webdataset.py",
        "if index.broken and key == index.last:",
        "if False:",
        _SHARDS,
    ),
    Mutation(
        "a tar is read to its first end mark",
        "reid_ray/data/containers/tar_index.py",
        "start = self._after_end(at)",
        "start = None",
        _SHARDS,
    ),
    Mutation("half an identity is a whole one", "reid_ray/data/containers/values.py", "if value.is_integer():", "if True:", _ANNOTATIONS),
    Mutation(
        "a number is cut where a piece of the file ends",
        "reid_ray/data/containers/annotations.py",
        """ and self._text[end] not in ".eE")""",
        ")",
        _ANNOTATIONS,
    ),
    Mutation(
        "a link's name stands for the folder's own",
        "reid_ray/storage/file_systems.py",
        "stack.pop() if stack else links.popleft()",
        "links.popleft() if links else stack.pop()",
        (_DATA + "test_special_files.py",),
    ),
    Mutation(
        "entries lost with their page are not counted",
        "reid_ray/data/formats/luperson.py",
        "if problem is not None or named < database.entries:",
        "if False:",
        (_DATA + "containers/test_lmdb_pages.py",),
    ),
    # --- tables for training
    Mutation(
        "captions drop out uncounted",
        "reid_ray/train/feed/join.py",
        "        counts.unused.update(otherwise.filter(gone).to_pylist())\n",
        "        pass\n",
        _PAIRS,
    ),
    Mutation(
        "people of two data sets are one person",
        "reid_ray/train/feed/splits.py",
        "np.where(known_N, dataset, -1)",
        "np.where(known_N, 0, -1)",
        _PAIRS,
    ),
    Mutation(
        "captions lost with their image are not counted",
        "reid_ray/data/ingest/job.py",
        '            self.captions_failed["image_failed"] += len(row.captions)\n',
        "            pass\n",
        (_DATA + "ingest/test_ingest_job.py",),
    ),
    Mutation(
        "a second record of an id is written",
        "reid_ray/data/ingest/job.py",
        "        if digest in seen:",
        "        if digest in ():",
        (_DATA + "ingest/test_ingest_job.py",),
    ),
)
