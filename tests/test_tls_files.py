"""Certificates, keys, authorities and OCSP responses in files: what is taken, refused, doubted."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from fastlb import certificates, tls_files
from fastlb.check import Checked, check_file
from fastlb.config import Config
from fastlb.errors import StartError
from fastlb.tls_files import load_tls
from fastlb.tls_material import TlsFiles
from tests.harness.certificates import Authority, Pair, new_key, pem_of, pem_of_key
from tests.harness.settings import toml

MESSAGES = range(120, 137)  # those of this module, by the number of their code


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def checked(folder: Path, tls: dict[str, Any] | None, pool_tls: Any = None) -> Checked:
    """What `check` says of a configuration with these tables."""
    pool: dict[str, Any] = {"nodes": ["127.0.0.1:82"]}
    server: dict[str, Any] = {"listen": ["127.0.0.1:443"], "pool": "web"}
    if tls is not None:
        server |= {"protocol": "https", "tls": tls}
    if pool_tls is not None:
        pool["tls"] = pool_tls
    file = folder / "fastlb.toml"
    file.write_text(toml({"virtual_servers": {"shop": server}, "pools": {"web": pool}}))
    return check_file(file)


def said(folder: Path, tls: dict[str, Any] | None, pool_tls: Any = None) -> list[str]:
    """Code, key and text of each problem."""
    found = checked(folder, tls, pool_tls)
    return [f"{one.code} {one.key}: {one.text}" for one in (*found.errors, *found.warnings)]


def of(pair: Pair, **more: Any) -> dict[str, Any]:
    return {"certificates": [pair.table()], **more}


def loaded(folder: Path, tls: dict[str, Any] | None, pool_tls: Any = None) -> TlsFiles:
    config = checked(folder, tls, pool_tls).config
    assert config is not None
    return load_tls(config)


def only(found: list[str], code: int, *words: str) -> None:
    assert len(found) == 1, found
    assert found[0].startswith(f"FLB-C{code} "), found
    for word in words:
        assert word in found[0], found


# --- what is taken ---


def test_what_is_in_order_says_nothing_and_reaches_the_plan(authority: Authority) -> None:
    pairs = [
        authority.certificate("shop.test", "*.Shop.test"),
        authority.certificate("api.test", key="rsa", intermediate=True),
        authority.certificate("old.test", passphrase="two words", key="ec384"),
        authority.certificate("edwards.test", key="ed25519"),
    ]
    tls = {"certificates": [pair.table() for pair in pairs]}
    assert said(authority.folder, tls) == []
    files = loaded(authority.folder, tls)
    assert files.names == {
        "shop": {
            "shop.test": 0, "*.shop.test": 0, "api.test": 1, "old.test": 2, "edwards.test": 3,
        }
    }  # fmt: skip
    assert files.first == {"shop": 0}
    for pair, found in zip(pairs, files.material.certificates, strict=True):
        assert found.chain == tuple(map(certificates.der_of, (pair.made, *pair.chain)))
        key = serialization.load_der_private_key(found.key, None)
        assert certificates.belongs(key, pair.made)


def test_key_and_chain_may_share_a_file(authority: Authority) -> None:
    pair = authority.certificate("shop.test", intermediate=True)
    both = authority.folder / "both.pem"
    both.write_bytes(pem_of_key(pair.key) + pem_of(pair.made, *pair.chain))
    both.chmod(0o600)
    table = {"certificate": str(both), "key": str(both)}
    assert said(authority.folder, {"certificates": [table]}) == []


@pytest.mark.parametrize("form", ["TraditionalOpenSSL", "PKCS8"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_forms_of_keys(authority: Authority, form: str, kind: str) -> None:
    pair = authority.certificate("shop.test", key=kind)
    pair.key_path.write_bytes(
        b"# a comment\n"
        + pair.key.private_bytes(
            serialization.Encoding.PEM,
            getattr(serialization.PrivateFormat, form),
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    passphrase = authority.folder / "passphrase"
    passphrase.write_bytes(b"secret\r\nanother line\n")
    table = pair.table(key_passphrase_file=str(passphrase))
    assert said(authority.folder, {"certificates": [table]}) == []


def test_a_passphrase_for_a_key_that_needs_none_is_passed_over(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    passphrase = authority.folder / "passphrase"
    passphrase.write_text("not needed\n")
    table = pair.table(key_passphrase_file=str(passphrase))
    assert said(authority.folder, {"certificates": [table]}) == []


# --- what is refused ---


def test_files_that_cannot_be_read(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    tls = {"certificates": [{"certificate": "no.pem", "key": "no.key", "ocsp": "no.der"}]}
    found = said(authority.folder, tls)
    assert [line.split(":")[0] for line in found] == [
        "FLB-C120 tls.certificates[0].certificate", "FLB-C120 tls.certificates[0].key",
    ]  # fmt: skip
    assert all(line.endswith("No such file or directory") for line in found)
    os.mkfifo(authority.folder / "pipe")
    table = pair.table() | {"certificate": "pipe"}
    only(said(authority.folder, {"certificates": [table]}), 120, "not a regular file")
    only(said(authority.folder, of(pair) | of(pair, client_ca="no.pem") | ASKED), 120, "client_ca")
    table = pair.table(ocsp="no.der")
    only(said(authority.folder, {"certificates": [table]}), 120, "[0].ocsp", "No such file")


ASKED = {"client_certificates": "optional"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no certificate in it; expected PEM"),
        (b"hello", "no certificate in it; expected PEM"),
        (pem_of_key(new_key()), 'expected PEM, found "PRIVATE KEY"'),
        (b"\x30\x82\x01\x00", "openssl x509 -inform der"),
        (b"-----BEGIN CERTIFICATE-----\n*!\n-----END CERTIFICATE-----\n", "certificate 1"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "no certificate in it"),
    ],
)
def test_what_is_no_certificate(authority: Authority, data: bytes, words: str) -> None:
    pair = authority.certificate("shop.test")
    pair.certificate_path.write_bytes(data)
    only(said(authority.folder, of(pair)), 120, "[0].certificate: ", words)


def test_a_damaged_certificate_behind_a_good_one(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    with pair.certificate_path.open("ab") as file:
        file.write(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    only(said(authority.folder, of(pair)), 120, "certificate 2 in it is damaged")


def test_a_file_that_is_far_too_large(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.certificate("shop.test")
    monkeypatch.setattr(tls_files, "FILE_BYTES_MAX", 1 << 20)
    pair.certificate_path.write_bytes(pem_of(pair.made) + bytes(1 << 20))
    only(said(authority.folder, of(pair)), 120, "larger than 1 MiB")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no private key in it; expected PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the key is damaged"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", 'found "PUBLIC KEY"'),
        (pem_of_key(new_key(), "secret"), "encrypted; expected key_passphrase_file"),
    ],
)
def test_what_is_no_key(authority: Authority, data: bytes, words: str) -> None:
    pair = authority.certificate("shop.test")
    pair.key_path.write_bytes(data)
    only(said(authority.folder, of(pair)), 120, "[0].key: ", words)


def test_passphrases_that_do_not_fit(authority: Authority) -> None:
    pair = authority.certificate("shop.test", passphrase="right")
    assert pair.passphrase_path is not None
    pair.passphrase_path.write_text("wrong\nright\n")
    only(said(authority.folder, of(pair)), 120, "[0].key: ", "the passphrase is not that of")
    pair.passphrase_path.write_text("\nright\n")
    only(said(authority.folder, of(pair)), 120, "[0].key_passphrase_file: ", "first line is empty")
    pair.passphrase_path.unlink()
    only(said(authority.folder, of(pair)), 120, "[0].key_passphrase_file: ", "No such file")


def test_a_key_of_another_certificate(authority: Authority) -> None:
    pair, other = authority.certificate("shop.test"), authority.certificate("other.test")
    table = {"certificate": str(pair.certificate_path), "key": str(other.key_path)}
    only(said(authority.folder, {"certificates": [table]}), 121, "tls.certificates[0].key: ")


def test_a_file_without_a_key_is_not_said_to_be_open_to_all(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    pair.certificate_path.chmod(0o644)
    table = pair.table() | {"key": str(pair.certificate_path)}
    only(said(authority.folder, {"certificates": [table]}), 120, "[0].key: ", "no private key")


@pytest.mark.parametrize("key", ["ciphers", "ciphersuites"])
def test_ciphers_that_nobody_knows(authority: Authority, key: str) -> None:
    pair = authority.certificate("shop.test")
    only(said(authority.folder, of(pair, **{key: "NONE"})), 122, f"tls.{key}: ", '"NONE"')


def test_suites_among_the_ciphers(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    found = said(authority.folder, of(pair, ciphers="TLS_AES_128_GCM_SHA256"))
    only(found, 122, "tls.ciphers: ", "belong into ciphersuites")


def test_what_the_library_refuses(authority: Authority) -> None:
    pair = authority.certificate("shop.test", key="rsa1024")
    found = said(authority.folder, of(pair))
    assert len(found) == 2, found
    assert found[0].startswith("FLB-C123 tls.certificates[0].certificate: ")
    assert "key too small" in found[0]
    only(found[1:], 133, "its key has 1024 bits; expected at least 2048")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"ciphers": "ECDHE+AESGCM:ECDHE+NOTHING"}, '"ECDHE+NOTHING"'),
        ({"ciphers": "AES:no:nor-this"}, '"no, nor-this"'),
        ({"ciphersuites": "TLS_AES_128_GCM_SHA256:TLS_NONE"}, '"TLS_NONE"'),
        ({"ciphers": "TLS_AES_128_GCM_SHA256"}, '"TLS_AES_128_GCM_SHA256"'),
        ({"ciphers": "AES128:!ALL"}, '"AES128:!ALL"'),
    ],
)
def test_ciphers_that_the_library_does_not_know(
    authority: Authority, keys: dict[str, str], named: str
) -> None:
    pair = authority.certificate("shop.test")
    found = said(authority.folder, of(pair, **keys))
    (key,) = keys
    assert found[0].startswith(f"FLB-C122 tls.{key}: {named} is nothing that OpenSSL")


def test_ciphers_that_it_knows(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    ciphers = "ECDHE+AESGCM:+AES256:!aNULL:!NOTHING:@STRENGTH"
    assert said(authority.folder, of(pair, ciphers=ciphers)) == []


def test_start_and_reload_refuse_with_all_that_is_wrong(authority: Authority) -> None:
    pair, other = authority.certificate("shop.test"), authority.certificate("api.test")
    tls = {"certificates": [pair.table(), other.table()]}
    config = checked(authority.folder, tls).config
    assert config is not None
    pair.key_path.unlink()
    other.certificate_path.write_bytes(b"")
    with pytest.raises(StartError) as error:
        load_tls(config)
    assert error.value.lines == [
        f"[virtual_servers.shop] tls.certificates[0].key: {pair.key_path}: No such file or "
        "directory [FLB-S112]",
        f"[virtual_servers.shop] tls.certificates[1].certificate: {other.certificate_path}: no "
        "certificate in it; expected PEM [FLB-S112]",
    ]


# --- what is doubtful ---


def test_dates(authority: Authority) -> None:
    expired = authority.certificate("shop.test", begins=-9, days=-2)
    only(said(authority.folder, of(expired)), 132, "certificate 1 in it expired on ")
    early = authority.certificate("shop.test", begins=2, days=9)
    only(said(authority.folder, of(early)), 132, "is not valid before ")


def test_orders_of_chains(authority: Authority) -> None:
    pair = authority.certificate("shop.test", intermediate=True)
    (middle,), root = pair.chain, authority.made
    pair.certificate_path.write_bytes(pem_of(pair.made, middle, root))
    assert said(authority.folder, of(pair)) == []
    pair.certificate_path.write_bytes(pem_of(pair.made, root, middle))
    only(said(authority.folder, of(pair)), 134, "certificate 2 in it did not sign certificate 1")
    pair.certificate_path.write_bytes(pem_of(middle, pair.made))
    only(said(authority.folder, of(pair)), 134, "number 2 in it; expected it first")
    found = loaded(authority.folder, of(pair)).material.certificates[0]
    assert found.chain == (certificates.der_of(pair.made), certificates.der_of(middle))


def test_a_chain_without_its_issuer(authority: Authority) -> None:
    """Only where the certificate says that there is one: a private authority's is known to all."""
    pair = authority.certificate("shop.test")
    assert said(authority.folder, of(pair)) == []
    where = x509.UniformResourceIdentifier("http://ca.test/ca.der")
    issuers = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
    signed = _resigned(authority, pair, x509.AuthorityInformationAccess([issuers]))
    pair.certificate_path.write_bytes(pem_of(signed))
    only(said(authority.folder, of(pair)), 134, "the certificate of its issuer", "is not in it")


def _resigned(authority: Authority, pair: Pair, *extensions: Any) -> x509.Certificate:
    """The pair's certificate with these extensions alone."""
    made = pair.made
    builder = x509.CertificateBuilder(
        made.issuer, made.subject, made.public_key(), made.serial_number,
        made.not_valid_before_utc, made.not_valid_after_utc,
    )  # fmt: skip
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for extension in (names, *extensions):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.key, hashes.SHA256())  # type: ignore[arg-type]


def test_certificates_that_name_no_server(authority: Authority) -> None:
    nameless = authority.certificate(common_name="An Organisation")
    only(said(authority.folder, of(nameless)), 131, "clients that look at names refuse it")
    common = authority.certificate(common_name="Shop.test")
    only(said(authority.folder, of(common)), 131, "shown for its common name, shop.test")
    assert loaded(authority.folder, of(common)).names == {"shop": {"shop.test": 0}}


def test_names_that_no_server_has(authority: Authority) -> None:
    """Patterns that are none of RFC 9525 6.3, and what would be wrong to look for."""
    names = ("a.test", "*", "f*.test", "*.*.test", "a..test", "b.test.", "xn--bcher-kva.test")
    pair = authority.certificate(*names, common_name="c.test")
    assert certificates.server_names(pair.made) == ["a.test", "b.test", "xn--bcher-kva.test"]


def test_two_certificates_for_one_name(authority: Authority) -> None:
    first = authority.certificate("shop.test", "a.test", "b.test")
    second = authority.certificate("b.test", "SHOP.test", "c.test")
    tls = {"certificates": [first.table(), second.table()]}
    found = said(authority.folder, tls)
    only(found, 130, "[1].certificate: b.test, shop.test are in ", str(first.certificate_path))
    names = loaded(authority.folder, tls).names["shop"]
    assert names == {"shop.test": 0, "a.test": 0, "b.test": 0, "c.test": 1}


def test_virtual_servers_may_share_a_name(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    server = {"protocol": "https", "pool": "web", "tls": of(pair)}
    servers = {
        name: server | {"listen": [f"127.0.0.1:{port}"]} for name, port in (("a", 1), ("b", 2))
    }
    file = authority.folder / "fastlb.toml"
    file.write_text(toml({"virtual_servers": servers, "pools": {"web": {"nodes": []}}}))
    found = check_file(file)
    assert isinstance(found.config, Config)
    assert [one.code for one in found.warnings] == ["FLB-C061"]
    files = load_tls(found.config)
    assert files.names == {"a": {"shop.test": 0}, "b": {"shop.test": 1}}
    assert files.first == {"a": 0, "b": 1}


def test_a_key_that_everybody_may_read(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    pair.key_path.chmod(0o644)
    only(said(authority.folder, of(pair)), 136, f"chmod o= {pair.key_path}")
    pair.key_path.chmod(0o640)
    assert said(authority.folder, of(pair)) == []


# --- OCSP ---


def stapled(authority: Authority, pair: Pair, file: Path) -> list[str]:
    return said(authority.folder, {"certificates": [pair.table(ocsp=str(file))]})


def test_a_response_is_stapled_until_its_next_update(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    file = authority.ocsp(pair, days=3)
    assert stapled(authority, pair, file) == []
    tls = {"certificates": [pair.table(ocsp=str(file))]}
    found = loaded(authority.folder, tls).material.certificates[0]
    assert found.ocsp == file.read_bytes()
    until = datetime.datetime.fromtimestamp(found.ocsp_until_s, datetime.UTC)
    assert until - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=2)
    file = authority.ocsp(pair, days=None)
    assert stapled(authority, pair, file) == []
    tls = {"certificates": [pair.table(ocsp=str(file))]}
    assert loaded(authority.folder, tls).material.certificates[0].ocsp_until_s == 0


def test_responses_that_are_not_stapled(authority: Authority) -> None:
    pair, other = authority.certificate("shop.test"), authority.certificate("other.test")
    for file, words in (
        (authority.ocsp(other), "it is for another certificate"),
        (authority.ocsp(pair, begins=-9, days=-2), "it held until "),
        (authority.ocsp(pair, begins=2, days=9), "it holds from "),
        (authority.ocsp(pair, status="revoked"), 'the certificate is "revoked"'),
        (pair.certificate_path, "not an OCSP response (DER)"),
        (_unsuccessful(authority.folder), '"try_later"'),
    ):
        only(stapled(authority, pair, file), 135, f"{file} is not stapled: ", words)
        tls = {"certificates": [pair.table(ocsp=str(file))]}
        assert loaded(authority.folder, tls).material.certificates[0].ocsp == b""


def test_a_response_of_another_authority_for_the_same_number(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    stranger = Authority(authority.folder, "another authority")
    signed = x509.CertificateBuilder(
        stranger.made.subject, pair.made.subject, pair.made.public_key(), pair.made.serial_number,
        pair.made.not_valid_before_utc, pair.made.not_valid_after_utc,
    ).sign(stranger.key, hashes.SHA256())  # type: ignore[arg-type]  # fmt: skip
    twin = Pair(pair.certificate_path, pair.key_path, signed, pair.key, [])
    only(stapled(authority, pair, stranger.ocsp(twin)), 135, "for another certificate")


def _unsuccessful(folder: Path) -> Path:
    response = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    file = folder / "try-later.der"
    file.write_bytes(response.public_bytes(serialization.Encoding.DER))
    return file


# --- authorities and nodes ---


def test_authorities_of_clients(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    tls = of(pair, client_ca=str(authority.file), client_certificates="required")
    assert said(authority.folder, tls) == []
    server = loaded(authority.folder, tls).material.servers[0]
    assert server.client_ca == (certificates.der_of(authority.made),)
    only(said(authority.folder, tls | {"client_ca": str(pair.key_path)}), 120, "client_ca")


def test_tls_towards_nodes(authority: Authority) -> None:
    own = authority.certificate("lb", client=True, key="rsa")
    tls = own.table(ca=str(authority.file), server_name="web.internal")
    assert said(authority.folder, None, tls) == []
    files = loaded(authority.folder, None, tls)
    (pool,) = files.material.pools
    assert files.pools == {"web": 0}
    assert files.material.authorities == ((certificates.der_of(authority.made),),)
    assert (pool.verify, pool.authorities, pool.server_name) == (True, 0, "web.internal")
    assert pool.chain == (certificates.der_of(own.made),)
    assert certificates.belongs(serialization.load_der_private_key(pool.key, None), own.made)


def test_files_of_pools_that_are_of_no_use(authority: Authority) -> None:
    own, other = authority.certificate("lb", client=True), authority.certificate("x", client=True)
    ca = {"ca": str(authority.file)}
    only(said(authority.folder, None, {"ca": "no.pem"}), 120, "tls.ca: ")
    table = own.table(**ca) | {"key": str(other.key_path)}
    only(said(authority.folder, None, table), 121, "tls.key: ")
    table = own.table(**ca) | {"certificate": "no.pem"}
    only(said(authority.folder, None, table), 120, "tls.certificate: ", "No such file")
    weak = authority.certificate("lb", client=True, key="rsa1024")
    only(said(authority.folder, None, weak.table(**ca)), 123, "tls.certificate: ", "too small")


def test_without_ca_the_machine_says_whom_it_trusts(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "BUNDLES", (authority.folder / "none", authority.file))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.folder / "none"))
    assert tls_files.system_bundle() == authority.file
    files = loaded(authority.folder, None, {"server_name": "web.internal"})
    assert files.material.authorities == ((certificates.der_of(authority.made),),)
    monkeypatch.setattr(tls_files, "BUNDLES", ())
    only(said(authority.folder, None, {}), 124, "tls: ", "expected ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.folder / "fastlb.toml"))
    only(said(authority.folder, None, {}), 120, "tls: ", "no certificate in it")


def test_nodes_that_are_not_verified_need_no_authority(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "system_bundle", lambda: None)
    found = said(authority.folder, None, {"verify": False})
    assert [line.split()[0] for line in found] == ["FLB-C114"]


def test_every_message_is_met_here() -> None:
    text = Path(__file__).read_text()
    for number in MESSAGES:
        if number not in range(125, 130):
            assert f" {number}, " in text or f"FLB-C{number} " in text, number


def test_subjects_do_not_matter_to_names() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "shop.test")])
    key = new_key()
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now).sign(
        key, hashes.SHA256()  # type: ignore[arg-type]
    )  # fmt: skip
    assert certificates.server_names(made) == []
