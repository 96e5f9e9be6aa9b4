"""Real handshakes, recorded: Python's ssl on both sides, over memory BIOs."""

import datetime
import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Recorded:
    """All bytes of either side of one handshake, and what both sides say of it."""

    client: bytes
    server: bytes
    session: ssl.SSLSession | None
    reused: bool


@cache
def certificate() -> bytes:
    """PEM of a key and a certificate for www.example.com that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + made.public_bytes(serialization.Encoding.PEM)


@cache
def server_context(version: str, tickets: bool = True) -> ssl.SSLContext:
    """A context for `version` "1.2" or "1.3"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "both.pem")
        pem.write_bytes(certificate())
        context.load_cert_chain(pem)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return context


@cache
def client_context(version: str) -> ssl.SSLContext:
    """What a client may speak: up to `version`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def handshake(
    server: str = "1.2",
    client: str = "1.2",
    tickets: bool = True,
    name: str | None = "www.example.com",
    session: ssl.SSLSession | None = None,
) -> Recorded:
    """One handshake to its end, and a byte of data each way."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client_context(client).wrap_bio(
        to_client, to_server, server_hostname=name, session=session
    )
    theirs = server_context(server, tickets).wrap_bio(to_server, to_client, server_side=True)
    sent, answered = bytearray(), bytearray()
    done = [False, False]
    while not all(done):
        for side, one in enumerate((ours, theirs)):
            try:
                one.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                pass
            _carry(to_server, sent)
            _carry(to_client, answered)
    theirs.write(b"x")
    _carry(to_client, answered)
    ours.read(1)  # a TLS 1.3 ticket comes with the first data
    with suppress(ssl.SSLWantReadError):
        theirs.unwrap()  # a session that is not closed in order is forgotten
    return Recorded(bytes(sent), bytes(answered), ours.session, bool(ours.session_reused))


def _carry(bio: ssl.MemoryBIO, record: bytearray) -> None:
    data = bio.read()
    record += data
    bio.write(data)


# --- made by hand ---


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(data, 2)


def sni(name: bytes) -> bytes:
    return extension(0, vector(b"\0" + vector(name, 2), 2))


def client_hello(
    session_id: bytes = b"",
    extensions: bytes | None = b"",
    version: bytes = b"\x03\x03",
    ciphers: bytes = b"\xc0\x2b",
    compression: bytes = b"\0",
) -> bytes:
    """The message with its header; `extensions` None: the field is not there at all."""
    body = version + bytes(32) + vector(session_id, 1) + vector(ciphers, 2)
    body += vector(compression, 1)
    if extensions is not None:
        body += vector(extensions, 2)
    return b"\x01" + vector(body, 3)


def records(message: bytes, *sizes: int) -> bytes:
    """In records of these payload sizes; what is left over in one more."""
    out = b""
    for size in sizes:
        if message:
            out += b"\x16\x03\x01" + vector(message[:size], 2)
        message = message[size:]
    return out + (b"\x16\x03\x01" + vector(message, 2) if message else b"")


def server_flight(session_id: bytes = b"", ticket: bytes | None = None, done: bool = True) -> bytes:
    """A TLS 1.2 server's side; with `done` to its ChangeCipherSpec and what is encrypted then."""
    hello = b"\x03\x03" + bytes(32) + vector(session_id, 1) + b"\xc0\x2b\0" + vector(b"", 2)
    out = b"\x02" + vector(hello, 3) + b"\x0e\0\0\0"
    if ticket is not None:
        out += b"\x04" + vector(b"\0\0\x1c\x20" + vector(ticket, 2), 3)
    data = b"\x16\x03\x03" + vector(out, 2)
    return data + (b"\x14\x03\x03\0\x01\x01\x16\x03\x03\0\x28" + bytes(40) if done else b"")
