"""Azure Blob Storage addresses, az://container/path, for pyarrow: whose account, and where, stands in the environment as obstore reads it.

AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY; without a key pyarrow takes the machine's identity. An
address may say ?account_name=..., and for an emulator ?endpoint_override=HOST:PORT&scheme=http.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from pyarrow import fs

OPTIONS = frozenset({"account_name", "endpoint_override", "scheme"})


def azure_account(options: Mapping[str, str]) -> str:
    """The account of an address with these options.

    Raises:
        ValueError: nothing says it.
    """
    name = options.get("account_name") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not name:
        raise ValueError("an az:// address needs the account's name; set AZURE_STORAGE_ACCOUNT_NAME")
    return name


def azure_file_system(location: str) -> tuple[fs.FileSystem, str]:
    """Pyarrow's filesystem of an az:// address, and the path in it.

    Raises:
        ValueError: no account is named.
    """
    address, _, text = location.partition("?")
    options = {name: values[-1] for name, values in parse_qs(text).items()}
    settings: dict[str, Any] = {
        "account_key": os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        "sas_token": os.environ.get("AZURE_STORAGE_SAS_KEY"),
        "blob_storage_authority": options.get("endpoint_override"),
        "dfs_storage_authority": options.get("endpoint_override"),
        "blob_storage_scheme": options.get("scheme"),
        "dfs_storage_scheme": options.get("scheme"),
    }
    given = {name: value for name, value in settings.items() if value is not None}
    return fs.AzureFileSystem(azure_account(options), **given), unquote(address.removeprefix("az://"))
