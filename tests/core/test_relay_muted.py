"""A source whose bytes cannot go on: it is muted, and heard again in time."""

import contextlib
from collections.abc import Iterator

import pytest

from fastlb._core._testing_relay import Way
from fastlb._core._testing_rig import Rig
from tests.core.test_relay import KIB, Line, fill, pattern


@pytest.fixture
def narrow() -> Iterator[Line]:
    """A target that takes few kilobytes at a time."""
    rig = Rig()
    made = Line(rig, send_buffer=4 * KIB)
    yield made
    made.close()
    rig.close()


def take(line: Line, way: Way, count: int) -> bytes:
    """What arrives while the far side reads again, until all is through."""
    line.reader.setblocking(False)
    taken = bytearray()
    for _ in range(2000):
        with contextlib.suppress(BlockingIOError):
            taken += line.reader.recv(1 << 20)
        result = way.run(line.source, line.target)
        if len(taken) >= count and result == "wait-source":
            break
        line.rig.turn(5)
    assert result == "wait-source"
    return bytes(taken)


def stall(line: Line, way: Way, data: bytes) -> None:
    """Says `data`, which cannot go on, until the source is muted."""
    line.writer.sendall(data)
    for _ in range(100):
        line.rig.settle()
        way.run(line.source, line.target)
        if "muted" in line.source.ready:
            break
    line.rig.settle()
    assert {"muted", "readable"} <= line.source.ready


@pytest.mark.parametrize("kind", ["length", "until-close"])
def test_what_cannot_go_on_wakes_nobody(narrow: Line, kind: str) -> None:
    filled = fill(narrow)
    way = Way(narrow.rig, kind, 1 << 30)
    data = pattern(33_000)
    stall(narrow, way, data[:30_000])
    narrow.writer.sendall(data[30_000:])
    # The target may have got room late, which is one event of its own.
    assert narrow.rig.turn(50) <= ("writable" in narrow.target.ready)
    assert take(narrow, way, filled + len(data))[filled:] == data
    # Empty, it is heard again.
    assert "muted" not in narrow.source.ready
    narrow.rig.settle()
    narrow.say(b"more")
    assert take(narrow, way, 4) == b"more"
    way.end()


def test_the_end_of_a_muted_source_is_heard(narrow: Line) -> None:
    fill(narrow)
    way = Way(narrow.rig, "until-close")
    stall(narrow, way, b"a" * 30_000)
    narrow.writer.close()
    assert narrow.rig.turn(1000)
    assert "hup" in narrow.source.ready
    way.end()
