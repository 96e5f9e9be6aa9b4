"""What the control process and a worker say to each other, over a socket of whole messages.

Each message is a header (kind, items, generation) and, where sockets are meant, `items` entries
(listener id, number of the socket among those at that address). Descriptors travel beside it: of
PLAN the plan first, then one for each entry. Numbers are in the machine's own byte order.
"""

import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("=IIQ")
ENTRY = struct.Struct("=II")
HELLO = struct.Struct("=IIII")
HELLO_STOPPING = 1
MESSAGE_BYTES_MAX = 4096
SOCKETS_MAX = 250  # in one message, which carries at most 253 descriptors (SCM_MAX_FD)
LEAVE = 1  # items of STOP: others have the worker's sockets


class Kind(IntEnum):
    """Below 100: to the worker; above: from it."""

    PLAN = 1
    STOP = 2  # generation: milliseconds to drain; items: LEAVE, or 0
    LOG = 3  # one descriptor; items: 1 for syslog
    SOCKETS = 4  # more sockets than fit into PLAN
    DROP = 5  # sockets that others serve from now on; no descriptors
    PING = 6
    ACK = 101  # generation: the plan that is now in force
    REFUSED = 102  # generation: a plan that this worker cannot use; it keeps the one before
    RELEASED = 103  # generation: no request uses an older plan any more
    HELLO = 104  # to a new control process; the segment, and the plan if there is one
    HELD = 105  # sockets that the worker has; one descriptor for each
    PONG = 106


class Message(NamedTuple):
    kind: int
    items: int
    generation: int


class Entry(NamedTuple):
    """One listening socket: which of those at the address of a listener."""

    listener: int
    number: int


class Hello(NamedTuple):
    """What a worker says of itself to a new control process."""

    generation: int
    column: int
    stopping: bool
    pid: int
    sockets: int  # that HELD messages bring
    segment: int  # descriptor
    plan: int | None  # descriptor


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
    channel: socket.socket, generation: int, plan: int, sockets: Sequence[tuple[Entry, int]]
) -> None:
    """`sockets`, with their descriptors: those that the worker has not got yet."""
    _send_sockets(channel, Kind.PLAN, generation, sockets, (plan,))


def send_sockets(channel: socket.socket, sockets: Sequence[tuple[Entry, int]]) -> None:
    """More of them, behind a plan."""
    _send_sockets(channel, Kind.SOCKETS, 0, sockets, ())


def _send_sockets(
    channel: socket.socket,
    kind: Kind,
    generation: int,
    sockets: Sequence[tuple[Entry, int]],
    fds: tuple[int, ...],
) -> None:
    body = b"".join(ENTRY.pack(*entry) for entry, _ in sockets)
    message = Message(kind, len(sockets), generation)
    send(channel, message, body, (*fds, *(fd for _, fd in sockets)))


def send_drop(channel: socket.socket, entries: Sequence[Entry]) -> None:
    """Sockets that the worker gives up."""
    body = b"".join(ENTRY.pack(*entry) for entry in entries)
    send(channel, Message(Kind.DROP, len(entries), 0), body)


def receive(channel: socket.socket) -> Message | None:
    """The next message of a worker; None: its end is closed. Raises BlockingIOError."""
    try:
        data = channel.recv(MESSAGE_BYTES_MAX)
    except ConnectionError:
        return None
    return Message(*HEADER.unpack_from(data)) if len(data) >= HEADER.size else None


def receive_hello(channel: socket.socket) -> Hello | None:
    """A worker's first message to a new control process; None: it is something else."""
    data, fds = _receive(channel)
    if len(data) >= HEADER.size + HELLO.size and 1 <= len(fds) <= 2:
        kind, _, generation = HEADER.unpack_from(data)
        column, flags, pid, sockets = HELLO.unpack_from(data, HEADER.size)
        if kind == Kind.HELLO:
            plan = fds[1] if len(fds) == 2 else None
            stopping = bool(flags & HELLO_STOPPING)
            return Hello(generation, column, stopping, pid, sockets, fds[0], plan)
    _close(fds)
    return None


def receive_held(channel: socket.socket) -> list[tuple[Entry, socket.socket]]:
    """Some of the sockets that a worker has; none: this is no such message."""
    data, fds = _receive(channel)
    if len(data) >= HEADER.size:
        kind, items, _ = HEADER.unpack_from(data)
        body = data[HEADER.size :]
        if kind == Kind.HELD and len(fds) == items and len(body) == items * ENTRY.size:
            entries = (Entry(*values) for values in ENTRY.iter_unpack(body))
            return [(one, socket.socket(fileno=fd)) for one, fd in zip(entries, fds, strict=True)]
    _close(fds)
    return []


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(
        channel, MESSAGE_BYTES_MAX, SOCKETS_MAX, socket.MSG_CMSG_CLOEXEC
    )
    return data, fds


def _close(fds: list[int]) -> None:
    for fd in fds:
        socket.close(fd)
