"""MATLAB files read without SciPy, against SciPy; damage ends in a sentence, where SciPy's reader may end the process."""

import io

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from reid_ray.data.containers.mat5 import read_mat5
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1, max_size=20)


def saved(content, **options):
    buffer = io.BytesIO()
    savemat(buffer, content, **options)
    return buffer.getvalue()


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.integers(0, 100), max_size=40), st.sampled_from(TYPES), st.lists(NAMES, max_size=20), st.booleans())
def test_numbers_and_names_come_as_scipy_wrote_them(numbers, kind, names, packed):
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = [np.array([name]) for name in names]
    content = {"labels": np.array(numbers, dtype=kind).reshape(-1, 1), "filelist": cells, "text": "a.png", "one": 3}
    found = read_mat5(saved(content, do_compression=packed))
    assert found["labels"] == numbers
    assert found["filelist"] == names
    assert (found["text"], found["one"]) == ("a.png", [3])


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"\x89HDF\r\n\x1a\n" + b"x" * 200, b"MATLAB 7.3 MAT-file" + b" " * 200])
def test_what_is_no_such_file_is_said(content):
    with pytest.raises(ValueError, match=r"is no MATLAB file of level 5|version 7.3"):
        read_mat5(content)


GOOD = {
    packed: saved({"labels": np.arange(9.0), "filelist": np.array([["a"], ["bc"]], dtype=object)}, do_compression=packed)
    for packed in (0, 1)
}


@pytest.mark.slow
@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6),
    st.sampled_from([0, 1]),
    st.booleans(),
)
def test_any_damage_is_a_value_error_or_nothing(damage, packed, cut):
    data = bytearray(GOOD[packed])
    for place, junk in damage:
        at = place % len(data)
        data[at : at + len(junk)] = junk
    try:
        read_mat5(bytes(data[: damage[0][0] % len(data)] if cut else data))
    except ValueError:
        return


def test_a_protocol_with_numbers_as_matlab_writes_them_and_one_at_fault_costs_one_row(trees):
    folder = trees.cuhk03("images")
    from scipy.io import loadmat

    file = folder / "cuhk03_new_protocol_config_labeled.mat"
    content = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    content = {key: value.astype(float) if value.dtype != object else value for key, value in content.items()}
    content["labels"][0, 0] = np.nan
    content["train_idx"] = np.append(content["train_idx"], [[99.0], [1.5]], axis=0)
    savemat(file, content)
    rows = list(read_source(SourceConfig(format="cuhk03", path=str(folder), boxes="labeled")))
    skipped = [row for row in rows if not isinstance(row, ImageRecord)]
    assert len(rows) - len(skipped) == 24
    assert [row.reason for row in skipped] == ["bad_annotation", "bad_annotation"]
    assert [row.person_id for row in rows[:2]] == [None, 1]
