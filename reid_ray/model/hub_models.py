"""Models of a hub, fetched once on each node before anything there waits for them.

Knows names, files and nodes; loads nothing. Each node has the hub's own cache (HF_HOME), whose locks let one process of a node fetch a
file and the others wait. A node that joins later fetches when its first actor starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from reid_ray.config.common import PoolConfig
from reid_ray.model.hub_access import Wanted, download_in_words, hub_commit, hub_folder
from reid_ray.model.model_files import resolve_model
from reid_ray.runtime import Need, on_each_node, pool_need
from reid_ray.terminal.own_lines import say

# What vLLM and transformers load: of the forms of weights vLLM takes the first that a repository has; what lies in a repository's folders
# is another program's.
_FORMS = ("consolidated*.safetensors", "*.safetensors", "*.bin")
MODEL_FILES = Wanted(
    beside=("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken"), weights=_FORMS, without=tuple(f"*/{form}" for form in _FORMS)
)


SectionT = TypeVar("SectionT", bound="NamesModel")


class NamesModel(Protocol):
    """A section of a configuration that names a model."""

    @property
    def model(self) -> str:
        """builtin:NAME, a folder or a hub name."""

    @property
    def revision(self) -> str | None:
        """Commit or tag of a hub model."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """The same section but for these fields."""


def pinned(section: SectionT, *, field: str) -> SectionT:
    """A section whose hub model is named by its commit, so that every node and every later run loads the same; others as they are.

    Raises:
        ConfigError: there is no such folder or builtin.
        DataError: neither this machine's cache nor the hub knows a commit of it.
    """
    name = resolve_model(section.model, field=field)
    if Path(name).is_dir():
        return section
    return section.model_copy(update={"revision": hub_commit(name, field=field, revision=section.revision)})


def fetch_models(sections: Mapping[str, tuple[NamesModel, PoolConfig]]) -> None:
    """Fetch the hub models of some sections on every node that can hold an actor of theirs; Ray must be running.

    Args:
        sections: dotted key -> section and the pool whose actors load its model.

    Raises:
        DataError: the hub does not give one; names the key.
    """
    for key, (section, pool) in sections.items():
        field = f"{key}.model"
        name = resolve_model(section.model, field=field)
        if Path(name).is_dir():
            continue
        clock = time.perf_counter()
        nodes = fetch_on_nodes(name, MODEL_FILES, pool_need(f"{key}.pool", pool), field=field, revision=section.revision)
        say(f"{field}: {name} is there on {nodes} nodes, after {time.perf_counter() - clock:.0f} s")


def fetch_on_nodes(name: str, wanted: Wanted, need: Need, *, field: str, revision: str | None = None) -> int:
    """Fetch files of a repository on every node that can hold one process of `need`; one line says first what will be downloaded.

    Args:
        name: of the hub.
        wanted: the files.
        need: of a process that loads them.
        field: the dotted configuration key, named in that line and in errors.
        revision: a commit, which is the same on all nodes, or a branch or tag.

    Returns:
        The number of nodes.

    Raises:
        DataError: it cannot be had; says why.
    """
    lines = on_each_node(partial(download_in_words, name, wanted, field=field, revision=revision), need)
    if (line := next(filter(None, lines), None)) is not None:
        say(line)
        on_each_node(partial(hub_folder, name, wanted, field=field, revision=revision, quiet=True), need)
    return len(lines)


def fetch_model(name: str, *, revision: str | None, field: str) -> Path:
    """The folder of a resolved name: itself, or the snapshot of a hub model in this machine's cache, with the files that vLLM and
    transformers load; downloads what is not there. Whatever loads a model by its name asks here, and none asks the hub itself.

    Raises:
        DataError: it is not there and the hub does not give it.
    """
    if Path(name).is_dir():
        return Path(name)
    return hub_folder(name, MODEL_FILES, field=field, revision=revision)
