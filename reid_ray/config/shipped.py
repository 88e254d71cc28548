"""Shipped configurations: where those of the package lie, and how one is found by its name.

In a checkout they are jobs/configs; a wheel carries them as reid_ray/configs. A file that exists where the user stands always wins over
a shipped one of its name.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = "jobs/configs/"

RULE = (
    "a file, or the name of a shipped one (see `reid-ray configs`), such as caption.yaml or caption/caption.yaml; a file that exists wins"
)


def configs_folder() -> Path:
    """The folder of the shipped configurations, one folder in it for each task."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "jobs" / "configs"


def shipped_configs() -> list[str]:
    """Their names, as TASK/FILE.yaml in alphabetical order, those of no task first."""
    folder = configs_folder()
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")]
    return sorted(names, key=lambda name: ("/" in name, name))


def find_config(text: str | Path) -> Path:
    """The file that `text` means: itself if it exists, else the shipped one of that name, with or without its task; else itself."""
    path = Path(text)
    if path.exists() or path.is_absolute():
        return path
    wanted = path.as_posix().removeprefix(_CHECKOUT)
    found = [name for name in shipped_configs() if wanted in (name, name.rpartition("/")[2])]
    return configs_folder() / found[0] if len(found) == 1 else path
