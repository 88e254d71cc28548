"""What docstrings and comments of the package name exists: files, dotted names, and every word with an underscore."""

import io
import re
import subprocess
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "reid_ray").rglob("*.py"))
MODULES = defaultdict(list)  # by the file's name
for _path in SOURCES:
    MODULES[_path.stem].append(_path.with_suffix(""))
FILE = re.compile(r"(?<![\w./])[\w/]+\.py\b")
DOTTED = re.compile(r"(?<![\w./])reid_ray(?:\.\w+)+")
MEMBER = re.compile(r"(?<![\w./`])([a-z]\w*)\.(_?[A-Z]\w+)\b")
WORD = re.compile(r"(?<![\w./<-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w(-])")
# Not of this code: indices of formulas, data sets' own folders and keys, torch's argument, a secret's example, and names that are put
# together (f"{name}_identity").
FOREIGN = re.compile(
    r"\w+_(?:i|j|ij)|gt_bbox|gt_query|cam_[ab]|(?:test|train)_query|ignore_index|hf_token|(?:latent|visual)_(?:identity|map|r1)"
)
EVENTS = {"reid_ray.fsync", "reid_ray.commit", "reid_ray.object"}  # of sys.audit


def said_and_written(text):
    """The docstrings and comments of a source, and the words of the rest."""
    said, written = [], []
    fresh = True  # at the start of a statement, where a text alone is a docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        docstring = token.type == tokenize.STRING and fresh and token.string.lstrip("r").startswith('"""')
        if docstring or token.type == tokenize.COMMENT:
            said.append(token.string)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            written.append(token.string)
        fresh = token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)
    return "\n".join(said), set(re.findall(r"\w+", "\n".join(written)))


@pytest.fixture(scope="module")
def package():
    """What each file says, by its path, and all words of the code: of files' names, of the package, the tests and the benchmarks."""
    said, words = {}, set()
    for path in SOURCES:
        said[path], written = said_and_written(path.read_text())
        words |= written | {*path.relative_to(ROOT).with_suffix("").parts}
    return said, words


@cache
def defined(module, name):
    """Whether a module's file binds a name at its top, or is a folder that holds a module of it."""
    if module.is_dir():
        return (module / name).is_dir() or (module / f"{name}.py").is_file() or defined(module / "__init__", name)
    file = module.with_suffix(".py")
    return file.is_file() and re.search(
        rf"^(?:class |def |async def )?{name}\b|^(?:from|    |import).*\b{name}\b", file.read_text(), re.MULTILINE
    )


def resolves(dotted):
    place, rest = ROOT / "reid_ray", dotted.split(".")[1:]
    while rest and ((place / rest[0]).is_dir() or (place / f"{rest[0]}.py").is_file()):
        place /= rest.pop(0)
    return not rest or bool(defined(place, rest[0]))


def strays(text, words, files):
    """The names in a text that nothing bears."""
    found = [name for name in FILE.findall(text) if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    found += [name for name in DOTTED.findall(text) if name not in EVENTS and not resolves(name)]
    found += [
        f"{module}.{name}"
        for module, name in MEMBER.findall(text)
        if module in MODULES and not any(defined(each, name) for each in MODULES[module])
    ]
    found += [f"{module}.{name}" for module, name in MEMBER.findall(text) if module not in MODULES and module not in words]
    return found + [word for word in WORD.findall(text) if word not in words and not FOREIGN.fullmatch(word)]


@pytest.mark.slow
def test_whatever_a_docstring_or_a_comment_names_is_there(package):
    said, words = package
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {str(path.relative_to(ROOT)): found for path, text in said.items() if (found := strays(text, words, files))} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "those of no_such_file.py",
        "those of lint/parser.py",
        "see reid_ray.config.nothing",
        "see reid_ray.config.shipped.nothing",
        "pure functions of lint_rows.Rows",
        "pure functions of gather.Row",
        "read by lint_checks",
    ],
)
def test_a_name_that_nothing_bears_is_found(package, text):
    assert strays(text, package[1], ["reid_ray/attributes/parser.py"])


def test_what_is_said_is_told_from_what_is_written():
    said, written = said_and_written(
        '"""A said_word."""\nx = """a text_word"""\n# a comment_word\ndef f():\n    """A doc_word."""\n    return code_word\n'
    )
    assert set(WORD.findall(said)) == {"said_word", "comment_word", "doc_word"}
    assert {"text_word", "code_word"} <= written
