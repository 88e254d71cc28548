"""The tiers of the tests: which tests `make test-fast`, `make test` and `make soak` run, asked of pytest in the smallest projects."""

import json
import os
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow  # a pytest run each
OTHERS = {"test_quick", "test_drawn"}
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


def names(suite, *options):
    """Names of the tests that passed and of those that failed, in a process of their own, and what it printed.

    (pytester's runs in this process drop what they have imported, and what numba has of them it cannot import a second time.)
    """
    result = suite.runpytest_subprocess(*options, "-rA", "--import-mode=importlib")
    passed, failed = (
        {line.split("::")[1].split()[0] for line in result.outlines if line.startswith(f"{outcome} tests/")}
        for outcome in ("PASSED", "FAILED")
    )
    return passed, failed, result.stdout.str()


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
    assert names(suite, *options)[:2] == (expected, set())


def test_a_quick_test_that_starts_ray_fails_and_a_slow_one_may(suite):
    started = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '', 'gcs_server'], check=True)\n"
    text = f"import pytest\ndef test_quick():\n {started!r}\n exec({started!r})\n@pytest.mark.slow\ndef test_slow():\n exec({started!r})\n"
    (suite.path / "tests" / "unit" / "test_a.py").write_text(text)
    assert names(suite, "tests/unit/test_a.py")[:2] == ({"test_slow"}, {"test_quick"})


def quick(suite, text):
    """What the quick tier makes of one more file of tests."""
    (suite.path / "tests" / "unit" / "test_more.py").write_text(text)
    return names(suite, "tests/unit", "-m", "not slow")


def test_the_quick_tier_imports_no_file_whose_tests_are_all_slow(suite):
    passed, failed, _ = quick(suite, "import pytest, no_such_module\npytestmark = pytest.mark.slow\ndef test_a(): pass\n")
    assert (passed, failed) == (OTHERS, set())


BUSY = "import time\ndef test_busy():\n {first}\n end = time.process_time() + 1.1\n while time.process_time() < end: pass\n"


def test_a_quick_test_that_takes_long_fails_and_one_that_imports_or_compiles_or_is_slow_may(suite):
    text = BUSY.format(first="pass")
    passed, failed, printed = quick(suite, text)
    assert (passed, failed) == (OTHERS, {"test_busy"})
    assert "mark it slow" in printed
    (suite.path / "first_time.py").write_text("")
    assert quick(suite, BUSY.format(first="import first_time"))[:2] == (OTHERS | {"test_busy"}, set())
    compiled = "import numba\nnumba.njit(lambda x: -x)(1)\n" + BUSY.format(first="numba.njit(lambda x: x + 1)(1)")
    assert quick(suite, compiled)[:2] == (OTHERS | {"test_busy"}, set())
    (suite.path / "tests" / "unit" / "test_more.py").write_text(text)
    assert names(suite, "tests/unit/test_more.py")[:2] == ({"test_busy"}, set())


def test_the_table_of_characters_of_a_fresh_checkout_is_no_tests_time(suite, monkeypatch):
    monkeypatch.delenv("HYPOTHESIS_STORAGE_DIRECTORY", raising=False)
    text = "from pathlib import Path\ndef test_made(): assert list(Path('.hypothesis').rglob('codec-*utf-8*'))\n"
    assert quick(suite, text)[:2] == (OTHERS | {"test_made"}, set())


def test_every_property_can_be_tried_on_more_examples(root):
    said = "@" + "given("  # in two, for this file is searched as well
    files = {file: file.read_text("utf-8") for file in (root / "tests" / "unit").rglob("*.py")}
    assert {file.name for file, text in files.items() if said in text and "=examples(" not in text} == {"test_openapi.py"}  # its own number


def test_the_quick_tier_tries_a_fifth_of_a_propertys_examples(suite, root, monkeypatch):
    monkeypatch.delenv("TEST_EXAMPLES_TIMES")
    monkeypatch.setenv("PYTHONPATH", str(root / "tests" / "shared"), prepend=os.pathsep)
    text = "from examples import examples\ndef test_few(): assert (examples(300), examples(2)) == (60, 1)\n"
    assert quick(suite, text)[:2] == (OTHERS | {"test_few"}, set())


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
