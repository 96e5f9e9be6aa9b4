"""What is in the files of certificates: chains, keys, names, OCSP responses.

Each function takes bytes and gives what is in them, or raises Unusable with the reason. Nothing
here knows the configuration, or which file the bytes are from.
"""

import base64
import binascii
import datetime
import itertools
import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID, NameOID

PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----", re.DOTALL
)  # RFC 7468 3, and what is older
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
SERVER_NAME = re.compile(rf"(\*\.)?{LABEL}(\.{LABEL})*")
KEY_BITS_GOOD = {"RSA": 2048, "DSA": 2048, "EC": 224}


class Unusable(ValueError):
    """Why a file is of no use; `str()` goes behind its name."""


def certificates_in(data: bytes) -> list[x509.Certificate]:
    """In the order of the file."""
    found = []
    for der in certificate_ders(data):
        try:
            found.append(x509.load_der_x509_certificate(der))
        except ValueError as error:
            raise Unusable(f"certificate {len(found) + 1} in it is damaged: {error}") from None
    return found


def certificate_ders(data: bytes) -> list[bytes]:
    """The certificates as they are, read no further."""
    ders = []
    for kind, body in PEM.findall(data):
        if kind in (b"CERTIFICATE", b"X509 CERTIFICATE"):
            try:
                ders.append(base64.b64decode(b"".join(body.split()), validate=True))
            except binascii.Error:
                raise Unusable(f"certificate {len(ders) + 1} in it is damaged") from None
    if not ders:
        raise Unusable(f"no certificate in it; expected PEM{_instead(data)}")
    return ders


def _instead(data: bytes) -> str:
    kinds = dict.fromkeys(kind.decode() for kind, _ in PEM.findall(data))
    if kinds:
        return f', found "{", ".join(kinds)}"'
    if data.startswith(b"\x30\x82"):
        return ", found DER: `openssl x509 -inform der` makes PEM of it"
    return ""


def key_in(data: bytes, passphrase: bytes | None) -> Any:
    """The private key."""
    found = next((part for part in PEM.finditer(data) if part[1].endswith(b"PRIVATE KEY")), None)
    if found is None:
        raise Unusable(f"no private key in it; expected PEM{_instead(data)}")
    encrypted = found[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in found[2]
    if encrypted and passphrase is None:
        raise Unusable("the key is encrypted; expected key_passphrase_file beside it")
    try:
        return serialization.load_pem_private_key(
            found[0], passphrase if encrypted else None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError) as error:
        if encrypted:
            raise Unusable("the passphrase is not that of the key") from None
        raise Unusable(f"the key is damaged: {error}") from None
    except Exception as error:
        raise Unusable(f"a kind of key that cannot be used: {error}") from None


def passphrase_in(data: bytes) -> bytes:
    """The first line."""
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise Unusable("its first line is empty; expected the passphrase there")
    return line


def der_of_key(key: Any) -> bytes:
    der: bytes = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return der


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def belongs(key: Any, certificate: x509.Certificate) -> bool:
    """Whether it is the certificate's key."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        theirs = certificate.public_key().public_bytes(*form)
    except Exception:
        return False
    return bool(key.public_key().public_bytes(*form) == theirs)


def weakness(certificate: x509.Certificate) -> str | None:
    """What is weak in its key, by today's measure."""
    try:
        key: Any = certificate.public_key()
    except Exception as error:
        return f"is of a kind that is not known ({error})"
    bits = getattr(key, "key_size", None)
    kind = type(key).__name__.lstrip("_").removesuffix("PublicKey").upper()
    for name, good in KEY_BITS_GOOD.items():
        if kind.startswith(name) and bits is not None and bits < good:
            return f"has {bits} bits; expected at least {good}"
    return None


def server_names(certificate: x509.Certificate) -> list[str]:
    """The names that it is for, in lower case; "*.example.com" is for one label before. Empty
    when it names no server (RFC 9525: addresses are of no use to SNI)."""
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found = [str(one.value) for one in common]
    except ValueError:
        return []
    else:
        found = sans.get_values_for_type(x509.DNSName)
    names = [name.lower().removesuffix(".") for name in found]
    return list(dict.fromkeys(name for name in names if SERVER_NAME.fullmatch(name)))


def has_alternative_names(certificate: x509.Certificate) -> bool:
    """Whether it has the extension that clients look into; most ignore the common name."""
    try:
        certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return False
    except ValueError:
        pass
    return True


def chain_doubt(chain: list[x509.Certificate]) -> str | None:
    """What is wrong with the order of a chain, or missing in it."""
    for index, (one, issuer) in enumerate(itertools.pairwise(chain), 1):
        if not _signed_by(one, issuer):
            return (
                f"certificate {index + 1} in it did not sign certificate {index}; expected each "
                "to be followed by its issuer's"
            )
    last = chain[-1]
    if len(chain) == 1 and not _signed_by(last, last) and _says_where_issuer_is(last):
        return (
            f'the certificate of its issuer ("{last.issuer.rfc4514_string()}") is not in it, '
            "which clients may lack; expected the whole chain in the file"
        )
    return None


def _signed_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except Exception:
        return False
    return True


def _says_where_issuer_is(certificate: x509.Certificate) -> bool:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except (x509.ExtensionNotFound, ValueError):
        return False
    issuers = AuthorityInformationAccessOID.CA_ISSUERS
    return any(one.access_method == issuers for one in access.value)


def date_doubt(certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    """Whether it has expired, or is not valid yet."""
    if now >= certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def response_until(
    data: bytes, chain: list[x509.Certificate], now: datetime.datetime
) -> datetime.datetime | None:
    """Until when this OCSP response for the chain's first certificate may be stapled; None: it
    does not say. Raises Unusable where it may not."""
    try:
        response = ocsp.load_der_ocsp_response(data)
        status = response.response_status
    except ValueError as error:
        raise Unusable(f"not an OCSP response (DER): {error}") from None
    if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Unusable(f'the responder said "{status.name.lower()}" and nothing of a certificate')
    one = next((one for one in response.responses if _is_about(one, chain[0])), None)
    if one is None:
        raise Unusable("it is for another certificate")
    if one.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise Unusable(f'it says that the certificate is "{one.certificate_status.name.lower()}"')
    if now < one.this_update_utc:
        raise Unusable(f"it holds from {one.this_update_utc:%Y-%m-%d %H:%M} UTC on")
    if one.next_update_utc is not None and now >= one.next_update_utc:
        raise Unusable(f"it held until {one.next_update_utc:%Y-%m-%d %H:%M} UTC")
    return one.next_update_utc


def _is_about(one: Any, certificate: x509.Certificate) -> bool:
    if one.serial_number != certificate.serial_number:
        return False
    digest = hashes.Hash(one.hash_algorithm)
    digest.update(certificate.issuer.public_bytes())
    return bool(digest.finalize() == one.issuer_name_hash)
