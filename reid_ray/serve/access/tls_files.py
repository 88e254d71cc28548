"""Certificate and key of a service, checked before it starts: readable, of each other, and valid now.

A handshake in memory finds what a browser would. Knows files and dates; not the server that uses them.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path

from reid_ray.config.called import called
from reid_ray.errors import ConfigError
from reid_ray.serve.access.config import TlsConfig

_LOG = logging.getLogger(__name__)
_SOON_DAYS = 14
_NOT_YET, _EXPIRED = 9, 10  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED


def check_tls(config: TlsConfig) -> float | None:
    """Check the files that a configuration names. Returns when the certificate expires (seconds since 1970); None without TLS.

    Raises:
        ConfigError: names the file at fault, and what is wrong with it.
    """
    if config.certificate is None or config.key is None:
        return None
    certificate, key = Path(config.certificate), Path(config.key)
    for path, what in ((certificate, "tls.certificate"), (key, "tls.key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{called(what)} {path}: cannot be read ({error.strerror}); name a PEM file that this user may read"
            ) from None
    if key.stat().st_mode & 0o007:
        raise ConfigError(f"{called('tls.key')} {key}: everybody on this machine may read it; chmod 600 it, and think of a new key")
    expires = _shaken(_server(certificate, key), certificate)
    days = (expires - time.time()) / 86_400
    if days < _SOON_DAYS:
        _LOG.warning("%s: the certificate expires in %.0f days", certificate, days)
    return expires


def _server(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{called('tls.key')} {key}: is the key of another certificate than {certificate}; name the two that belong together"
            ) from None
        faulty = f"{called('tls.certificate')} {certificate}" if not _is_certificate(certificate) else f"{called('tls.key')} {key}"
        raise ConfigError(f"{faulty}: is not a PEM file of that kind ({error.reason or 'unreadable'}); name the right one") from None
    except _PasswordError:
        raise ConfigError(
            f"{called('tls.key')} {key}: is locked with a password, which a service cannot type; store it without one"
        ) from None
    return context


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _shaken(server: ssl.SSLContext, certificate: Path) -> float:
    """Let a client that trusts just this certificate shake hands with it; when it expires."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        waiting = [asking, answering]
        for _ in range(10):
            waiting = [side for side in waiting if not _shook(side)]
        found = asking.getpeercert() if not waiting else None
        if found:
            return ssl.cert_time_to_seconds(str(found["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            raise ConfigError(f"{called('tls.certificate')} {certificate}: has expired; have it renewed") from None
        if error.verify_code == _NOT_YET:
            raise ConfigError(f"{called('tls.certificate')} {certificate}: is not valid yet; see this machine's clock") from None
        raise ConfigError(
            f"{called('tls.certificate')} {certificate}: no client would take it ({error.verify_message}); have it issued anew"
        ) from None
    except ssl.SSLError as error:
        raise ConfigError(
            f"{called('tls.certificate')} {certificate}: no handshake succeeds with it ({error.reason}); have it issued anew"
        ) from None
    raise ConfigError(f"{called('tls.certificate')} {certificate}: no handshake succeeds with it; have it issued anew")


def _shook(side: ssl.SSLObject) -> bool:
    """Go on with a handshake; whether it is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


class _PasswordError(Exception):
    """A key asks for a password."""


def _no_password() -> str:
    raise _PasswordError
