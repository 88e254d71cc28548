"""A certificate of its own for a service of the tests."""

import subprocess
from pathlib import Path


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """Files with a certificate for 127.0.0.1 and with its key, in a folder that is there; openssl makes them."""
    certificate, key = folder / "own.pem", folder / "own.key"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {certificate} -days 2"
    subprocess.run([*command.split(), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return certificate, key
