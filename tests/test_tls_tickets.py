"""Ticket keys in contexts: found, proven, shared; and left alone wherever anything is off."""

import os
from typing import Any

import pytest
from OpenSSL import SSL

from fastlb import tls_tickets
from fastlb.ticket_keys import KEY_BYTES, SECRET_BYTES
from fastlb.tls_addresses import pointer_of
from fastlb.tls_tickets import Heap, Layout, NotShared, find_layout, share_key, write_key
from tests.harness.tls_meeting import client, meet


@pytest.fixture(scope="module")
def layout() -> Layout:
    return find_layout(Heap())


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    tls_tickets.shared_layout.cache_clear()
    tls_tickets.warn_once.cache_clear()


def server(layout: Layout | None = None, key: bytes = b"") -> SSL.Context:
    context = tls_tickets._server()
    if layout is not None:
        write_key(pointer_of(context), layout, key)
    return context


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_contexts_with_one_key_read_each_others_tickets(layout: Layout, version: str) -> None:
    key, other = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
    theirs = client(version)
    first = meet(server(layout, key), theirs)
    assert not first.reused
    assert meet(server(layout, key), theirs, session=first.session).reused
    assert not meet(server(layout, other), theirs, session=first.session).reused
    assert not meet(server(), theirs, session=first.session).reused


def test_a_name_alone_or_half_a_key_reads_nothing(layout: Layout) -> None:
    key = os.urandom(KEY_BYTES)
    theirs = client("1.2")
    session = meet(server(layout, key), theirs).session
    for changed in (
        key[:16] + os.urandom(64),
        key[:48] + os.urandom(32),
        os.urandom(16) + key[16:],
    ):
        assert not meet(server(layout, changed), theirs, session=session).reused
    assert meet(server(layout, key), theirs, session=session).reused


def test_tickets_begin_with_the_name_of_their_key(layout: Layout) -> None:
    """By which the core chooses the context."""
    key = os.urandom(KEY_BYTES)
    ticket, _ = tls_tickets._granted_ticket(server(layout, key))
    assert ticket[:16] == key[:16]


class Odd(Heap):
    """Memory of a library that lays its contexts out in another way."""

    def __init__(self, **odd: Any) -> None:
        super().__init__()
        self.odd = odd
        self.written = 0

    def bytes_at(self, address: int) -> int:
        found = super().bytes_at(address)
        if "size" in self.odd and found > 1000:
            return int(self.odd["size"])
        return 0 if "pointers" in self.odd and found < 1000 else found

    def read(self, address: int, count: int) -> bytes:
        data = super().read(address, count)
        change = self.odd.get("context" if count > 1000 else "key")
        return change(data) if change is not None and count > 8 else data

    def write(self, address: int, data: Any) -> None:
        self.written += 1
        if "written" not in self.odd:
            super().write(address, data)


def twice(data: bytes) -> bytes:
    """The context's memory with the name of the key in a second place."""
    name_at = find_layout(Heap()).name_at
    return data[:-16] + data[name_at : name_at + 16]


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"size": 0}, "the allocator says that a context has 0 bytes"),
        ({"size": 1 << 20}, "the allocator says that a context has 1048576 bytes"),
        ({"context": lambda data: bytes(len(data))}, "is not in the context"),
        ({"context": twice}, "in the context more than once"),
        ({"pointers": "none of them"}, "the ticket key is not behind its name"),
        ({"key": lambda data: data[32:] + data[:32]}, "the ticket key is not behind its name"),
        ({"key": lambda data: data[:32] + bytes(32)}, "the ticket key is not behind its name"),
        ({"key": lambda data: bytes(len(data))}, "the ticket key is not behind its name"),
    ],
)
def test_an_unknown_layout_is_left_alone(odd: dict[str, Any], words: str) -> None:
    heap = Odd(**odd)
    with pytest.raises(NotShared, match=words):
        find_layout(heap)
    assert heap.written == 0


def test_keys_that_have_no_effect_are_noticed() -> None:
    with pytest.raises(NotShared, match="not read by another context"):
        find_layout(Odd(written="nowhere"))


def test_a_key_that_all_contexts_would_share_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.urandom(KEY_BYTES)
    write = write_key

    def same(context: int, layout: Layout, key: Any, heap: Heap) -> None:
        write(context, layout, written, heap)

    monkeypatch.setattr(tls_tickets, "write_key", same)
    with pytest.raises(NotShared, match="read by a context with another key"):
        find_layout(Heap())


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (NotShared("the moon is full"), "not shared: the moon is full;"),
        (OSError(5, "no maps"), "not shared: OSError(5, 'no maps');"),
    ],
)
def test_failing_is_said_once_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    broken: Exception,
    words: str,
) -> None:
    def fail(heap: Heap) -> Layout:
        raise broken

    monkeypatch.setattr(tls_tickets, "find_layout", fail)
    assert tls_tickets.shared_layout() is None
    assert tls_tickets.shared_layout() is None
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert lines[0].endswith("[FLB-S110]")


def test_a_context_that_is_another_thing_keeps_its_memory(
    layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    ffi = tls_tickets.ffi
    small = tls_tickets.lib.OPENSSL_malloc(64)
    large = tls_tickets.lib.OPENSSL_malloc(layout.context_bytes)
    ffi.memmove(large, bytes(layout.context_bytes), layout.context_bytes)
    key = os.urandom(KEY_BYTES)
    for memory in (small, large):
        address = int(ffi.cast("uintptr_t", memory))
        assert not share_key(address, layout, key)
    assert not any(bytes(ffi.buffer(ffi.cast("char *", large), layout.context_bytes)))
    for memory in (small, large):
        tls_tickets.lib.OPENSSL_free(memory)
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_addresses_where_no_memory_is_are_not_looked_at() -> None:
    heap = Heap()
    for address in (0, 8, 16, 0xDEADBEE8, (1 << 64) - 64, 1 << 47, id(heap) + 1):
        assert heap.bytes_at(address) == 0
    read_only = tls_tickets.ffi.cast("uintptr_t", tls_tickets.ffi.addressof(
        tls_tickets.lib, "SSL_new"))  # fmt: skip
    assert heap.bytes_at(int(read_only) & ~7) == 0
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, access, *_, last = line.split()
            if access.startswith("rw") and last.startswith(("/", "[stack")):
                assert heap.bytes_at(int(span.split("-")[0], 16) + 64) == 0


def test_a_ticket_proves_its_key_and_nothing_else_does(layout: Layout) -> None:
    context = server()
    ticket, secret = tls_tickets._granted_ticket(context)
    heap = Heap()
    pointer = int.from_bytes(heap.read(pointer_of(context) + layout.secret_at, 8), "little")
    key = heap.read(pointer, SECRET_BYTES)
    assert tls_tickets._is_key_of(key, ticket, secret)
    for at in range(SECRET_BYTES):
        wrong = bytearray(key)
        wrong[at] ^= 1
        assert not tls_tickets._is_key_of(bytes(wrong), ticket, secret)
    assert not tls_tickets._is_key_of(key, ticket, bytes(48))
    assert not tls_tickets._is_key_of(key, ticket, b"")
    assert not tls_tickets._is_key_of(key, ticket[:-1], secret)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x03", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_a_server_that_grants_no_ticket(data: bytes) -> None:
    with pytest.raises(NotShared, match="grants no ticket"):
        tls_tickets._new_session_ticket(data)
