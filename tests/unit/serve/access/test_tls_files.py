"""Certificate and key are checked before a service starts, and each thing that can be wrong is said by its file."""

import shutil
import subprocess
import time

import pytest
from pydantic import ValidationError
from refusals import refused

from reid_ray.errors import ConfigError
from reid_ray.serve.access.config import TlsConfig
from reid_ray.serve.access.tls_files import check_tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def made(folder, name, *, days="30", key=("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")):
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", *key, "-keyout", private, "-out", certificate, "-subj", "/CN=search.example", "-days", days]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    private.chmod(0o600)
    return certificate, private


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tls"), "good")


def check(certificate, key):
    return check_tls(TlsConfig(certificate=str(certificate), key=str(key)))


def test_a_sound_pair_is_taken_and_says_when_it_ends(pair):
    assert check(*pair) == pytest.approx(time.time() + 30 * 86_400, abs=3600)
    assert check_tls(TlsConfig()) is None
    with pytest.raises(ValidationError):
        TlsConfig(certificate="x")


@pytest.mark.slow
def test_what_is_wrong_is_said_by_its_file(pair, tmp_path):
    certificate, key = pair
    other, other_key = made(tmp_path, "other")
    garbage = tmp_path / "garbage"
    garbage.write_text("no PEM")
    garbage.chmod(0o600)
    locked, locked_key = made(tmp_path, "locked", key=("-newkey", "rsa:2048", "-passout", "pass:secret"))
    shared = tmp_path / "shared.key"
    shutil.copy(key, shared)
    shared.chmod(0o644)
    for files, names in (
        ((tmp_path / "none", key), ["tls.certificate", str(tmp_path / "none")]),
        ((certificate, tmp_path / "none"), ["tls.key", str(tmp_path / "none")]),
        ((certificate, tmp_path), ["tls.key", str(tmp_path)]),
        ((garbage, key), ["tls.certificate", str(garbage)]),
        ((certificate, garbage), ["tls.key", str(garbage)]),
        ((key, key), ["tls.certificate", str(key)]),
        ((certificate, other_key), [str(certificate), str(other_key)]),
        ((other, key), [str(other), str(key)]),
        ((locked, locked_key), ["tls.key", str(locked_key), "password"]),
        ((certificate, shared), ["tls.key", str(shared)]),
    ):
        with refused(ConfigError, *names):
            check(*files)


@pytest.mark.parametrize(("start", "end", "word"), [(-20, -10, "expired"), (10, 20, "not valid yet")])
def test_a_certificate_of_another_time_is_refused(tmp_path, start, end, word):
    pair, settings = made(tmp_path, "old"), tmp_path / "ca.cnf"
    for name in ("index", "serial"):
        (tmp_path / name).write_text("" if name == "index" else "01")
    settings.write_text(
        f"[ca]\ndefault_ca=a\n[a]\ndatabase={tmp_path}/index\nserial={tmp_path}/serial\nnew_certs_dir={tmp_path}\npolicy=p\n[p]\nCN=supplied\n"
    )
    first, last = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86_400)) for days in (start, end))
    request = ["openssl", "req", "-new", "-key", pair[1], "-subj", "/CN=search.example", "-out", tmp_path / "csr"]
    signing = ["openssl", "ca", "-batch", "-config", settings, "-selfsign", "-keyfile", pair[1], "-in", tmp_path / "csr", "-md", "sha256"]
    signing += ["-startdate", first, "-enddate", last, "-out", pair[0], "-notext"]
    for command in (request, signing):
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with refused(ConfigError, str(pair[0]), word):
        check(*pair)
