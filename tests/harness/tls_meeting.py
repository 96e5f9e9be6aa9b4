"""A TLS handshake in memory: one of our contexts, and Python's own ssl, which is another library.

met = meet(context, client("1.3"), name="shop.test")
assert met.reused
"""

import ssl
from contextlib import suppress
from typing import Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from .tls_client import trusting_context


def client(version: str = "any", tickets: bool = True, **more: Any) -> ssl.SSLContext:
    """A client's context that trusts everybody; `alpn`, `ciphers`, `pair` (its certificate)."""
    context = trusting_context(version, tickets)
    if "alpn" in more:
        context.set_alpn_protocols(more["alpn"])
    if "ciphers" in more:
        context.set_ciphers(more["ciphers"])
    if "pair" in more:
        context.load_cert_chain(more["pair"].certificate_path, more["pair"].key_path)
    return context


class Met:
    """What both sides say of a handshake that came to its end."""

    def __init__(self, ours: SSL.Connection, theirs: ssl.SSLObject) -> None:
        self.ours, self.theirs = ours, theirs
        self.reused = bool(theirs.session_reused)
        self.version = theirs.version()
        self.alpn = theirs.selected_alpn_protocol()
        self.session = theirs.session

    @property
    def address(self) -> int:
        """Of the server's SSL."""
        return int(_openssl.ffi.cast("uintptr_t", self.ours._ssl))

    def certificate(self) -> bytes:
        """DER, of the server."""
        return self.theirs.getpeercert(True) or b""


def meet(
    server: SSL.Context,
    client: ssl.SSLContext,
    name: str | None = "shop.test",
    session: ssl.SSLSession | None = None,
) -> Met:
    """The handshake, and the byte that brings tickets along; raises what either side has."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    ours = SSL.Connection(server, None)
    ours.set_accept_state()
    done = [False, False]
    while not all(done):
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
            done[0] = True
        _carry(ours, to_server, to_client)
        try:
            with suppress(SSL.WantReadError):
                ours.do_handshake()
                done[1] = True
        finally:
            _carry(ours, to_server, to_client)
            if not done[1]:
                with suppress(ssl.SSLWantReadError):
                    theirs.do_handshake()  # hears of an alert
    ours.send(b"x")
    _carry(ours, to_server, to_client)
    assert theirs.read(1) == b"x"
    ours.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
    met = Met(ours, theirs)
    with suppress(ssl.SSLWantReadError):
        theirs.unwrap()  # a session that is not closed in order is forgotten
    return met


def _carry(ours: SSL.Connection, to_server: ssl.MemoryBIO, to_client: ssl.MemoryBIO) -> None:
    data = to_server.read()
    if data:
        ours.bio_write(data)
    with suppress(SSL.WantReadError):
        to_client.write(ours.bio_read(1 << 16))
