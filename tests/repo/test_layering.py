"""The picture of the package, held by a test: who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "reid_ray"

# Each part may import itself, the leaves (errors, config, records, storage, runtime, ...) and the parts listed here.
LEAVES = {
    "errors",
    "config",
    "records",
    "storage",
    "runtime",
    "cli",
    "progress",
    "measure",
    "redaction",
    "scratch",
    "telemetry",
    "system_errors",
    "endings",
    "versions",
}
ALLOWED = {
    "data": set(),
    "setup": {"model"},
    "model": {"data", "setup"},
    "caption": {"data", "setup", "model"},
    "train": {"data", "model", "setup", "retrieval"},
    "retrieval": {"data", "model", "setup"},
    "serve": {"data", "model", "retrieval", "setup"},
    "migration": {"caption"},
    **{leaf: set() for leaf in LEAVES},
}
ONLY_IN = {
    "vllm": {"caption/engine.py"},
    "faiss": {"retrieval/index.py"},
    "deepspeed": {"train/zero.py"},
}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if _part(path) != "__init__"]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_parts_import_only_what_the_picture_allows(path):
    part = _part(path)
    for name in _imports(path):
        root, _, rest = name.partition(".")
        if root == "reid_ray" and rest:
            other = rest.split(".")[0]
            assert other == part or other in LEAVES or other in ALLOWED[part], f"{path.name} imports {name}"
        if root in ONLY_IN:
            assert str(path.relative_to(PACKAGE)) in ONLY_IN[root], f"{root} is imported outside {ONLY_IN[root]}"


@pytest.mark.parametrize(
    "module", ["reid_ray", "reid_ray.records", "reid_ray.config.reference", "reid_ray.runtime", "reid_ray.caption.prompts"]
)
def test_light_modules_import_no_engine(module):
    heavy = ("torch", "ray", "vllm", "transformers", "deepspeed", "faiss")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_no_source_file_becomes_the_place_where_everything_goes():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long
