"""Authorities, chains, certificates of servers and clients, and OCSP responses, in files.

    authority = Authority(tmp_path)
    shop = authority.certificate("shop.test", "*.shop.test")
    server={"protocol": "https", "tls": {"certificates": [shop.table()]}}

`authority.file` is what a client has to trust. RSA keys take a while to find, so one of each size
serves a whole session, unless `key` brings another; elliptic ones are always new.
"""

import datetime
import ipaddress
import itertools
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_numbers = itertools.count(1)


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def new_key(kind: str = "ec") -> PrivateKey:
    """`kind`: "ec" (P-256), "ec384", "ed25519", "rsa" (2048), or "rsa1024" and the like."""
    if kind.startswith("rsa"):
        return rsa_key(int(kind[3:] or 2048))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if kind == "ec384" else ec.SECP256R1())


def pem_of_key(key: PrivateKey, passphrase: str | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


@dataclass
class Pair:
    """A certificate with its chain in one file, its key in another."""

    certificate_path: Path
    key_path: Path
    made: x509.Certificate
    key: PrivateKey
    chain: list[x509.Certificate]
    passphrase_path: Path | None = None

    def table(self, **more: Any) -> dict[str, Any]:
        """As in `tls.certificates`, and for pools in `tls`."""
        table = {"certificate": str(self.certificate_path), "key": str(self.key_path), **more}
        if self.passphrase_path is not None:
            table["key_passphrase_file"] = str(self.passphrase_path)
        return table

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as `ssl.SSLSocket.getpeercert(True)` hashed."""
        return self.made.fingerprint(hashes.SHA256()).hex()


@dataclass
class Authority:
    """Signs certificates, and writes them into `folder`."""

    folder: Path
    name: str = "fastlb test authority"
    issuer: "Authority | None" = None
    key: PrivateKey = field(default_factory=new_key)
    made: x509.Certificate = field(init=False)
    file: Path = field(init=False)

    def __post_init__(self) -> None:
        signer = self.issuer or self
        builder = _builder(self.name, signer.name, self.key, 3650, 3650)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        self.made = builder.add_extension(_key_usage(True), critical=True).sign(
            signer.key, _hash_for(signer.key)
        )
        self.file = self.folder / f"ca-{next(_numbers)}.pem"
        self.file.write_bytes(pem_of(self.made))

    def intermediate(self, name: str = "fastlb test intermediate") -> "Authority":
        return Authority(self.folder, name, self)

    def certificate(
        self,
        *names: str,
        key: str | PrivateKey = "ec",
        days: float = 30,
        begins: float = -1,
        passphrase: str | None = None,
        intermediate: bool = False,
        client: bool = False,
        common_name: str | None = None,
        subject: x509.Name | None = None,
        file: str | None = None,
    ) -> Pair:
        """For these server names; valid from `begins` to `days`, both in days from now. `client`:
        the first name is who it is. `file`: the name of its files, which another call replaces."""
        if intermediate:
            return self.intermediate().certificate(
                *names, key=key, days=days, begins=begins, passphrase=passphrase, client=client,
                common_name=common_name, subject=subject, file=file,
            )  # fmt: skip
        private = new_key(key) if isinstance(key, str) else key
        who = common_name if common_name is not None else (names[0] if names else "nobody")
        builder = _builder(who, self.name, private, days, -begins, subject)
        if names and not client:
            sans = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(sans, critical=False)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signed = builder.sign(self.key, _hash_for(self.key))
        chain = [self.made] if self.issuer is not None else []
        return self._written(signed, private, chain, passphrase, file)

    def _written(
        self,
        signed: x509.Certificate,
        private: PrivateKey,
        chain: list[x509.Certificate],
        passphrase: str | None,
        file: str | None,
    ) -> Pair:
        base = self.folder / (file or f"certificate-{next(_numbers)}")
        pair = Pair(base.with_suffix(".pem"), base.with_suffix(".key"), signed, private, chain)
        pair.certificate_path.write_bytes(pem_of(signed, *chain))
        pair.key_path.write_bytes(pem_of_key(private, passphrase))
        pair.key_path.chmod(0o600)
        if passphrase is not None:
            pair.passphrase_path = base.with_suffix(".passphrase")
            pair.passphrase_path.write_text(f"{passphrase}\n")
            pair.passphrase_path.chmod(0o600)
        return pair

    def ocsp(
        self,
        pair: Pair,
        days: float | None = 7,
        begins: float = -1,
        status: str = "good",
        file: str | None = None,
    ) -> Path:
        """A file with an OCSP response (DER) for what this authority signed; `days` until its
        nextUpdate, None: it has none; `status`: "good", "revoked"."""
        now = datetime.datetime.now(datetime.UTC)
        revoked = status == "revoked"
        response = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=pair.made,
                issuer=self.made,
                algorithm=hashes.SHA1(),  # what responders use (RFC 5019)
                cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
                this_update=now + datetime.timedelta(days=begins),
                next_update=None if days is None else now + datetime.timedelta(days=days),
                revocation_time=now - datetime.timedelta(days=2) if revoked else None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.made)
            .sign(self.key, _hash_for(self.key))
        )
        path = self.folder / (file or f"ocsp-{next(_numbers)}.der")
        path.write_bytes(response.public_bytes(serialization.Encoding.DER))
        return path


def _hash_for(key: PrivateKey) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _key_usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)


def _builder(
    name: str,
    issuer: str,
    key: PrivateKey,
    days: float,
    age: float,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    named = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    return (
        x509.CertificateBuilder()
        .subject_name(subject if subject is not None else x509.Name(named))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=age))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
