"""Runs the soak tests, a named part at a time, and writes what each part came to as a dated result.

    python tests/soak/run.py                       # every part
    python tests/soak/run.py kills properties      # these
    python tests/soak/run.py --list                # which there are

Soak tests are what takes too long for every change: long runs of kills, whole demos, packages built and installed, random inputs by the
thousand. A part is the name of a file in this folder, or what a test elsewhere says it belongs to (`@pytest.mark.soak("kills")`). A part
that does not end in an hour has failed. Results: benchmarks/results/soak_PART-DATE.json, machine, commit and load in them.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.harness import Report, print_table
from reid_ray.storage import environment, write_json

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_MARK = re.compile(r"""mark\.soak\(["'](\w+)["']\)""")
_LIMIT_S = 3600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts; all of them if none is named")
    parser.add_argument("--list", action="store_true", help="name the parts and their files, and run nothing")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", metavar="FOLDER", help="where the results go")
    arguments = parser.parse_args()
    there = _parts()
    if arguments.list:
        print_table([{"part": part, "files": " ".join(str(file.relative_to(_ROOT)) for file in there[part])} for part in sorted(there)])
        return 0
    if unknown := sorted(set(arguments.parts) - set(there)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(sorted(there))}")
    return max([_run(part, there[part], arguments.out) for part in arguments.parts or sorted(there)])


def _parts() -> dict[str, list[Path]]:
    """The files in which each part has tests."""
    found = defaultdict(list)
    for file in sorted((_ROOT / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        said = set(_MARK.findall(text))
        if "from hypothesis import" in text:
            found["properties"].append(file)
        for part in said or ({file.stem.removeprefix("test_")} if file.parent == _HERE else set()):
            found[part].append(file)
    return dict(found)


def _run(part: str, files: list[Path], out: Path) -> int:
    """Run a part, write its result; 1 if anything in it failed or it took longer than an hour."""
    report = Report()
    facts = {**environment(), "part": part, "load_average_before": [round(load, 2) for load in os.getloadavg()]}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--soak", part, f"--junitxml={file}", *map(str, files)]
        ended = _ended(command)
        tests = ElementTree.parse(file).findall(".//testcase") if file.exists() else []
    for test in tests:
        outcome = next((child.tag for child in test if child.tag in ("failure", "error", "skipped")), "passed")
        report.row(test=f"{test.get('classname')}.{test.get('name')}", outcome=outcome, seconds=float(test.get("time", 0)))
    outcomes = Counter(row["outcome"] for row in report.rows)
    facts.update(seconds=round(time.monotonic() - started, 1), finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    facts["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    report.claim("tests passed", outcomes["passed"], ">=", max(1, len(tests) - outcomes["skipped"]))
    report.claim("parts that did not end in an hour", 0 if ended else 1, "<=", 0)
    out.mkdir(parents=True, exist_ok=True)
    to = out / f"soak_{part}-{time.strftime('%Y-%m-%d', time.gmtime())}.json"
    write_json(to, {"environment": facts, "rows": report.rows, "claims": report.claims})
    print_table([{"part": part, "seconds": facts["seconds"], **outcomes, "result": str(to)}])
    return 0 if all(claim["holds"] for claim in report.claims) else 1


def _ended(command: list[str]) -> bool:
    """Whether the command ended, well or not, within the limit; it and what it started are stopped otherwise."""
    running = subprocess.Popen(command, cwd=_ROOT, start_new_session=True)
    try:
        running.wait(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
