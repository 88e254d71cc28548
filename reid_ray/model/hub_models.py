"""Models of a hub, fetched once on each node before anything there waits for them.

Knows names, files and nodes; loads nothing. Each node has the hub's own cache (HF_HOME), whose locks let one process of a node fetch a
file and the others wait. A node that joins later fetches when its first actor starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from reid_ray.config.common import PoolConfig
from reid_ray.model.model_files import local_folder, resolve_model
from reid_ray.runtime import on_each_node, pool_need
from reid_ray.terminal.own_lines import say

# The forms of weights, of which vLLM takes the first that a repository has; what lies in its folders is another program's.
_WEIGHTS = ("consolidated*.safetensors", "*.safetensors", "*.bin")
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken")


class NamesModel(Protocol):
    """A section of a configuration that names a model."""

    @property
    def model(self) -> str:
        """builtin:NAME, a folder or a hub name."""

    @property
    def revision(self) -> str | None:
        """Commit or tag of a hub model."""


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
        nodes = on_each_node(partial(fetch_model, name, revision=section.revision, field=field), pool_need(f"{key}.pool", pool))
        say(f"{field}: {name} is there on {len(nodes)} nodes, after {time.perf_counter() - clock:.0f} s")


def fetch_model(name: str, *, revision: str | None, field: str) -> Path:
    """The snapshot of a hub model in this machine's cache, with the files that vLLM and transformers load; downloads what is not there.

    Raises:
        DataError: it is not there and the hub does not give it.
    """
    for weights in _WEIGHTS:
        folder = local_folder(name, field=field, patterns=(*_BESIDE, weights), without=(f"*/{weights}",), revision=revision)
        if any(folder.glob(weights)):
            break
    return folder
