"""What the system refuses becomes one sentence, whoever noticed; a fault of the program does not. The errors are the system's own."""

import errno
import os
import resource
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem
from ray.exceptions import RayError, RayTaskError, UserCodeException
from ray.train import ControllerError, WorkerGroupError
from safetensors.numpy import save_file

from reid_ray.errors import DataError
from reid_ray.system_errors import sentence_of

TABLE = pa.table({"a": list(range(50_000))})


def _raised(act):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the library raises
        act()
    return caught.value


def _write(path):
    path.write_bytes(b"x" * 100_000)


def _loop(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a" / "c"


def _file_as_parent(folder):
    (folder / "file").touch()
    return folder / "file" / "out"


PLACES = {
    "a part of the path is a file": _file_as_parent,
    "name is longer": lambda folder: folder / ("x" * 300),
    "round in a circle": _loop,
}


WRITERS = {"python": _write, "pyarrow": lambda path: pq.write_table(TABLE, path)}


@pytest.mark.parametrize("words", PLACES)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_place_that_cannot_be_written_to_is_named_with_what_is_wrong(words, write, tmp_path):
    path = PLACES[words](tmp_path)
    sentence = sentence_of(_raised(lambda: write(path)), place="output.path /o")
    assert words in sentence
    assert sentence.startswith(str(path))
    assert "\n" not in sentence


def _to_full_device(libs):
    with open("/dev/full", "wb", buffering=0) as device:
        libs(device)


@pytest.mark.parametrize(
    "write",
    [
        lambda f: f.write(b"x"),
        lambda f: pq.write_table(TABLE, f),
        lambda f: np.save(f, np.zeros(99_999)),
        lambda f: np.savez(f, a=np.zeros(99_999)),
    ],
    ids=["python", "pyarrow", "numpy", "zip"],
)
def test_a_full_disk_is_one_sentence_with_the_jobs_output_where_no_file_is_named(write):
    sentence = sentence_of(_raised(lambda: _to_full_device(write)), place="output.path /o")
    assert sentence.startswith("output.path /o: the disk is full; ")


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "Error in void faiss::write_index(): Error: 'ret == (size * 4)' failed: write error in /o: 7 != 8 (No space left on device)",
        "database or disk is full",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "mdb_put: No space left on device",
    ],
)
def test_libraries_that_say_it_in_words_are_understood(text):
    assert sentence_of(RuntimeError(text), place="output.path /o").startswith("output.path /o: the disk is full")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_limit_on_the_size_of_files_is_one_sentence(write, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        error = _raised(lambda: write(tmp_path / "f"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit -f" in sentence_of(error)


def test_a_limit_on_open_files_is_one_sentence():
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE), len(os.listdir("/proc/self/fd")) + 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    held = []
    try:
        # The limit is of their numbers: those that were open before may all have higher ones.
        error = _raised(lambda: [held.append(open(os.devnull)) for _ in range(most + 1)])  # noqa: SIM115 - held on purpose
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for file in held:
            file.close()
    assert "ulimit -n" in sentence_of(error)


def test_safetensors_path_is_named(tmp_path):
    sentence = sentence_of(_raised(lambda: save_file({"a": np.zeros(9)}, _file_as_parent(tmp_path))))
    assert sentence.startswith(str(tmp_path / "file"))
    assert "is a file, not a folder" in sentence


@pytest.mark.parametrize("content", [b"", b"PAR1garbage", b"x" * 1000])
def test_a_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "part.parquet"
    path.write_bytes(content)
    sentence = sentence_of(_raised(lambda: pq.read_table(path)))
    assert "part.parquet" in sentence or not content
    assert "write it again" in sentence


def test_what_a_library_wraps_is_found_by_its_causes():
    refused = PermissionError(errno.EACCES, "Permission denied", "/data/x")
    wrapped, told = RuntimeError("task failed"), KeyError("k")
    wrapped.__cause__, told.__cause__ = refused, DataError("/t: cannot be read; write it again")
    for error in (wrapped, ExceptionGroup("two", [ValueError("a"), refused])):
        assert sentence_of(error).startswith("/data/x: permission denied; ")
    assert sentence_of(told) == "/t: cannot be read; write it again"


def _as_ray_hands_it_on(error, *, in_ray_data):
    """A task's error as the driver gets it: the object is pickled, so that its causes are left as text only."""
    try:
        try:
            raise error
        except Exception as first:
            if in_ray_data:
                raise UserCodeException("UDF failed to process a data block.") from first
            raise
    except Exception as last:  # noqa: BLE001 - any error of a task
        task = RayTaskError("f", traceback.format_exc(), last, proctitle="ray::f", pid=1, ip="127.0.0.1")
        return RayError.from_bytes(task.to_bytes()).as_instanceof_cause()


@pytest.mark.parametrize("in_ray_data", [False, True])
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "output.path /o: the disk is full; "),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: permission denied; "),
        (DataError("/data/t: cannot be read; write it again"), "/data/t: cannot be read; write it again"),
        (ValueError("bug"), None),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x"), None),
    ],
)
def test_an_error_of_a_ray_task_is_told_as_if_it_were_raised_here(error, sentence, in_ray_data):
    told = sentence_of(_as_ray_hands_it_on(error, in_ray_data=in_ray_data), place="output.path /o")
    assert told is None if sentence is None else told.startswith(sentence)
    assert "\n" not in (told or "")


def test_the_failures_of_ray_trains_workers_are_looked_into():
    full = OSError(errno.ENOSPC, "No space left on device", "/ckpt/a")
    assert sentence_of(WorkerGroupError("2 workers failed", {0: ValueError("x"), 1: full})).startswith("/ckpt/a: the disk is full; ")
    assert sentence_of(ControllerError(full)).startswith("/ckpt/a: the disk is full; ")
    assert sentence_of(WorkerGroupError("1 worker failed", {0: ValueError("bug")})) is None


def test_a_full_disk_counts_while_cleaning_up_but_another_error_does_not():
    def fail_after(first):
        try:
            raise first
        except OSError:
            raise ValueError("I/O operation on closed file")  # noqa: B904 - as a library's __exit__ does

    assert "disk is full" in sentence_of(_raised(lambda: fail_after(OSError(errno.ENOSPC, "No space left on device"))))
    assert sentence_of(_raised(lambda: fail_after(OSError(errno.EACCES, "Permission denied")))) is None


@pytest.mark.parametrize(
    "fault",
    [
        *(ValueError("x"), KeyError("No such file"), FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), OSError("odd")),
        *(AssertionError("[Errno 28] No space left on device"), RuntimeError("shape [28] errno"), pa.ArrowInvalid("column a is int64")),
    ],
)
def test_a_fault_of_the_program_is_no_sentence(fault):
    assert sentence_of(fault) is None


def test_a_file_of_the_user_that_is_gone_is_one_sentence_and_any_other_is_a_fault(tmp_path):
    for read in (lambda path: path.read_bytes(), lambda path: pq.read_table(str(path), filesystem=LocalFileSystem())):
        error = _raised(lambda read=read: read(tmp_path / "table" / "part-0.parquet"))
        assert sentence_of(error, user_paths=[str(tmp_path / "table")]).startswith(
            f"{tmp_path}/table/part-0.parquet: is not there any more; "
        )
        assert sentence_of(error, user_paths=[str(tmp_path / "other")]) is None
