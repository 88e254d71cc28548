"""The tiers of the tests: which tests `make test-fast`, `make test` and `make soak` run, asked of pytest in the smallest projects."""

import json
import os
import subprocess
import sys

import numba
import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow  # a pytest run each
MARK = "pytest.mark." + "soak('kills')"  # in two, for a search of marks is not to find it here


@pytest.fixture
def suite(pytester, root, monkeypatch):
    """A project with this one's conftest.py, and a file of each sort."""
    monkeypatch.setenv("TEST_EXAMPLES_TIMES", "1")  # which conftest.py sets, in this process
    pytester.mkdir("tests")
    (pytester.path / "tests" / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    for name, text in {
        "unit/test_a.py": f"import pytest\ndef test_quick(): pass\n@{MARK}\ndef test_long(): pass\n",
        "unit/test_b.py": "from hypothesis import given, strategies\ndef test_drawn():\n @given(strategies.none())\n def f(n): pass\n f()",
        "soak/test_wheel.py": "def test_installed(): pass\n",
    }.items():
        (pytester.path / "tests" / name).parent.mkdir(exist_ok=True)
        (pytester.path / "tests" / name).write_text(text)
    return pytester


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"test_quick", "test_drawn"}),
        (["--soak", "all"], {"test_long", "test_installed"}),
        (["--soak", "kills"], {"test_long"}),
        (["--soak", "wheel"], {"test_installed"}),
        (["--soak", "properties"], {"test_drawn"}),
    ],
    ids=["without a word", "all of soak", "a part by its mark", "a part by its file", "what draws its inputs"],
)
def test_soak_tests_run_part_by_part_where_they_are_asked_for_and_nowhere_else(suite, options, expected):
    result = suite.inline_run(*options, "--import-mode=importlib")
    assert {report.nodeid.split("::")[1] for report in result.listoutcomes()[0]} == expected


def test_a_quick_test_that_starts_ray_fails_and_a_slow_one_may(suite):
    started = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '', 'gcs_server'], check=True)\n"
    text = f"import pytest\ndef test_quick():\n {started!r}\n exec({started!r})\n@pytest.mark.slow\ndef test_slow():\n exec({started!r})\n"
    (suite.path / "tests" / "unit" / "test_a.py").write_text(text)
    suite.inline_run("tests/unit/test_a.py", "--import-mode=importlib").assertoutcome(passed=1, failed=1)


def quick(suite, text):
    """What the quick tier makes of one more file of tests."""
    (suite.path / "tests" / "unit" / "test_more.py").write_text(text)
    return suite.inline_run("tests/unit/test_more.py", "tests/unit", "-m", "not slow", "--import-mode=importlib")


def test_the_quick_tier_imports_no_file_whose_tests_are_all_slow(suite):
    outcomes = quick(suite, "import pytest, no_such_module\npytestmark = pytest.mark.slow\ndef test_a(): pass\n").listoutcomes()
    assert [{report.nodeid.split("::")[1] for report in reports} for reports in outcomes] == [{"test_quick", "test_drawn"}, set(), set()]


BUSY = "import time\ndef test_busy():\n {first}\n end = time.process_time() + 1.1\n while time.process_time() < end: pass\n"


def test_a_quick_test_that_takes_long_fails_and_one_that_imports_or_compiles_or_is_slow_may(suite):
    numba.njit(lambda x: x)(1)  # a suite drops what it imports, and numba cannot be imported a second time in a process
    text = BUSY.format(first="pass")
    _, _, failed = quick(suite, text).listoutcomes()
    assert [report.nodeid for report in failed] == ["tests/unit/test_more.py::test_busy"]
    assert "mark it slow" in failed[0].longrepr
    (suite.path / "first_time.py").write_text("")
    suite.syspathinsert()
    quick(suite, BUSY.format(first="import first_time")).assertoutcome(passed=3)
    compiled = "import numba\nnumba.njit(lambda x: -x)(1)\n" + BUSY.format(first="numba.njit(lambda x: x + 1)(1)")
    quick(suite, compiled).assertoutcome(passed=3)
    suite.inline_run("tests/unit/test_more.py", "--import-mode=importlib").assertoutcome(passed=1)


def test_the_quick_tier_tries_a_fifth_of_a_propertys_examples(suite, root, monkeypatch):
    monkeypatch.delenv("TEST_EXAMPLES_TIMES")
    monkeypatch.syspath_prepend(str(root / "tests" / "shared"))
    text = "from examples import examples\ndef test_few(): assert (examples(300), examples(2)) == (60, 1)\n"
    quick(suite, text).assertoutcome(passed=3)


def test_the_soak_run_writes_what_each_test_of_a_part_came_to(suite, root):
    (suite.path / "tests" / "soak" / "run.py").write_text((root / "tests" / "soak" / "run.py").read_text())
    (suite.path / "tests" / "soak" / "test_wheel.py").write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    command = [sys.executable, "tests/soak/run.py", "wheel", "--out", "results"]
    done = subprocess.run(command, cwd=suite.path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "a test failed"
    (file,) = (suite.path / "results").iterdir()
    result = json.loads(file.read_text())
    assert file.name.startswith("soak_wheel-20")
    assert [row["outcome"] for row in result["rows"]] == ["passed", "failure"]
    assert result["environment"]["part"] == "wheel"
    assert [claim["holds"] for claim in result["claims"]] == [False, True]
