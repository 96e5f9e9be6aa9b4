"""What the control process and a worker say to each other, over a socket of whole messages.

Each message is a header (kind, items, generation) and, for PLAN, `items` entries (listener id,
whether a descriptor comes with it). Descriptors travel beside it: the plan first, then one for
each entry that has one. Numbers are in the machine's own byte order.
"""

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("=IIQ")
ENTRY = struct.Struct("=II")
MESSAGE_BYTES_MAX = 4096


class Kind(IntEnum):
    """Below 100: to the worker; above: from it."""

    PLAN = 1
    STOP = 2  # generation: milliseconds to drain
    LOG = 3  # one descriptor; items: 1 for syslog
    ACK = 101  # generation: the plan that is now in force
    RELEASED = 102  # generation: no request uses an older plan any more
    REFUSED = 103  # generation: a plan that is not usable; the one before stays


class Message(NamedTuple):
    kind: int
    items: int
    generation: int


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """(control's end, non-blocking; worker's end)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    ours.setblocking(False)
    return ours, theirs


def send(
    channel: socket.socket, message: Message, body: bytes = b"", fds: tuple[int, ...] = ()
) -> None:
    """Sends one message; raises BlockingIOError when the worker does not read."""
    socket.send_fds(channel, [HEADER.pack(*message) + body], list(fds))


def send_plan(
    channel: socket.socket, generation: int, plan: int, listeners: list[tuple[int, int | None]]
) -> None:
    """`listeners`: id, and the descriptor of one that the worker has not got yet."""
    body = b"".join(ENTRY.pack(number, fd is not None) for number, fd in listeners)
    fds = [fd for _, fd in listeners if fd is not None]
    message = Message(Kind.PLAN, len(listeners), generation)
    send(channel, message, body, (plan, *fds))


def receive(channel: socket.socket) -> Message | None:
    """The next message of a worker; None: its end is closed. Raises BlockingIOError."""
    try:
        data = channel.recv(MESSAGE_BYTES_MAX)
    except ConnectionError:
        return None
    return Message(*HEADER.unpack_from(data)) if len(data) >= HEADER.size else None
