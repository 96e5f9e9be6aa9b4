"""The flow of one message: what is framed, sent, kept, spliced, and given back while it waits."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_relay import Way
from fastlb._core._testing_rig import End, Rig
from tests.harness.worker import listen

SMALL, LARGE = 16 * 1024, 64 * 1024
KIB = 1024


class Line:
    """A source's socket and a target's, each with its peer."""

    def __init__(self, rig: Rig, send_buffer: int = 0) -> None:
        self.rig = rig
        with listen() as listener:
            self.writer = socket.create_connection(listener.getsockname(), 5)
            ours, _ = listener.accept()
            self.source = self._end(ours)
            self.reader = socket.socket()
            if send_buffer:
                self.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
            self.reader.settimeout(5)
            self.reader.connect(listener.getsockname())
            ours, _ = listener.accept()
            if send_buffer:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            self.target = self._end(ours)
        rig.settle()

    def _end(self, ours: socket.socket) -> End:
        ours.setblocking(False)
        return End(self.rig, ours.detach())

    def say(self, data: bytes) -> None:
        """Sends from the far side; in the socket when this returns."""
        self.writer.sendall(data)
        self.rig.turn(1000)

    def hear(self, count: int) -> bytes:
        heard = bytearray()
        while len(heard) < count and (piece := self.reader.recv(count - len(heard))):
            heard += piece
        return bytes(heard)

    def transfer(self, way: Way, data: bytes) -> tuple[str, bytes]:
        """Says all of `data` and runs to the end; the last result and what was heard."""
        self.writer.setblocking(False)
        self.reader.setblocking(False)
        heard, said = bytearray(), 0
        result = ""
        for _ in range(100_000):
            with contextlib.suppress(BlockingIOError):
                said += self.writer.send(data[said:]) if said < len(data) else 0
            self.rig.turn(0 if said < len(data) else 1)
            result = way.run(self.source, self.target)
            with contextlib.suppress(BlockingIOError):
                heard += self.reader.recv(1 << 20)
            waits = result in ("wait-source", "wait-target", "again")
            if not waits or (said == len(data) and len(heard) == way.sent == len(data)):
                break
        self.reader.settimeout(5)
        heard += self.hear(way.sent - len(heard))
        return result, bytes(heard)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


@pytest.fixture
def line(rig: Rig) -> Iterator[Line]:
    made = Line(rig)
    yield made
    made.close()


@pytest.fixture
def narrow(rig: Rig) -> Iterator[Line]:
    """A target that takes few kilobytes at a time."""
    made = Line(rig, send_buffer=4 * KIB)
    yield made
    made.close()


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def pattern(count: int) -> bytes:
    return (b"0123456789abcdef" * (count // 16 + 1))[:count]


# --- framing ---

FRAMES = [
    # kind, length, received behind the head, (result, run, rest)
    ("none", 0, b"GET /next", ("done", b"", b"GET /next")),
    ("length", 5, b"hello", ("done", b"hello", b"")),
    ("length", 5, b"helloGET", ("done", b"hello", b"GET")),
    ("length", 9, b"hello", ("done", b"hello", b"")),
    ("chunked", 0, b"5\r\nhello\r\n0\r\n\r\nGET", ("done", b"5\r\nhello\r\n0\r\n\r\n", b"GET")),
    ("chunked", 0, b"5\r\nhel", ("done", b"5\r\nhel", b"")),
    ("chunked", 0, b"2\r\nab\r\nX", ("bad-body", b"2\r\nab", b"\r\nX")),
    ("until-close", 0, b"anything", ("done", b"anything", b"")),
]


@pytest.mark.parametrize(("kind", "length", "data", "expected"), FRAMES)
def test_frame(rig: Rig, kind: str, length: int, data: bytes, expected: tuple) -> None:
    way = Way(rig, kind, length)
    way.load(b"HEAD" + data)
    assert way.frame(4, len(data)) == expected
    way.end()


@pytest.mark.parametrize(("data", "run"), [
    (chunked(b"hello"), b"hello"),
    (chunked(b"a", b"bc", b"def"), b"abcdef"),
    (b"3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n", b"abc"),
    (b"5\r\nhel", b"hel"),
])  # fmt: skip
def test_frame_decoded(rig: Rig, data: bytes, run: bytes) -> None:
    way = Way(rig, "chunked", decode=True)
    way.load(b"HEAD" + data)
    result, sent, _ = way.frame(4, len(data))
    assert (result, sent) == ("done", run)
    way.end()


def test_frame_decoded_wrong(rig: Rig) -> None:
    way = Way(rig, "chunked", decode=True)
    way.load(b"2\r\nab\r\nX")
    assert way.frame(0, 8)[:2] == ("bad-body", b"ab")
    way.end()


# --- heads ---


def test_head_alone_and_in_pieces(rig: Rig, line: Line) -> None:
    way = Way(rig, "none")
    assert way.send_head(line.target, [b"GET / ", b"HTTP/1.1\r\n", b"\r\n"]) == "done"
    assert line.hear(18) == b"GET / HTTP/1.1\r\n\r\n"
    assert (way.sent, way.pending, rig.borrowed) == (18, False, 0)


@pytest.mark.parametrize("size", [10, 3000, 5000, 12000])  # 4096: joined, or not
def test_head_takes_the_run_along(rig: Rig, line: Line, size: int) -> None:
    body = pattern(size)
    way = Way(rig, "length", size)
    way.load(b"HEAD" + body)
    way.frame(4, size)
    assert way.send_head(line.target, [b"one ", b"two "]) == "done"
    assert line.hear(8 + size) == b"one two " + body
    assert (way.sent, way.pending) == (8 + size, False)
    way.end()


@pytest.mark.parametrize("size", [10, 5000, 12000])
def test_head_whose_last_vector_meets_the_run(rig: Rig, line: Line, size: int) -> None:
    body = pattern(size)
    way = Way(rig, "length", size)
    way.load(b"HEAD" + body)
    way.frame(4, size)
    assert way.send_head(line.target, [b"new "], in_buffer=4) == "done"
    assert line.hear(8 + size) == b"new HEAD" + body
    assert (way.sent, way.pending) == (8 + size, False)
    way.end()


def fill(line: Line) -> int:
    """Fills the target's socket; how many bytes that took."""
    way = Way(line.rig, "length", 1 << 30)
    total = 0
    while "writable" in line.target.ready:
        result = way.send_head(line.target, [bytes(KIB)])
        way.end()
        total = way.sent
        assert result == "done" or "writable" not in line.target.ready
    return total


@pytest.mark.parametrize("adjacent", [0, 4])
def test_head_that_does_not_fit_is_kept(rig: Rig, narrow: Line, adjacent: int) -> None:
    before = fill(narrow)
    body = pattern(8000)
    way = Way(rig, "length", len(body))
    way.load(b"HEAD" + body)
    way.frame(4, len(body))
    head = [b"A" * 9000, b"B" * 9000]
    assert way.send_head(narrow.target, list(head), adjacent) == "done"
    wanted = b"".join(head) + b"HEAD"[:adjacent] + body
    assert way.pending
    assert way.flush(narrow.target) == "wait-target"
    got = bytearray()
    for _ in range(10_000):
        got += narrow.reader.recv(3000)
        rig.turn(1)
        if way.flush(narrow.target) == "done":
            break
    got += narrow.hear(before + len(wanted) - len(got))
    assert bytes(got[before:]) == wanted
    assert not way.pending
    assert rig.borrowed == 1  # the data's; the head's is back
    way.end()


def test_every_vector_may_be_the_one_that_is_cut(rig: Rig) -> None:
    # The room in the socket differs from round to round; nothing is lost or doubled.
    for sizes in ([1, 20_000, 1], [9000] * 5, [40_000, 9, 9], [1] * 60, [16_384, 16_384]):
        line = Line(rig, send_buffer=4 * KIB)
        way = Way(rig, "none")
        pieces = [bytes([65 + at % 26]) * size for at, size in enumerate(sizes)]
        assert way.send_head(line.target, list(pieces)) == "done"
        got = bytearray()
        total = sum(sizes)
        while len(got) < total:
            got += line.reader.recv(1000)
            rig.turn()
            way.flush(line.target)
        assert bytes(got) == b"".join(pieces)
        assert rig.borrowed == 0
        line.close()


def test_head_to_a_broken_target(rig: Rig, line: Line) -> None:
    line.reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.reader.close()
    rig.settle()
    way = Way(rig, "none")
    assert way.send_head(line.target, [b"HEAD"]) == "target-failed"
    assert rig.borrowed == 0


def test_head_that_nobody_can_keep() -> None:
    rig = Rig(buffer_bytes=0)
    line = Line(rig, send_buffer=4 * KIB)
    fill(line)
    way = Way(rig, "none")
    assert way.send_head(line.target, [b"x" * 50_000]) == "no-buffer"
    line.close()
    rig.close()


# --- bodies ---

BODIES = {
    "length small": ("length", pattern(100)),
    "length of a buffer": ("length", pattern(SMALL)),
    "length spliced": ("length", pattern(300 * KIB)),
    "length just spliced": ("length", pattern(64 * KIB)),
    "length just copied": ("length", pattern(64 * KIB - 1)),
    "chunks small": ("chunked", chunked(*[b"abc"] * 500)),
    "chunks large": ("chunked", chunked(pattern(200 * KIB), pattern(100), pattern(300 * KIB))),
    "until close": ("until-close", pattern(500 * KIB)),
}


@pytest.mark.parametrize("narrowed", [False, True])
@pytest.mark.parametrize("case", BODIES)
def test_body_passes_byte_for_byte(rig: Rig, case: str, narrowed: bool) -> None:
    kind, data = BODIES[case]
    line = Line(rig, send_buffer=32 * KIB if narrowed else 0)
    way = Way(rig, kind, len(data))
    result, heard = line.transfer(way, data)
    assert heard == data
    assert result == ("wait-source" if kind == "until-close" else "done")
    assert way.done == (kind != "until-close")
    way.end()
    line.close()
    assert (rig.borrowed, rig.pipes) == (0, 0)


@pytest.mark.parametrize(("size", "spliced"), [(64 * KIB, 1), (64 * KIB - 1, 0)])
def test_what_is_spliced(rig: Rig, line: Line, size: int, spliced: int) -> None:
    way = Way(rig, "length", size)
    line.say(b"x")
    assert way.run(line.source, line.target) == "wait-source"
    assert line.hear(1) == b"x"
    assert rig.free_pipes == spliced  # used, and given back while waiting
    way.end()


def test_decoded_is_never_spliced(rig: Rig, line: Line) -> None:
    data = pattern(300 * KIB)
    way = Way(rig, "chunked", decode=True)
    line.writer.setblocking(False)
    text, said, heard = chunked(data), 0, bytearray()
    line.reader.setblocking(False)
    for _ in range(100_000):
        with contextlib.suppress(BlockingIOError):
            said += line.writer.send(text[said:])
        rig.turn()
        result = way.run(line.source, line.target)
        assert not way.spliced
        with contextlib.suppress(BlockingIOError):
            heard += line.reader.recv(1 << 20)
        if result == "done" and len(heard) == len(data):
            break
    assert bytes(heard) == data
    way.end()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=6),
    st.lists(st.integers(1, 4000), max_size=8),
    st.booleans(),
)
def test_segments_change_nothing(pieces: list[bytes], sizes: list[int], decode: bool) -> None:
    rig = Rig()
    line = Line(rig)
    text = chunked(*pieces)
    way = Way(rig, "chunked", decode=decode)
    at, result = 0, "wait-source"
    for size in [*sizes, len(text)]:
        if at < len(text):
            line.say(text[at : at + size])
            at += size
            result = way.run(line.source, line.target)
    assert result == "done"
    wanted = b"".join(pieces) if decode else text
    assert line.hear(len(wanted)) == wanted
    assert way.sent == len(wanted)
    way.end()
    line.close()
    rig.close()


# --- waiting ---


@pytest.mark.parametrize("kind", ["length", "chunked", "until-close"])
def test_waiting_for_the_source_holds_nothing(rig: Rig, line: Line, kind: str) -> None:
    way = Way(rig, kind, 1 << 20)
    line.say(b"80000\r\nabc" if kind == "chunked" else b"abc")
    assert way.run(line.source, line.target) == "wait-source"
    assert (rig.borrowed, rig.pipes) == (0, 0)
    assert way.run(line.source, line.target) == "wait-source"
    assert (rig.borrowed, rig.pipes) == (0, 0)
    way.end()


@pytest.mark.parametrize("kind", ["length", "until-close"])
def test_nothing_is_read_while_the_target_is_full(rig: Rig, narrow: Line, kind: str) -> None:
    fill(narrow)
    way = Way(rig, kind, 1 << 30)
    narrow.say(pattern(30_000))
    assert way.run(narrow.source, narrow.target) == "wait-target"
    held = way.data_bytes
    assert 0 < held <= 30_000
    narrow.say(pattern(30_000))
    for _ in range(5):
        assert way.run(narrow.source, narrow.target) == "wait-target"
    assert way.data_bytes == held
    assert rig.borrowed + rig.pipes <= 2
    way.end()


def test_long_transfer_gives_way(rig: Rig, line: Line) -> None:
    # Both sockets are kept busy from here, so that only the rounds end the call.
    way = Way(rig, "until-close")
    results = set()
    line.writer.setblocking(False)
    for _ in range(2000):
        with contextlib.suppress(BlockingIOError):
            while True:
                line.writer.send(bytes(1 << 20))
        rig.turn()
        results.add(way.run(line.source, line.target))
        if "again" in results:
            break
        with contextlib.suppress(BlockingIOError):
            line.reader.recv(1 << 22, socket.MSG_DONTWAIT)
    assert "again" in results
    way.end()


def test_kept_head_stays_while_the_body_moves(rig: Rig, line: Line) -> None:
    head = b"GET / HTTP/1.1\r\n\r\n" + bytes(SMALL - 3000 - 18)
    way = Way(rig, "length", 40_000)
    way.load(head)
    way.keep(len(head))
    body = pattern(40_000)
    for at in range(0, len(body), 10_000):
        line.say(body[at : at + 10_000])
        way.run(line.source, line.target)
    assert line.hear(40_000) == body
    assert way.kept == head  # it had no room for more: a second buffer came
    way.end()
    assert rig.borrowed == 0


# --- ends ---


def test_end_of_the_source(rig: Rig, line: Line) -> None:
    way = Way(rig, "length", 10)
    line.say(b"half")
    line.writer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert way.run(line.source, line.target) == "source-end"
    assert line.hear(4) == b"half"
    assert rig.borrowed == 0
    way.end()


def test_end_of_a_body_that_ends_so(rig: Rig, line: Line) -> None:
    way = Way(rig, "until-close")
    line.say(b"all")
    line.writer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert way.run(line.source, line.target) == "source-end"
    assert line.hear(3) == b"all"
    assert (rig.borrowed, rig.pipes) == (0, 0)
    way.end()


@pytest.mark.parametrize("length", [100, 1 << 20])  # copied, spliced
def test_reset_of_the_source(rig: Rig, line: Line, length: int) -> None:
    way = Way(rig, "length", length)
    line.say(b"x")
    way.run(line.source, line.target)
    line.writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.writer.close()
    rig.settle()
    assert way.run(line.source, line.target) == "source-failed"
    way.end()
    assert (rig.borrowed, rig.pipes) == (0, 0)


@pytest.mark.parametrize("length", [100, 1 << 20])
def test_reset_of_the_target(rig: Rig, line: Line, length: int) -> None:
    way = Way(rig, "length", length)
    line.reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.reader.close()
    line.say(b"x" * 50)
    rig.settle()
    assert way.run(line.source, line.target) == "target-failed"
    way.end()
    assert (rig.borrowed, rig.pipes) == (0, 0)


@pytest.mark.parametrize("decode", [False, True])
def test_wrong_chunk_after_right_ones(rig: Rig, line: Line, decode: bool) -> None:
    way = Way(rig, "chunked", decode=decode)
    line.say(b"2\r\nab\r\nX\r\n")
    assert way.run(line.source, line.target) == "bad-body"
    assert line.hear(way.sent) == (b"ab" if decode else b"2\r\nab")
    way.end()


def test_more_than_the_limit(rig: Rig, line: Line) -> None:
    way = Way(rig, "chunked", most=10)
    line.say(b"a\r\n0123456789\r\n")
    assert way.run(line.source, line.target) == "wait-source"
    line.say(b"1\r\nx\r\n0\r\n\r\n")
    assert way.run(line.source, line.target) == "too-large"
    assert way.sent == 15
    way.end()


def test_no_buffer() -> None:
    rig = Rig(buffer_bytes=0)
    line = Line(rig)
    way = Way(rig, "length", 10)
    line.say(b"x")
    assert way.run(line.source, line.target) == "no-buffer"
    line.close()
    rig.close()


def test_next_message_stays_in_the_socket_but_for_a_byte(rig: Rig, line: Line) -> None:
    # The byte tells that something follows, without another call.
    way = Way(rig, "length", 5)
    line.say(b"helloGET / HTTP/1.1")
    assert way.run(line.source, line.target) == "done"
    assert line.hear(5) == b"hello"
    assert "readable" in line.source.ready
    way.end()
    rest = Way(rig, "until-close")
    assert rest.run(line.source, line.target) == "wait-source"
    assert line.hear(13) == b"ET / HTTP/1.1"
    rest.end()


def test_own_answer_needs_no_source(rig: Rig, line: Line) -> None:
    way = Way(rig, "none")
    way.load(b"HTTP/1.1 503 \r\n\r\n")
    way.frame(0, 0)
    assert way.run(None, line.target) == "done"
    way.end()


# --- inspected ---


def test_an_inspector_is_shown_all_that_comes_before_it_is_sent(rig: Rig, line: Line) -> None:
    data = pattern(500 * KIB)
    way = Way(rig, "until-close")
    way.inspect()
    line.writer.setblocking(False)
    line.reader.setblocking(False)
    heard, said = bytearray(), 0
    while len(heard) < len(data):
        with contextlib.suppress(BlockingIOError):
            said += line.writer.send(data[said:])
        rig.turn(10)
        way.run(line.source, line.target)
        assert not way.spliced
        with contextlib.suppress(BlockingIOError):
            heard += line.reader.recv(1 << 20)
        assert len(Way.shown()) >= way.sent
    assert bytes(heard) == data == Way.shown()
    assert rig.free_pipes == 0  # nothing that has to be looked at is spliced
    way.end()


def test_without_one_nothing_is_shown(rig: Rig, line: Line) -> None:
    way = Way(rig, "until-close")
    way.inspect()
    line.say(b"seen")
    way.run(line.source, line.target)
    way.inspect(False)
    line.say(b"unseen")
    way.run(line.source, line.target)
    assert (Way.shown(), line.hear(10)) == (b"seen", b"seenunseen")
    way.end()


def test_the_last_bytes_do_not_wait_for_ever_where_nobody_ends(rig: Rig, line: Line) -> None:
    # Cork or not, what was sent arrives; the end that follows makes it do so at once.
    way = Way(rig, "until-close")
    line.writer.sendall(b"last")
    line.writer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert way.run(line.source, line.target) == "source-end"
    assert line.hear(4) == b"last"
    way.end()
