"""The folder of a service's own state: uploads and jobs, keys, the audit log. All its processes see it.

Knows names; not what lies in it.
"""

from __future__ import annotations

from pathlib import Path

from reid_ray.config.called import called
from reid_ray.errors import ConfigError
from reid_ray.storage.object_store.object_client import is_store_address


def state_folder(gallery: str, state: str | None) -> Path:
    """The folder of a service: beside its gallery unless it is given.

    Raises:
        ConfigError: the gallery is at an address, and it is not given.
    """
    if state is not None:
        return Path(state)
    if is_store_address(gallery):
        raise ConfigError(
            f"{called('state')} is missing: {gallery} is no folder; give one that all replicas see, for uploads and the audit log"
        )
    folder = Path(gallery).resolve()
    return folder.with_name(f"{folder.name}.service")
