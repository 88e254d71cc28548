"""Formats: what a newer version wrote taken for today's, what is somebody else's taken for a job's own, a layout changed in silence."""

from __future__ import annotations

from mutation import Mutation

_FILE = "tests/unit/migrate/test_migrate_job.py"
_NEWER = (f"{_FILE}::test_what_a_newer_version_wrote_is_refused_by_its_file_with_exit_code_2",)
_STRANGERS = (f"{_FILE}::test_somebody_elses_file_in_an_old_output_is_named_and_nothing_is_changed",)
_TORN = (f"{_FILE}::test_a_checkpoint_that_lacks_a_file_is_not_written_down_as_whole",)
_WHOLE = (f"{_FILE}::test_a_migrated_checkpoint_is_whole",)
_MODES = (f"{_FILE}::test_what_only_its_user_may_read_stays_so",)
_VERSIONS = ("tests/unit/test_versions.py",)


def _unread(what: str, file: str, line: str) -> Mutation:
    return Mutation(f"the format of {what} is not looked at", file, line, "", _NEWER)


MUTATIONS = (
    Mutation("a newer format is read", "reid_ray/versions.py", "    if found > known.current:\n", "    if False:\n", _VERSIONS),
    Mutation(
        "a format that is read no more is read", "reid_ray/versions.py", "    if found < known.oldest:\n", "    if False:\n", _VERSIONS
    ),
    _unread("a manifest", "reid_ray/storage/provenance.py", "    check_manifest(manifest, origin=path)\n"),
    _unread("a table", "reid_ray/storage/tables.py", "        check_table(parquet.schema_arrow.metadata, origin=file)\n"),
    _unread("a result", "reid_ray/retrieval/evaluate/job.py", '    check_json("evaluation", result, origin=Path(folder) / RESULT)\n'),
    _unread("prepared data", "reid_ray/train/feed/prepared.py", '    check_json("prepared", prepared, origin=folder / FACTS)\n'),
    _unread("a mark", "reid_ray/storage/listing.py", '    check_json("mark", facts, origin=folder / MARK)\n'),
    _unread("a run", "reid_ray/train/checkpoint/run_folders.py", '    check_json("run", values, origin=folder / _RECORD)\n'),
    Mutation(
        "the format of a checkpoint is not looked at before workers start",
        "reid_ray/train/checkpoint/checkpoint_place.py",
        "            check_manifest(json.loads(stream.read()), origin=manifest)\n",
        "            json.loads(stream.read())\n",
        _NEWER,
    ),
    Mutation(
        "a schema gets a column without a new number",
        "reid_ray/records.py",
        '        pa.field("attributes", pa.string()),',
        '        pa.field("gait", pa.string()),\n        pa.field("attributes", pa.string()),',
        _VERSIONS,
    ),
    Mutation(
        "a migration marks everybody's files as the job's own",
        "reid_ray/migrate/job.py",
        "            _refuse_strangers(folder, job)\n",
        "",
        _STRANGERS,
    ),
    Mutation(
        "a checkpoint that lacks a file is written down as whole",
        "reid_ray/migrate/job.py",
        "        _refuse_torn(folder, found)\n",
        "",
        _TORN,
    ),
    Mutation(
        "a migrated checkpoint keeps the sizes of before",
        "reid_ray/migrate/file_upgrades.py",
        '        if versioned.kind == "checkpoint":\n',
        "        if False:\n",
        _WHOLE,
    ),
    Mutation(
        "a migrated output may be read by everybody",
        "reid_ray/migrate/job.py",
        "        shutil.copymode(parent, there)  # what was its user's alone stays so\n",
        "",
        _MODES,
    ),
)
