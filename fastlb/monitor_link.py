"""One connection of a monitor to a node: made, introduced by a PROXY header, over TLS or plain.

Who answers wrongly, refuses or resets has Failed. What this machine has no room for (descriptors,
ports, memory) says nothing of the node: NotDone.
"""

import asyncio
import errno
import socket
from typing import NamedTuple, Protocol

from fastlb.config import Monitor
from fastlb.slots import NodeKey
from fastlb.tls_material import NodeTls

PROXY_LOCAL = {  # the connection is the proxy's own (PROXY protocol 2.1, 2.2)
    "off": b"",
    "v1": b"PROXY UNKNOWN\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
}
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
READ_BYTES = 16 << 10


class Failed(Exception):
    """The node has not passed the check; the text says why."""


class NotDone(Exception):
    """The check could not be carried out; the text says why."""


class Target(NamedTuple):
    """What is checked of one node, and how it is reached."""

    monitor: Monitor
    key: NodeKey
    name: str  # host name of the node, else its address; without port
    proxy_protocol: str = "off"
    tls: NodeTls | None = None  # None: plain


class Link(Protocol):
    """An open connection."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """The next bytes; none at its end."""

    def close(self) -> None: ...


class PlainLink:
    """Over a socket of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        return await self.loop.sock_recv(self.sock, READ_BYTES)

    def close(self) -> None:
        self.sock.close()


async def connect(target: Target) -> PlainLink:
    """A connection, with the PROXY header sent where the node expects one."""
    family = socket.AF_INET6 if ":" in target.key.ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    link = PlainLink(sock)
    try:
        port = target.monitor.port or target.key.port
        await link.loop.sock_connect(sock, (target.key.ip, port))
        if header := PROXY_LOCAL[target.proxy_protocol]:
            await link.send(header)
    except BaseException:
        link.close()
        raise
    return link


async def open_link(target: Target) -> Link:
    """The same, with the TLS handshake done where there is one."""
    link = await connect(target)
    if target.tls is None:
        return link
    from fastlb.monitor_tls import TlsLink  # and the TLS library

    secured = TlsLink(link, target.tls, target.monitor.host or target.name)
    try:
        await secured.handshake()
    except BaseException:
        link.close()
        raise
    return secured


def reason_of(error: OSError) -> str:
    """What an error of the system means for a check, in words. Raises NotDone."""
    if error.errno in OURS:
        raise NotDone(error.strerror or str(error)) from None
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    return (error.strerror or str(error)).lower()


async def check_tcp(target: Target) -> str:
    """Type "tcp": whether somebody takes connections."""
    (await connect(target)).close()
    return "connected"


async def check_tls(target: Target) -> str:
    """Type "tls": whether a handshake comes to its end."""
    (await open_link(target)).close()
    return "handshake done"
