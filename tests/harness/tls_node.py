"""A TLS node in Python: an HttpNode behind a handshake, with a session cache and ticket keys that
no other node has, as real servers have unless somebody shares them.

    with TlsNode("a", pem, version="1.2", tickets=False) as a: ...

It counts its handshakes, full and resumed, and says in each answer which of both its connection
was: so a resumption is believed only where the node itself says so.
"""

import contextlib
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

from .node import Connection, Exchange, HttpNode

VERSIONS = {
    "1.2": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "1.3": (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
    "any": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
}


class PoliteSocket(ssl.SSLSocket):
    """Closes with a close_notify of its own: OpenSSL forgets the session of a connection that
    ended without (RFC 2246 wanted that, no server does it)."""

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0)
            self.unwrap()
        super().close()


class TlsNode(HttpNode):
    """`pem` is a private key and its certificate; `version` "1.2", "1.3" or "any"; `curve` the
    only group that it takes (a TLS 1.3 client that guessed another one is asked again).
    `one_by_one`: a handshake begins when the one before is over, as in an event loop; else a client
    may be back before the thread that made its session has stored it."""

    def __init__(
        self,
        name: str,
        pem: bytes,
        *extra: tuple[str, str],
        version: str = "any",
        tickets: bool = True,
        alpn: tuple[str, ...] = (),
        curve: str | None = None,
        client_ca: bytes | None = None,
        one_by_one: bool = False,
        host: str | None = None,
    ):
        super().__init__(name, *extra, host=host)
        self._turn = threading.Lock() if one_by_one else contextlib.nullcontext()
        self.pem = pem
        self.version = version
        self.tickets = tickets
        self.alpn = alpn
        self.curve = curve
        self.client_ca = client_ca
        self.handshakes: list[dict[str, Any]] = []
        self.failed: list[ssl.SSLError | OSError] = []
        self.forget()

    def forget(self) -> None:
        """No session that it granted before is resumed any more: what a restart does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = VERSIONS[self.version]
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.pem)
            file.flush()
            context.load_cert_chain(Path(file.name))
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        if not self.tickets:
            context.options |= ssl.OP_NO_TICKET
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        if self.curve:
            context.set_ecdh_curve(self.curve)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.client_ca.decode())
        context.sslsocket_class = PoliteSocket
        context.sni_callback = self._note_name
        self.context = context

    def _note_name(self, sock: ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        sock.asked_for = name  # type: ignore[attr-defined]

    def _serve(self, connection: Connection) -> None:
        try:
            with self._turn:
                sock = self.context.wrap_socket(connection.sock, server_side=True)
        except (ssl.SSLError, OSError) as error:
            self.failed.append(error)
            connection.finish("reset")
            return
        connection.sock = connection.reader.sock = sock
        peer = sock.getpeercert() or {}
        about = {
            "reused": sock.session_reused,
            "version": sock.version(),
            "sni": getattr(sock, "asked_for", None),
            "alpn": sock.selected_alpn_protocol(),
            "subject": peer.get("subject"),
            "peer": connection.peer[0],
        }
        with self._lock:
            self.handshakes.append(about)
        _here.about = about
        super()._serve(connection)

    def _answer(self, exchange: Exchange) -> None:
        super()._answer(exchange)
        if exchange.request.get("Connection") == b"close":
            exchange.close()

    def account(self, message: Any) -> dict[str, Any]:
        return {**super().account(message), **_here.about}

    @property
    def reused(self) -> int:
        return sum(each["reused"] for each in self.handshakes)

    @property
    def full(self) -> int:
        return len(self.handshakes) - self.reused


_here = threading.local()  # each connection has its thread
