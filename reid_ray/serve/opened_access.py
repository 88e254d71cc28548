"""Access control as the serve job configures it: what is checked before anything starts, and what each process of the service opens.

Knows the job's sections and folders; not requests.
"""

from __future__ import annotations

from pathlib import Path

from reid_ray.serve.access.service_access import ServiceAccess, open_access
from reid_ray.serve.access.tls_files import check_tls
from reid_ray.serve.access.tokens.token_file import read_tokens
from reid_ray.serve.config import ServeJob
from reid_ray.serve.service_state import state_folder


def check_access(config: ServeJob) -> None:
    """Refuse what would be refused when the first process opens it.

    Raises:
        ConfigError: certificate and key cannot be used, or there is no place for the service's state.
        DataError: the tokens file cannot be read.
    """
    check_tls(config.tls)
    if config.access.tokens is not None:
        read_tokens(Path(config.access.tokens))
    state_folder(config.index, config.state)


def service_access(config: ServeJob) -> ServiceAccess:
    """What a process of the service opens.

    Raises:
        ConfigError: there is no place for the service's state.
        DataError: the tokens file or a key cannot be read.
    """
    state = state_folder(config.index, config.state)
    return open_access(config.access, config.audit, state=state, tls=config.tls.certificate is not None)
