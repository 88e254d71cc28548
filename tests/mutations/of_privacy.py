"""What is left behind: texts, pixels and secrets where they do not belong."""

from __future__ import annotations

from mutation import Mutation

_PRIVACY = ("tests/unit/privacy/test_left_behind.py",)
_PAGES = ("tests/unit/pages/test_pages.py",)

MUTATIONS = (
    Mutation("a page runs what a caption holds", "reid_ray/pages/__init__.py", "autoescape=True", "autoescape=False", _PAGES),
    # --- what is left behind
    Mutation(
        "a reason quotes what an engine was told",
        "reid_ray/caption/streaming/engine_loop.py",
        "self._die(reason_of(error))",
        'self._die(f"{type(error).__name__}: {error}")',
        _PRIVACY,
    ),
    Mutation(
        "a reason repeats a text of what is asked",
        "reid_ray/caption/streaming/engine_loop.py",
        "self._explain(without_texts(reason, [*texts, *(text for each in opened for text in each.texts)]))",
        "self._explain(reason)",
        _PRIVACY,
    ),
    Mutation(
        "a failed query is written into the log",
        "reid_ray/serve/operations/search_operations.py",
        '_LOG.error("a question failed: %s", error_location(error))',
        '_LOG.error("a question failed: %s", error)',
        _PRIVACY,
    ),
    Mutation(
        "a service hands its exception to whoever logs it",
        "reid_ray/serve/operations/search_operations.py",
        "raise QueryFailedError(error_location(error)) from None",
        "raise QueryFailedError(error_location(error)) from error",
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
        "reid_ray/scratch.py",
        'sqlite3.connect("")',
        'sqlite3.connect(tempfile.mkdtemp() + "/etilqs_")',
        _PRIVACY,
    ),
    Mutation(
        "what a dead process left in scratch stays",
        "reid_ray/scratch.py",
        "    _remove_stale()\n    home",
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
        "\nopt_out_of_telemetry()\n",
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
        '"config": redacted(self._config.model_dump(mode="json")),',
        '"config": self._config.model_dump(mode="json"),',
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
        "reid_ray/caption/ledger/write_ahead_log.py",
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
    Mutation(
        "a crash leaves its memory on the disk",
        "reid_ray/runtime.py",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, hard))",
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))",
        ("tests/unit/test_runtime.py",),
    ),
    Mutation(
        "spilled pictures lie open to everybody",
        "reid_ray/runtime.py",
        " or str(spilled),",
        ' or "/tmp",',
        ("tests/unit/test_runtime.py",),
    ),
)
