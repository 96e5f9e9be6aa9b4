"""Lines of the access log: what stands in them, and that nothing breaks out of them."""

import json
import os
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_message import Desk
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get, state

WALL_US = 1_769_860_800_123_456  # 2026-01-31T12:00:00.123456Z
TIMES = (1_000_000, 1_001_000, 1_004_500, 1_012_345)
ESCAPED = re.compile(r"\\x(..)|\\(.)")
CHAIN = [Class("shop", type="transparent", fallback="by-ip"), Class("by-ip")]


def unescaped(found: re.Match) -> str:
    return chr(int(found[1], 16)) if found[1] else found[2]


class Log:
    """A desk whose lines go into a file."""

    def __init__(self, segment: Segment, tmp_path, format: str = "json", **more) -> None:
        self.setting = Setting(log_format=format, **more)
        self.world = self.setting.world(segment)
        self.desk = Desk(self.world)
        self.path = tmp_path / f"log-{format}"
        self.desk.log_to(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND))
        self.desk.set(wall_us=WALL_US, times_us=TIMES)

    def request(self, head: bytes, decide: bool = True):
        self.desk.load(head)
        if decide:
            made = self.world.decide("192.0.2.1", head)
            self.desk.decided(made)
            return made
        return None

    def text(self) -> str:
        self.desk.log()
        assert self.desk.flush() == 0
        return self.path.read_bytes().decode("ascii").splitlines()[-1]

    def line(self) -> dict:
        return json.loads(self.text())


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


def test_a_whole_line(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path, classes=CHAIN)
    log.request(get(target="/a?b=c"))
    log.desk.set(status=200, bytes_in=300, bytes_out=5000, retries=1)
    assert log.line() == {
        "time": "2026-01-31T12:00:00.123Z", "client": "192.0.2.1", "virtual_server": "shop",
        "method": "GET", "host": "www.example.com", "target": "/a?b=c", "status": 200,
        "bytes_in": 300, "bytes_out": 5000, "duration_ms": 12.345, "wait_ms": 3.5, "pool": "web",
        "node": "10.0.0.1:80", "class": "shop", "outcome": "new", "found_in": "none",
        "found_class": None, "previous_node": None, "retries": 1,
    }  # fmt: skip


def test_a_broken_session(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path, classes=CHAIN)
    state(log.world, 0, "down")
    name, value = CHAIN[0].cookie_name, log.setting.cookie("10.0.0.1:80")
    log.request(get(f"Cookie: {name}={value}; {name}={value}"))
    line = log.line()
    assert (line["outcome"], line["found_in"]) == ("node-down", "cookie")
    assert line["found_class"] == "shop"
    assert (line["previous_node"], line["node"]) == ("10.0.0.1:80", "10.0.0.2:80")
    assert line["duplicate_cookie"] is True


def test_a_refused_request(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path)
    log.desk.set(refused=1, status=400, cause=1, server=False)
    line = log.line()
    assert {line[name] for name in ("method", "host", "target", "virtual_server")} == {""}
    assert (line["status"], line["cause"]) == (400, "bad-request")
    assert "pool" not in line
    assert "node" not in line


def test_a_request_without_class_has_no_outcome(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path)
    log.request(get())
    line = log.line()
    assert "outcome" not in line
    assert line["node"] == "10.0.0.1:80"


@pytest.mark.parametrize(("address", "shown"), [
    ("203.0.113.7", "203.0.113.7"), ("2001:db8::1", "2001:db8::1"), ("::", "unix"),
])  # fmt: skip
@pytest.mark.parametrize("format", ["json", "combined"])
def test_clients(segment: Segment, tmp_path, format: str, address: str, shown: str) -> None:
    log = Log(segment, tmp_path, format)
    log.request(get())
    log.desk.set(client_address=address)
    text = log.text()
    assert (json.loads(text)["client"] if format == "json" else text.split(" ")[0]) == shown


def test_combined(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path, "combined")
    log.request(get("Referer: http://a/", 'User-Agent: My "own" \\ thing', target="/a?b"))
    log.desk.set(status=200, bytes_out=5000)
    assert log.text() == (
        '192.0.2.1 - - [31/Jan/2026:12:00:00 +0000] "GET /a?b HTTP/1.1" 200 5000 "http://a/" '
        '"My \\"own\\" \\\\ thing"'
    )
    log.request(get(version="1.0"))
    assert log.text().endswith('"GET / HTTP/1.0" 200 5000 "-" "-"')
    log.desk.set(refused=1, status=400)
    assert '] "-" 400 ' in log.text()


def test_times_that_were_never_reached(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path)
    log.request(get())
    log.desk.set(times_us=(1_000_000, 0, 0, 1_000_007))
    line = log.line()
    assert (line["duration_ms"], line["wait_ms"]) == (0.007, 0)
    log.desk.set(times_us=(1_000_000, 1_500_000, 1_400_000, 99_000_999))
    line = log.line()
    assert (line["duration_ms"], line["wait_ms"]) == (98000.999, 0)


@pytest.mark.parametrize("milliseconds", [0, 1, 10, 100, 999])
def test_milliseconds_of_the_time(segment: Segment, tmp_path, milliseconds: int) -> None:
    log = Log(segment, tmp_path)
    log.request(get())
    log.desk.set(wall_us=1_769_860_801_000_000 + 1000 * milliseconds + 999)
    assert log.line()["time"] == f"2026-01-31T12:00:01.{milliseconds:03}Z"


fields = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
                 max_size=40).map(str.strip)  # fmt: skip


@given(fields, fields)
def test_nothing_breaks_out_of_a_line(agent: str, referer: str) -> None:
    with Segment.create() as segment:
        for format in ("json", "combined"):
            setting = Setting(log_format=format)
            desk = Desk(setting.world(segment))
            desk.load(get(f"User-Agent: {agent}", f"Referer: {referer}"))
            read, write = os.pipe()
            desk.log_to(write)
            desk.log()
            assert desk.flush() == 0
            text = os.read(read, 65536).decode("ascii")
            os.close(read)
            assert text.count("\n") == 1
            assert text.endswith("\n")
            assert all(0x20 <= ord(char) < 0x7F for char in text[:-1])
            if format == "combined":
                quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
                assert len(quoted) == 3
                for shown, given_text in zip(quoted[1:], (referer, agent), strict=True):
                    back = ESCAPED.sub(unescaped, shown)
                    assert back == (given_text or "-")
            else:
                json.loads(text)


@given(st.integers(0, 40_000))
def test_a_line_has_its_bound(length: int) -> None:
    with Segment.create() as segment:
        desk = Desk(Setting().world(segment))
        desk.load(get(target="/" + "a" * length))
        read, write = os.pipe()
        desk.log_to(write)
        used = desk.log()
        assert used <= 32 * 1024
        os.close(read)


def test_bytes_that_grow_in_the_line(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path, "combined")
    log.request(get("Referer: " + "\xff" * 20000, "User-Agent: " + "\xfe" * 20000))
    text = log.text()
    assert len(text) <= 32 * 1024
    assert text.endswith('"')
    assert log.desk.log() < 32 * 1024


def test_lines_gather_until_they_are_written(segment: Segment, tmp_path) -> None:
    log = Log(segment, tmp_path)
    log.request(get())
    sizes = [log.desk.log() for _ in range(3)]
    assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]
    assert log.path.read_bytes() == b""
    log.desk.flush()
    assert log.path.read_bytes().count(b"\n") == 3
    # And before they are too many.
    for _ in range(2000):
        assert log.desk.log() <= 128 * 1024
    assert log.path.read_bytes().count(b"\n") > 1000


def test_what_nobody_takes_is_dropped_and_counted(segment: Segment) -> None:
    desk = Desk(Setting().world(segment))
    desk.load(get())
    read, write = os.pipe()
    os.set_blocking(write, False)
    desk.log_to(write)
    lines = 0
    for _ in range(40):
        for _ in range(50):
            desk.log()
            lines += 1
        dropped = desk.flush()
    assert dropped > 0
    os.set_blocking(read, False)
    taken = b""
    while len(taken) < 10**7:
        try:
            taken += os.read(read, 65536)
        except BlockingIOError:
            break
    os.close(read)
    assert taken.count(b"\n") + dropped == lines
    # Whole lines only.
    assert all(json.loads(line) for line in taken.splitlines())


def test_syslog_gets_one_datagram_per_line(segment: Segment) -> None:
    desk = Desk(Setting().world(segment))
    desk.load(get())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        desk.log_to(ours.detach(), True)
        for _ in range(3):
            desk.log()
        assert desk.flush() == 0
        theirs.settimeout(2)
        assert [json.loads(theirs.recv(65536))["method"] for _ in range(3)] == ["GET"] * 3
