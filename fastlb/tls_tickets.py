"""How contexts get the session ticket keys that all workers share (ticket_keys.py).

The library makes keys of its own for each context, and the function that sets others is none of
those that `cryptography` gives access to. So the keys are written where the library has them. No
layout is assumed; it is found and proven, in each worker, before it
serves:

1. A context of our own grants a ticket. Its first 16 bytes name the key and are in the context's
   memory, whose size the allocator knows; they must be there exactly once.
2. Near them is a pointer to the key of the HMAC and that of the cipher, 32 bytes each. It is
   taken for that only if it points to memory of the heap, if the HMAC of the ticket by the first
   32 bytes is the one that the ticket has, and if the next 32 decrypt the ticket to the session's
   own secret. Chance does not pass that.
3. After the keys were written into contexts of our own, a session of one is resumed by another
   with the same key, in TLS 1.2 and 1.3, and not by one with another key.

If anything at all is off, nothing is written, each worker has its own keys as the library made
them, and the log says so once.
"""

import ctypes
import datetime
import hmac
import os
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.bindings._rust import _openssl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from fastlb import errors, log
from fastlb.ticket_keys import HMAC_BYTES, KEY_BYTES, NAME_BYTES, SECRET_BYTES
from fastlb.tls_addresses import pointer_of

ffi: Any = _openssl.ffi
lib: Any = _openssl.lib

BLOCK_BYTES = 16  # of AES
POINTER_BYTES = 8
CONTEXT_BYTES_MAX = 1 << 16  # a context of any version is far smaller
SIZES_DIFFER_MAX = 64  # the allocator rounds up, and does not split off the least of rests
POINTERS_TRIED = 16  # behind the name
ROUNDS_MAX = 10  # of a handshake in memory

Ticket = memoryview | bytes | bytearray


class NotShared(Exception):
    """Why keys cannot be written into contexts."""


class Layout(NamedTuple):
    """Where a context has its ticket key."""

    context_bytes: int
    name_at: int
    secret_at: int  # of the pointer


class Heap:
    """What is known of this process's memory; tests put another one in its place."""

    def __init__(self) -> None:
        self._size = ctypes.CDLL(None).malloc_usable_size
        self._size.argtypes, self._size.restype = [ctypes.c_void_p], ctypes.c_size_t
        self._ranges: list[tuple[int, int]] = []

    def bytes_at(self, address: int) -> int:
        """The size of the allocation at `address`; 0 where there can be none."""
        if address % POINTER_BYTES or not self._is_writable(address):
            return 0
        return int(self._size(address))

    def read(self, address: int, count: int) -> bytes:
        return bytes(ffi.buffer(ffi.cast("char *", address), count))

    def write(self, address: int, data: Ticket) -> None:
        ffi.memmove(ffi.cast("char *", address), data, len(data))

    def _is_writable(self, address: int) -> bool:
        # The allocator looks in front of what it is asked about, and believes what it finds.
        if not self._within(address):
            self._ranges = _writable_ranges()
        return self._within(address)

    def _within(self, address: int) -> bool:
        first, last = address - 2 * POINTER_BYTES, address + SECRET_BYTES
        return any(start <= first and last <= end for start, end in self._ranges)


def _writable_ranges() -> list[tuple[int, int]]:
    """Memory of no file and no stack: an allocator's, or nobody's."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, access, *_, last = line.split()
            if access.startswith("rw") and last in ("0", "[heap]"):  # its inode, where no name is
                start, end = span.split("-")
                found.append((int(start, 16), int(end, 16)))
    return found


_heap = cache(Heap)


@cache
def shared_layout() -> Layout | None:
    """Where contexts of this process have their ticket keys; None, after a line in the log, where
    that cannot be told for sure."""
    try:
        return find_layout(_heap())
    except Exception as error:  # whatever it is: sessions are worth less than the proxy
        warn_once(str(error) if isinstance(error, NotShared) else repr(error))
        return None


@cache
def warn_once(reason: str) -> None:
    log.warn(errors.TICKETS_NOT_SHARED.line(reason=reason))


def share_key(context: int, layout: Layout, key: Ticket) -> bool:
    """Whether the context has the key now; if not, it has its own, and the log has said so."""
    try:
        write_key(context, layout, key)
    except NotShared as error:
        warn_once(str(error))
        return False
    return True


def find_layout(heap: Heap) -> Layout:
    """Finds and proves the layout; raises NotShared."""
    context = _server()
    ticket, secret = _granted_ticket(context)
    layout = _search(heap, pointer_of(context), ticket, secret)
    _prove(heap, layout)
    return layout


def write_key(context: int, layout: Layout, key: Ticket, heap: Heap | None = None) -> None:
    """Writes a key into the context at this address; raises NotShared and leaves it alone."""
    heap = heap or _heap()
    if abs(heap.bytes_at(context) - layout.context_bytes) > SIZES_DIFFER_MAX:
        raise NotShared("contexts differ in size")
    pointer = int.from_bytes(heap.read(context + layout.secret_at, POINTER_BYTES), "little")
    if heap.bytes_at(pointer) < SECRET_BYTES:
        raise NotShared("a context's ticket key is not where the others have it")
    heap.write(context + layout.name_at, key[:NAME_BYTES])
    heap.write(pointer, key[NAME_BYTES:])


def _search(heap: Heap, context: int, ticket: bytes, secret: bytes) -> Layout:
    size = heap.bytes_at(context)
    if not 0 < size <= CONTEXT_BYTES_MAX:
        raise NotShared(f"the allocator says that a context has {size} bytes")
    memory = heap.read(context, size)
    name_at = memory.find(ticket[:NAME_BYTES])
    if name_at < 0:
        raise NotShared("the name of the ticket key is not in the context")
    if memory.find(ticket[:NAME_BYTES], name_at + 1) >= 0:
        raise NotShared("the name of the ticket key is in the context more than once")
    first = -(-(name_at + NAME_BYTES) // POINTER_BYTES) * POINTER_BYTES
    for at in range(first, min(first + POINTERS_TRIED * POINTER_BYTES, size - 7), POINTER_BYTES):
        pointer = int.from_bytes(memory[at : at + POINTER_BYTES], "little")
        if heap.bytes_at(pointer) < SECRET_BYTES:
            continue
        if _is_key_of(heap.read(pointer, SECRET_BYTES), ticket, secret):
            return Layout(size, name_at, at)
    raise NotShared("the ticket key is not behind its name")


def _is_key_of(key: bytes, ticket: bytes, secret: bytes) -> bool:
    """Whether `ticket` was made with `key`, of the session with this secret."""
    body, mac = ticket[:-HMAC_BYTES], ticket[-HMAC_BYTES:]
    initial, sealed = body[NAME_BYTES : NAME_BYTES + BLOCK_BYTES], body[NAME_BYTES + BLOCK_BYTES :]
    if not secret or len(sealed) % BLOCK_BYTES:
        return False
    if not hmac.compare_digest(hmac.digest(key[:HMAC_BYTES], body, "sha256"), mac):
        return False
    cipher = Cipher(algorithms.AES(key[HMAC_BYTES:]), modes.CBC(initial)).decryptor()
    return secret in cipher.update(sealed) + cipher.finalize()


# --- handshakes in memory -----------------------------------------------------------------


def _prove(heap: Heap, layout: Layout) -> None:
    """That keys which were written are the ones that contexts use."""
    one, other = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
    grants, knows, stranger = _server(), _server(), _server()
    for context, key in ((grants, one), (knows, one), (stranger, other)):
        write_key(pointer_of(context), layout, key, heap)
    for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
        client = _client(version)
        session = _Talk(grants, client).session()
        if not _Talk(knows, client, session).resumed:
            raise NotShared("a ticket is not read by another context with its key")
        if _Talk(stranger, client, session).resumed:
            raise NotShared("a ticket is read by a context with another key")


def _granted_ticket(context: SSL.Context) -> tuple[bytes, bytes]:
    """A ticket, and the secret of the session that is in it."""
    talk = _Talk(context, _client(SSL.TLS1_2_VERSION))
    ticket = _new_session_ticket(talk.from_server)
    secret = ffi.new("unsigned char[]", 64)
    count = lib.SSL_SESSION_get_master_key(lib.SSL_get_session(talk.server._ssl), secret, 64)
    return ticket, bytes(ffi.buffer(secret, count))


def _new_session_ticket(data: bytes) -> bytes:
    """The ticket in the plain text of a TLS 1.2 server's side (RFC 5077 3.3)."""
    handshake, at = b"", 0
    while at + 5 <= len(data) and data[at] == 22:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        handshake += data[at + 5 : at + 5 + length]
        at += 5 + length
    at = 0
    while at + 4 <= len(handshake):
        length = int.from_bytes(handshake[at + 1 : at + 4], "big")
        if handshake[at] == 4:
            return handshake[at + 10 : at + 4 + length]
        at += 4 + length
    raise NotShared("the library grants no ticket")


class _Talk:
    """A handshake in memory to its end, and the byte of data that brings tickets along."""

    def __init__(
        self, server: SSL.Context, client: SSL.Context, session: SSL.Session | None = None
    ) -> None:
        self.server, self.client = SSL.Connection(server, None), SSL.Connection(client, None)
        self.from_server = b""
        self.server.set_accept_state()
        self.client.set_connect_state()
        if session is not None:
            self.client.set_session(session)
        done = [False, False]
        for _ in range(ROUNDS_MAX):
            for index, end in enumerate((self.client, self.server)):
                with suppress(SSL.WantReadError):
                    end.do_handshake()
                    done[index] = True
                self._carry()
            if all(done):
                break
        else:
            raise NotShared("a handshake in memory does not end")
        with suppress(SSL.WantReadError):
            self.client.recv(1)
        self.resumed = bool(lib.SSL_session_reused(self.server._ssl))
        for end in (self.client, self.server):
            # A session whose connection did not end in order is not fit for resumption.
            end.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    def session(self) -> SSL.Session:
        """The client's."""
        found = self.client.get_session()
        if found is None:
            raise NotShared("a client in memory has no session")
        return found

    def _carry(self) -> None:
        for source, target in ((self.client, self.server), (self.server, self.client)):
            with suppress(SSL.WantReadError):
                data = source.bio_read(1 << 16)
                if source is self.server:
                    self.from_server += data
                target.bio_write(data)


def _server() -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    certificate, key = _own_certificate()
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_session_id(b"fastlb")
    return context


def _client(version: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    return context


@cache
def _own_certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fastlb")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    return builder.sign(key, hashes.SHA256()), key
