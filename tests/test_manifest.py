"""What a control process leaves for the next one."""

import fcntl
import os

import pytest

from fastlb import manifest
from fastlb.manifest import CacheEntry
from fastlb.plan import seal
from fastlb.slots import ListenerKey, NodeKey, Slots
from fastlb.units import InetAddress, UnixAddress, read_inet


def test_it_is_read_back_from_anywhere_in_a_plan() -> None:
    wrote = manifest.new(
        generation=7,
        places=[0, 3],
        caches={"shop": CacheEntry("class.shop#1", "ip", 64)},
        shared_secret=bytes(range(16)),
        ticket_keys=[b"\0\xff" * 40],
        counters=[("node", 3, {"requests": 1})],
        retired=[(6, ["class.shop"])],
    )
    assert manifest.decode(b"\0plan" * 9 + manifest.encode(wrote) + b"more") == wrote


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"no mark",
        manifest.MARK,
        manifest.MARK + b"x" * 10,
        manifest.MARK + b"0000000002{}",
        manifest.MARK + b"0000000009{",
    ],
)
def test_what_is_none_is_none(blob: bytes) -> None:
    assert manifest.decode(blob) is None


def test_fields_of_a_later_version_are_no_matter() -> None:
    text = b'{"layout":"1","version":"9","places":[1],"later":{"x":1}}'
    found = manifest.decode(manifest.MARK + b"%010d" % len(text) + text)
    assert found is not None
    assert (found.places, found.generation) == ([1], 0)


def test_all_numbers_come_back() -> None:
    slots = Slots()
    nodes = [NodeKey("web", "10.0.0.1", 80), NodeKey("web", "::1", 81), NodeKey("b", "::1", 81)]
    listeners = [
        ListenerKey("shop", read_inet("[::1]:80", "")),
        ListenerKey("shop", read_inet("127.0.0.1:80", "")),
        ListenerKey("shop", UnixAddress("/run/a.sock")),
    ]
    slots.nodes.take(nodes)
    slots.listeners.take(listeners)
    for kind in manifest.NAMED:
        getattr(slots, kind).take(["x", "y"])
    slots.nodes.free(nodes[1])
    read = manifest.decode(manifest.encode(manifest.new(slots=manifest.numbered(slots))))
    assert read is not None
    other = Slots()
    manifest.restore(other, read.slots)
    for kind in ("nodes", "listeners", *manifest.NAMED):
        one, two = getattr(slots, kind), getattr(other, kind)
        assert (one.used, one.freed, one.begun) == (two.used, two.freed, two.begun)
    assert isinstance(listeners[0].address, InetAddress)


def test_of_what_is_no_sealed_plan_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = manifest.encode(manifest.new(generation=7))
    whole = seal(text, 7)
    found = manifest.read(whole)
    assert found is not None
    assert (found.generation, found.layout) == (7, manifest.layout())
    open_ = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    os.write(open_, text)
    assert manifest.read(open_) is None
    os.ftruncate(open_, 1 << 40)
    fcntl.fcntl(open_, fcntl.F_ADD_SEALS, manifest.SEALS)
    assert manifest.read(open_) is None, "a terabyte"
    empty = seal(b"", 7)
    assert manifest.read(empty) is None
    pipe = os.pipe()
    assert manifest.read(pipe[0]) is None
    monkeypatch.setattr(manifest, "PLAN_BYTES_MAX", len(text) - 1)
    assert manifest.read(whole) is None
    for fd in (whole, open_, empty, *pipe):
        os.close(fd)
