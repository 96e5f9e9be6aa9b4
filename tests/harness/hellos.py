"""ClientHellos of real clients: what each sends first, to anybody who listens."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from .client import curl
from .tls_client import client_context, gnutls, openssl
from .wait import TIMEOUT


def recorded(talk: Callable[[tuple[str, int]], object]) -> bytes:
    """The first records of the client that `talk` runs; it is hung up on."""
    found: list[bytes] = []

    def listen() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(TIMEOUT)
            data = b""
            while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
                more = peer.recv(65536)
                assert more, "the client ended within its ClientHello"
                data += more
            found.append(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=listen)
        thread.start()
        with suppress(OSError):
            talk(listener.getsockname())
        thread.join(TIMEOUT)
    (data,) = found
    return data


def _python(address: tuple[str, int]) -> None:
    with socket.create_connection(address, TIMEOUT) as sock:
        client_context().wrap_socket(sock, server_hostname="www.example.com")


def _curl(address: tuple[str, int]) -> None:
    host, port = address
    resolve = f"www.example.com:{port}:{host}"
    curl("-k", "--resolve", resolve, f"https://www.example.com:{port}/")


NAMED = ("-servername", "www.example.com")
KINDS: dict[str, Callable[[tuple[str, int]], object]] = {
    "openssl 1.2": lambda address: openssl(address, "-tls1_2", *NAMED),
    "openssl 1.2 without tickets": lambda address: openssl(address, "-tls1_2", "-no_ticket"),
    "openssl 1.3": lambda address: openssl(address, "-tls1_3", *NAMED, "-alpn", "h2,http/1.1"),
    "gnutls": lambda address: gnutls(address, "--sni-hostname", "www.example.com"),
    "curl": _curl,
    "python": _python,
}


@cache
def hello_of(kind: str) -> bytes:
    return recorded(KINDS[kind])
