"""The README's map, one line per module, from the modules' own first sentences. Run: python tests/repo/module_map.py"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START, END = "<!-- modules: written by `make reference` -->", "<!-- end of modules -->"


def module_map() -> str:
    lines = []
    for path in sorted((ROOT / "reid_ray").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        sentence = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
        if path.name == "__init__.py":
            lines += ["", f"**{path.parent.relative_to(ROOT)}/** {sentence}", ""]
        else:
            lines.append(f"- `{name.removeprefix('reid_ray/')}` {sentence}")
    return "\n".join(lines).strip() + "\n"


def readme_with_map(readme: str) -> str:
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{module_map()}{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(readme_with_map(readme.read_text()))
