"""Calls into Python: counted, and whatever goes wrong there stays there."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from fastlb._core._testing_contexts import Contexts, in_use, peer_subject
from fastlb._core._testing_sealed import acquisitions, count_nowhere, decrypt, encrypt, prepare
from fastlb.certificates import der_of, der_of_key
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_material import (
    CertificateMaterial,
    Material,
    PoolMaterial,
    ServerMaterial,
    encode,
)
from tests.harness.certificates import Authority
from tests.harness.proxy import environment
from tests.harness.tls_meeting import client, meet

KEY = bytes(range(64))
OTHER = bytes(range(1, 65))


def test_encryption_is_deterministic_and_comes_back() -> None:
    sealed = encrypt(KEY, b"eleven byte")
    assert len(sealed) == 11 + 16
    assert encrypt(KEY, b"eleven byte") == sealed
    assert encrypt(OTHER, b"eleven byte") != sealed
    assert decrypt(KEY, sealed) == b"eleven byte"


def test_what_was_changed_or_made_with_another_key_is_refused() -> None:
    sealed = encrypt(KEY, b"eleven byte")
    assert decrypt(OTHER, sealed) == b""
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert decrypt(KEY, bytes(changed)) == b""


@pytest.mark.parametrize("count", [0, 1, 15, 16])
def test_what_is_too_short_is_refused_without_python(count: int) -> None:
    before = acquisitions()
    assert decrypt(KEY, bytes(count)) == b""
    assert acquisitions() == before


def test_each_call_is_counted_once() -> None:
    before = acquisitions()
    sealed = encrypt(KEY, b"a")
    assert acquisitions() == before + 1
    decrypt(KEY, sealed)
    assert acquisitions() == before + 2
    prepare()
    assert acquisitions() == before + 3
    count_nowhere(True)
    encrypt(KEY, b"a")
    count_nowhere(False)
    assert acquisitions() == before + 3


def test_many_keys_one_after_the_other() -> None:
    keys = [bytes([number]) * 32 + bytes(32) for number in range(1, 200)]
    sealed = [encrypt(key, b"x") for key in keys]
    assert len(set(sealed)) == len(keys)
    assert [decrypt(key, one) for key, one in zip(keys, sealed, strict=True)] == [b"x"] * len(keys)


BROKEN = """
import sys
sys.modules["cryptography.hazmat.primitives.ciphers.aead"] = None
from fastlb._core._testing_sealed import acquisitions, decrypt, encrypt, prepare, seal
prepare()
assert encrypt(bytes(range(64)), b"x") == b"" == decrypt(bytes(range(64)), bytes(40))
assert seal([(bytes(range(64)), bytes(16))], "10.0.0.1", 80, 1) == b""
assert acquisitions() == 4
"""
SILENCED = (
    """
import sys
sys.modules["fastlb.errors"] = None
"""
    + BROKEN
)


@pytest.mark.parametrize(("code", "lines"), [(BROKEN, 1), (SILENCED, 0)])
def test_a_failure_is_reported_once_and_never_raised(code: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == lines, done.stderr
    for line in said:
        assert line.startswith("fastlb: error: ")
        assert "encryption of cookies" in line
        assert line.endswith("[FLB-S098]")


# --- contexts of TLS ---


def material(authority: Authority, *names: str) -> tuple[bytes, int]:
    """Of certificates for these names, and how many contexts it makes."""
    pairs = [authority.certificate(name) for name in names]
    found = tuple(
        CertificateMaterial(0, (der_of(pair.made),), der_of_key(pair.key)) for pair in pairs
    )
    keys = TicketKeys().keys
    made = Material((ServerMaterial("shop"),), found, (PoolMaterial(False),))
    return encode(made, keys), len(names) * len(keys) + 1


def test_contexts_are_made_of_material(tmp_path: Path) -> None:
    data, count = material(Authority(tmp_path), "a.test", "b.test")
    before = acquisitions()
    contexts = Contexts(data, count)
    assert acquisitions() == before + 1
    assert contexts.addresses is not None
    assert len(set(contexts.addresses)) == count
    again = Contexts(data, count)
    assert again.addresses == contexts.addresses
    assert in_use() == 2
    again.release()
    contexts.release()
    assert in_use() == 0
    assert acquisitions() == before + 4
    assert not set(_addresses_in_use()) & set(again.addresses or ())


def _addresses_in_use() -> list[int]:
    from fastlb import tls_contexts

    return [one.address for one in tls_contexts._known.values()]


@pytest.mark.parametrize("change", ["empty", "cut", "garbage", "one less", "one more"])
def test_contexts_that_cannot_be_made_are_none_and_say_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str
) -> None:
    data, count = material(Authority(tmp_path), "a.test")
    before = _addresses_in_use()
    data = {"empty": b"", "cut": data[:-1], "garbage": b"\xc1" + data}.get(change, data)
    count += {"one less": -1, "one more": 1}.get(change, 0)
    assert Contexts(data, count).addresses is None
    assert _addresses_in_use() == before
    assert in_use() == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastlb: error: TLS cannot be set up: ")
    assert lines[0].endswith("[FLB-S111]")


def test_each_failure_of_contexts_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert Contexts(b"", 1).addresses is None
    assert len(capfd.readouterr().err.splitlines()) == 2


# --- the subject of a client's certificate ---


def subject_of(tmp_path: Path, *attributes: tuple[x509.ObjectIdentifier, str]) -> bytes:
    authority = Authority(tmp_path)
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])
    pair = authority.certificate("nobody", client=True, subject=name)
    server = authority.certificate("shop.test")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(server.made)
    context.use_privatekey(server.key)
    context.set_verify(SSL.VERIFY_PEER)
    context.get_cert_store().add_cert(crypto.X509.from_cryptography(authority.made))
    met = meet(context, client(pair=pair))
    before = acquisitions()
    whole = peer_subject(met.address)
    assert peer_subject(met.address, len(whole)) == whole
    assert peer_subject(met.address, len(whole) - 1) == b""
    assert acquisitions() == before + 3
    return whole


def test_the_subject_is_that_of_rfc_4514(tmp_path: Path) -> None:
    found = subject_of(
        tmp_path,
        (NameOID.COUNTRY_NAME, "NL"),
        (NameOID.ORGANIZATION_NAME, "Foo, Bar"),
        (NameOID.COMMON_NAME, "alice"),
    )
    assert found == b"CN=alice,O=Foo\\, Bar,C=NL"


def test_a_subject_is_no_line_end_and_all_ascii(tmp_path: Path) -> None:
    """Whoever signs certificates must not be able to add fields to requests."""
    found = subject_of(tmp_path, (NameOID.COMMON_NAME, "a\r\nX-Admin: b\x7f\u00fc"))
    assert found == b"CN=a\\0D\\0AX-Admin: b\\7F\\C3\\BC"


def test_no_certificate_is_no_subject(tmp_path: Path) -> None:
    server = Authority(tmp_path).certificate("shop.test")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(server.made)
    context.use_privatekey(server.key)
    assert peer_subject(meet(context, client()).address) == b""
