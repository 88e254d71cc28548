"""The commands that a page of documentation shows: block by block, with what each says it needs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "AGENTS.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "cluster" / "README.md",
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)((?:    .*\n)+)")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=")
_NEEDS = re.compile(r"#\s*needs (.*)")


@dataclass(frozen=True)
class Command:
    """A line of a block.

    Args:
        page: where it stands.
        words: as a shell would split it, variables in front left out.
        needs: what its comment, or one above it in the block, says that it needs beyond a CPU and the blocks above; empty if nothing.
    """

    page: Path
    words: tuple[str, ...]
    needs: str

    @property
    def job(self) -> str | None:
        """The job that it runs, if any, by whatever way."""
        words = self.words
        if words[:3] == ("ray", "job", "submit"):
            words = words[words.index("--") + 1 :]
        if words[0] == "reid-ray":
            return words[1]
        script = re.fullmatch(r"jobs/(\w+)\.py", words[1]) if words[0].endswith("python") and len(words) > 1 else None
        return script[1] if script else None

    @property
    def config(self) -> str | None:
        """The file after --config."""
        return self.words[self.words.index("--config") + 1] if "--config" in self.words else None

    @property
    def overrides(self) -> list[str]:
        """section.key=value."""
        return [word for word in self.words if re.match(r"[a-z]\w*(\.\w+)*=", word)]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {' '.join(self.words)}"


def commands_of(page: Path) -> Iterator[Command]:
    """Every command of a page's blocks, in their order; blocks of another language than sh are none."""
    text = page.read_text()
    for block in _blocks(text):
        above = ""
        for line in block.replace("\\\n", " ").splitlines():
            found = _NEEDS.search(line)
            if line.lstrip().startswith("#"):
                above = found[1] if found else above
                continue
            words = shlex.split(line, comments=True)
            while words and _SETTING.match(words[0]):
                words.pop(0)
            if words:
                yield Command(page, tuple(words), found[1] if found else above)


def _blocks(text: str) -> list[str]:
    fenced = [(found.start(), found[2]) for found in _FENCE.finditer(text) if found[1] in ("sh", "bash", "")]
    plain = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    assert "```" not in plain, "a block that is not closed"
    indented = [(found.start(), re.sub("^    ", "", found[1], flags=re.MULTILINE)) for found in _INDENTED.finditer(plain)]
    return [block for _, block in sorted(fenced + indented)]
