"""The tiers of the tests: which tests `make test-fast`, `make test` and `make soak` run, asked of pytest in the smallest projects."""

import json
import os
import subprocess
import sys

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
