"""What a control process leaves for the next one."""

import os

import pytest

from fastlb import manifest
from fastlb.manifest import CacheEntry
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


def test_it_is_read_from_a_descriptor(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "plan"
    file.write_bytes(manifest.encode(manifest.new(generation=3)))
    fd = os.open(file, os.O_RDONLY)
    found = manifest.read(fd)
    os.close(fd)
    assert found is not None
    assert found.layout == manifest.layout()


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
