"""The picture of the package, held by a test: who may import whom, how large a folder is, and what importing costs."""

import ast
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "reid_ray"
UNIT_TESTS = ROOT / "tests" / "unit"

# Each part may import itself, the leaves and the parts listed here: jobs -> workloads -> data, model -> leaves.
LEAVES = {
    "attributes",
    "errors",
    "config",
    "records",
    "own_columns",
    "storage",
    "runtime",
    "jobs",
    "progress",
    "measure",
    "reasons",
    "pages",
    "redaction",
    "scratch",
    "telemetry",
    "terminal",
    "system_errors",
    "exit_codes",
    "versions",
}
ALLOWED = {
    "setup": {"model", "retrieval"},
    "cli": {"setup"},
    "crop": {"data", "model"},
    "data": set(),
    "gallery": set(),
    "model": {"data"},
    "retrieval": {"data", "gallery", "model"},
    "caption": {"data", "model"},
    "edit": {"caption", "data", "model"},
    "train": {"data", "model", "retrieval"},
    "serve": {"data", "gallery", "model", "retrieval"},
    "migrate": {"caption"},
    "rehearse": {"cli", "data", "edit", "model", "serve", "setup"},
    "demo": {"caption", "cli", "data", "edit", "gallery", "model", "retrieval", "serve", "train"},
    **{leaf: set() for leaf in LEAVES},
}
# An engine is known to one place of each part that needs it.
ONLY_IN = {
    "vllm": "caption/engines/",
    "faiss": ("retrieval/index/", "gallery/approximate/"),
    "deepspeed": "train/zero.py",
    "diffusers": "model/editor/",
}

MOST_FILES = 15
# Names that say what a file is to its folder, so every job may have one.
ROLES = {"__init__", "job", "config", "page", "worker_parts", "validation", "objective"}
# Folders of one model each, once for every part that has something to say about it.
PARALLEL = {"dual", "editor", "mllm", "tiny"}
# Folders of unit tests that hold the whole package to something and belong to no part of it.
ACROSS_PARTS = {"privacy"}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
NAMES = {str(path.relative_to(PACKAGE)): path for path in FILES}


def _name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in FILES}


@dataclass(frozen=True)
class Source:
    """What these tests ask of a file: the modules it imports, its classes, and its functions with their lines."""

    imports: tuple[str, ...]
    classes: tuple[str, ...]
    functions: tuple[tuple[str, int], ...]


@cache
def _source(path):
    tree = ast.parse(path.read_text())
    imports, functions = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            imports += [module if module in MODULES else node.module for module in modules]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append((node.name, node.end_lineno - node.lineno + 1))
    return Source(tuple(imports), tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef)), tuple(functions))


@pytest.fixture(autouse=True, scope="module")
def _all_read():
    for path in [*FILES, *BENCHMARKS]:
        _source(path)


def _imports(path):
    return _source(path).imports


def _part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_parts_import_only_what_the_picture_allows():
    strays = []
    for where, path in NAMES.items():
        part = _part(path)
        for name in _imports(path):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == "reid_ray" and rest and other != part and other not in LEAVES and other not in ALLOWED[part]:
                strays.append(f"{where} imports {name}")
            if root in ONLY_IN and not where.startswith(ONLY_IN[root]):
                strays.append(f"{where} imports {root}, which belongs into {ONLY_IN[root]}")
    assert strays == []


def test_no_module_imports_itself_by_way_of_others():
    imports = {name: {other for other in _imports(path) if other in MODULES} - {name} for name, path in MODULES.items()}
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(imports[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in sorted(imports):
        visit(name, [])


def test_what_recipes_share_knows_no_recipe():
    """The feed, the losses, checkpoints and logs serve dual encoders and multimodal LLMs alike; reading serves every job of data/."""
    shared = {"train": ("feed", "losses", "checkpoint", "log"), "data": ("containers", "formats", "synthetic")}
    recipes = ("train.dual", "train.mllm", "train.editor", "data.ingest", "data.lint", "data.export")
    found = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if any(name.startswith(f"reid_ray.{part}.{folder}.") for part, folders in shared.items() for folder in folders)
        or (name.startswith("reid_ray.data.") and name.count(".") == 2)
        for other in _imports(path)
        if other.startswith(tuple(f"reid_ray.{recipe}" for recipe in recipes))
    ]
    assert found == []


def test_a_folder_can_be_taken_in_at_a_glance():
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    sizes = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > MOST_FILES} == {}


def _stem(word):
    """A word without the endings that make its homonyms: planner, planning and plan are one."""
    for end in ("ations", "ation", "ings", "ing", "ers", "er", "ors", "or", "es", "s", "e"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            word = word.removesuffix(end)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _alike(names):
    """Of {where: name}, the places whose names differ by an ending alone, or not at all."""
    same = defaultdict(set)
    for where, name in names.items():
        same[_stem(name.lower())].add(where)
    return {stem: sorted(places) for stem, places in same.items() if len(places) > 1}


def test_no_two_modules_or_folders_are_told_apart_by_an_ending_alone():
    names = {where: path.stem for where, path in NAMES.items() if path.stem not in ROLES}
    folders = (path for path in PACKAGE.rglob("*") if (path / "__init__.py").is_file() and path.name not in PARALLEL)
    assert _alike(names | {f"{folder.relative_to(PACKAGE)}/": folder.name for folder in folders}) == {}


def _classes():
    return [(f"{where}: {name}", name) for where, path in NAMES.items() for name in _source(path).classes]


def test_no_two_classes_are_told_apart_by_an_ending_alone():
    public = {where: name for where, name in _classes() if not name.startswith("_")}
    assert _alike(public) == {}


def test_no_two_classes_have_one_name():
    classes = defaultdict(list)
    for where, name in _classes():
        classes[name].append(where)
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}


def _unit_tests():
    return {str(path.relative_to(UNIT_TESTS)): path for path in UNIT_TESTS.rglob("test_*.py")}


def test_unit_tests_lie_in_folders_of_the_package():
    assert _unit_tests()
    folders = {Path(where).parent for where in _unit_tests()}
    assert {str(folder) for folder in folders if not (PACKAGE / folder).is_dir()} <= ACROSS_PARTS


def test_no_two_unit_tests_differ_by_their_last_letters_alone():
    names = {where: path.stem.removeprefix("test_") for where, path in _unit_tests().items()}
    assert _alike({where: name for where, name in names.items() if name not in ROLES}) == {}


@pytest.mark.parametrize(
    "module",
    ["reid_ray", "reid_ray.records", "reid_ray.config.reference", "reid_ray.runtime", "reid_ray.caption.prompts", "reid_ray.demo.config"],
)
@pytest.mark.slow
def test_light_modules_import_no_engine(module):
    heavy = ("torch", "ray", "vllm", "transformers", "deepspeed", "faiss")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_no_source_file_becomes_the_place_where_everything_goes():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_no_function_is_longer_than_a_page():
    assert [(path.name, name, lines) for path in [*FILES, *BENCHMARKS] for name, lines in _source(path).functions if lines > 60] == []
