"""Monitors without nodes and clocks: thresholds, what is read of an answer, what a reload keeps."""

import asyncio
import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb import monitors
from fastlb._core.node import get_state
from fastlb.check import check_text
from fastlb.config import Config, Monitor
from fastlb.in_force import InForce
from fastlb.monitor_health import Health, Pulse
from fastlb.monitor_http import BODY_BYTES_MAX, Reader, is_good, read_body, read_head, request
from fastlb.monitor_link import Failed, NotDone, Target, reason_of
from fastlb.monitor_worker import shown, verdict
from fastlb.monitors import HELD_SHARE, Check, Monitors, pause
from fastlb.slots import NodeKey
from fastlb.tls_material import NOTHING, UNVERIFIED
from tests.test_in_force import Workers

A, B = NodeKey("web", "10.0.0.1", 80), NodeKey("web", "10.0.0.2", 80)


def config(*monitors_: str, nodes: str = '"10.0.0.1:80", "10.0.0.2:80"', pool: str = "") -> Config:
    names = [f"m{number}" for number in range(len(monitors_))]
    text = '[virtual_servers.a]\nlisten = "127.0.0.1:1"\npool = "web"\n'
    text += f"[pools.web]\nnodes = [{nodes}]\nmonitors = {json.dumps(names)}\n{pool}\n"
    for name, keys in zip(names, monitors_, strict=True):
        text += f"[monitors.{name}]\n" + keys.replace("; ", "\n") + "\n"
    found = check_text(text, Path("x"))
    assert found.config is not None, found.errors
    return found.config


# --- thresholds ---


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=40), st.booleans())
@settings(max_examples=200)
def test_so_many_results_in_a_row_change_the_state(
    failures: int, successes: int, results: list[bool], eager: bool
) -> None:
    monitor = Monitor(type="tcp", failures=failures, successes=successes)
    health = Health(down=eager, eager=eager)
    down = eager
    run: list[bool] = []
    for good in results:
        run = [*run, good] if run[-1:] == [good] else [good]
        needed = (1 if eager else successes) if down else failures
        changes = good == down and len(run) >= needed
        if changes:
            down, eager, run = not down, False, []
        assert health.take(good, monitor) == changes
        assert health.down == down
        assert health.doubtful == bool(run and run[-1] == down)


def test_a_process_that_turns_is_not_held_up_and_one_that_stood_still_is() -> None:
    pulse = Pulse(0.0)
    for tick in range(1, 100):
        pulse.beat(tick * 0.1)
        assert pulse.held_s(tick * 0.1 + 0.05) == pytest.approx(0)
    before = pulse.held_s(9.95)
    assert pulse.held_s(20.0) - before == pytest.approx(10.0)  # the beat itself is overdue
    pulse.beat(20.0)
    assert pulse.held_s(20.05) - before == pytest.approx(10.0)


@given(st.booleans())
def test_the_times_between_checks_vary_by_the_jitter(soon: bool) -> None:
    monitor = Monitor(type="tcp", interval_ms=2000, fast_interval_ms=500, jitter=10)
    middle = 0.5 if soon else 2.0
    assert middle * 0.9 <= pause(monitor, soon) <= middle * 1.1
    slow = Monitor(type="tcp", interval_ms=100, fast_interval_ms=500, jitter=0)
    assert pause(slow, soon) == 0.1


# --- what is read of an answer ---


class Pieces:
    """A link whose other side sends these."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def send(self, data: bytes) -> None:
        raise AssertionError

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None: ...


def read(*pieces: bytes) -> tuple[int, bytes]:
    async def main() -> tuple[int, bytes]:
        reader = Reader(Pieces(*pieces))
        status, fields = await read_head(reader)
        return status, await read_body(reader, status, fields)

    return asyncio.run(main())


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
GOOD = [
    (LENGTH + b"body and more", (200, b"body")),
    (b"HTTP/1.0 404 \r\n\r\nto the end", (404, b"to the end")),
    (b"HTTP/1.1 204\r\n\r\nnothing of it", (204, b"")),
    (b"HTTP/1.1 100 Go on\r\n\r\n" + LENGTH + b"body", (200, b"body")),
    (CHUNKED + b"2\r\nbo\r\n2;a=b\r\ndy\r\n0\r\nX: y\r\n\r\n", (200, b"body")),
    (b"HTTP/1.1 101 Over\r\n\r\n", (101, b"")),
]


@pytest.mark.parametrize(("answer", "found"), GOOD)
def test_an_answer_however_it_arrives(answer: bytes, found: tuple[int, bytes]) -> None:
    assert read(answer) == found
    assert read(*(answer[at : at + 1] for at in range(len(answer)))) == found


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the connection ended without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "the connection ended within the head"),
        (b"HTTP/2 200 OK\r\n\r\n", "no HTTP/1 answer: 'HTTP/2 200 OK'"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "no HTTP/1 answer"),
        (b"\x1b[31mred\r\n\r\n", r"no HTTP/1 answer: '\x1b[31mred'"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 17000, "the head is longer than 16384 bytes"),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 1000, "the head is longer than"),
        (LENGTH + b"bod", "the connection ended within the body"),
        (LENGTH.replace(b"4", b"-4"), "the body's framing is not understood"),
        (LENGTH.replace(b"4", b"9" * 30), "the body's framing is not understood"),
        (CHUNKED.replace(b"Chunked", b"gzip"), "the body's framing is not understood"),
        (CHUNKED + b"z\r\n", "the body's chunks are not understood"),
        (CHUNKED + b"2\r\nbody", "the body's chunks are not understood"),
        (CHUNKED + b"1" * 17000, "a chunk's size is longer than 16384 bytes"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, reason: str) -> None:
    with pytest.raises(Failed) as caught:
        read(*(answer[at : at + 1000] for at in range(0, len(answer), 1000)))
    assert reason in str(caught.value)


def test_no_more_than_64_kib_of_a_body_are_read() -> None:
    piece = b"x" * 10_000
    for head in (b"HTTP/1.1 200 OK\r\n\r\n", LENGTH.replace(b"4", b"99999999")):
        assert read(head, *[piece] * 7, b"y" * 10_000) == (200, b"x" * BODY_BYTES_MAX)
    chunks = [b"10000000\r\n", *[piece] * 7]
    assert read(CHUNKED, *chunks) == (200, b"x" * BODY_BYTES_MAX)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    for before in (b"", b"HTTP/1.1 200 OK\r\n", LENGTH, CHUNKED):
        with contextlib.suppress(Failed):  # and nothing else
            status, body = read(before + data)
            assert 101 <= status <= 599
            assert len(body) <= len(data)


def test_statuses_and_their_ranges() -> None:
    assert [one for one in range(100, 600) if is_good(one, ("204", "300-302"))] == [
        204,
        300,
        301,
        302,
    ]


@pytest.mark.parametrize(
    ("monitor", "ip", "name", "host"),
    [
        ({}, "10.0.0.1", "10.0.0.1", "10.0.0.1:8080"),
        ({"port": 80}, "10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ({}, "2001:db8::1", "2001:db8::1", "[2001:db8::1]:8080"),
        ({}, "10.0.0.1", "app.internal", "app.internal:8080"),
        ({"host": "shop.example"}, "10.0.0.1", "10.0.0.1", "shop.example"),
    ],
)
def test_what_a_node_is_asked(monitor: Any, ip: str, name: str, host: str) -> None:
    target = Target(Monitor(type="http", **monitor), NodeKey("web", ip, 8080), name)
    assert f"\r\nHost: {host}\r\n".encode() in request(target)
    assert request(target).startswith(b"GET / HTTP/1.1\r\n")


def test_what_this_machine_has_no_room_for_is_no_failure() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL):
        with pytest.raises(NotDone):
            reason_of(OSError(number, "no"))
    assert reason_of(OSError(errno.ECONNREFUSED, "x")) == "connection refused"
    assert reason_of(OSError(errno.ETIMEDOUT, "Connection timed out")) == "connection timed out"


def test_what_a_function_has_returned() -> None:
    assert [verdict(one)["good"] for one in (True, False, None, 1, "up")] == [True] + [False] * 4
    with pytest.raises(LookupError) as caught:
        raise LookupError("no\nleader")
    assert shown(caught.value).startswith("LookupError: no leader at test_monitors.py:")


# --- one check ---


@pytest.fixture
def force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InForce]:
    monkeypatch.setattr("fastlb.in_force.Listeners.add", lambda *_: [])
    monkeypatch.setattr("fastlb.in_force.InForce.send", lambda _: None)
    monkeypatch.setattr(monitors, "FIRST_S", 3600.0)  # the tests check themselves
    one = InForce(2, tmp_path)
    one.keys = [bytes(16)] * 4
    one.workers = Workers()  # type: ignore[assignment]
    yield one
    one.close()


class Story:
    """Configurations in force one after the other, and checks with given results."""

    def __init__(self, force: InForce, monkeypatch: pytest.MonkeyPatch) -> None:
        self.force = force
        self.said: dict[str, list[object]] = {}  # by address: texts are good, errors raised
        self.now = 1000.0
        monkeypatch.setattr(monitors.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Monitors, "_probe_of", lambda _, monitor: self.probe)

    async def probe(self, target: Target) -> str:
        said = self.said[target.key.ip].pop(0)
        if callable(said):
            said = said()
        if isinstance(said, BaseException):
            raise said
        return str(said)

    async def put(self, cfg: Config) -> None:
        await self.force.put(self.force.prepare(cfg))

    async def check(self, key: NodeKey, *said: object, name: str = "m0") -> Check:
        one = self.force.monitors.checks[key][name]
        self.said[key.ip] = list(said)
        for _ in said:
            await self.force.monitors._check(one, self.now)
        return one

    def state(self, key: NodeKey) -> str:
        table = self.force.segment.address(self.force.segment.node_table)
        return get_state(table, self.force.slots.nodes.used[key])


@pytest.fixture
def story(force: InForce, monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(force, monkeypatch)


TCP = 'type = "tcp"'


def test_failures_and_successes(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await story.put(config(TCP))
        for failure in (Failed("status 500"), OSError(errno.ECONNREFUSED, "x")):
            await story.check(A, failure)
            assert story.state(A) == "up"
        check = await story.check(A, ConnectionResetError(errno.ECONNRESET, "x"))
        assert (story.state(A), story.state(B)) == ("down", "up")
        await story.check(A, "good", Failed("again"), "good")
        assert story.state(A) == "down"
        await story.check(A, "good")
        assert story.state(A) == "up"
        shown = story.force.monitors.shown(A)[0]
        assert (shown["checks"], shown["failures"]) == (check.checks, check.failures) == (7, 4)

    asyncio.run(main())
    down, up = capsys.readouterr().err.splitlines()
    assert down == (
        'fastlb: warning: 10.0.0.1:80 of [pools.web] is down: monitor "m0": connection reset '
        "(3 failures) [FLB-S180]"
    )
    assert up == (
        'fastlb: info: 10.0.0.1:80 of [pools.web] is up: monitor "m0": good (2 successes)'
    )


def test_what_is_not_done_counts_for_nothing(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        await story.put(config(TCP))
        nothing = [OSError(errno.EMFILE, "Too many open files"), NotDone("x"), ValueError("ours")]
        check = await story.check(A, *nothing * 3)
        assert (check.checks, check.failures, check.not_done) == (0, 0, 9)
        assert not check.health.doubtful
        assert story.state(A) == "up"

    asyncio.run(main())
    (line,) = capsys.readouterr().err.splitlines()  # once a minute
    assert line.endswith(
        "says nothing of the node and is done again: Too many open files [FLB-S181]"
    )


@pytest.mark.parametrize("share", [0.5, 2])
def test_a_failure_counts_unless_the_process_was_held_up(story: Story, share: float) -> None:
    async def main() -> None:
        await story.put(config(f"{TCP}; failures = 1"))

        def late() -> Failed:
            story.now += Pulse.PERIOD_S + share / HELD_SHARE  # of a time-out of 1 s
            return Failed("no answer")

        check = await story.check(A, late)
        assert (check.failures, check.not_done) == ((1, 0) if share < 1 else (0, 1))
        assert story.state(A) == ("down" if share < 1 else "up")
        check = await story.check(A, Failed("refused"))
        assert story.state(A) == "down"  # what came before has no part in it

    asyncio.run(main())


def test_the_operator_comes_first(story: Story) -> None:
    async def main() -> None:
        states = story.force.states
        await story.put(config(f"{TCP}; failures = 1; successes = 1"))
        states.carry_out("drain", [A])
        assert story.state(A) == "draining"
        await story.check(A, Failed("x"))
        assert (story.state(A), states.asked(A)) == ("down", "draining")
        states.carry_out("disable", [A])
        assert story.state(A) == "disabled"
        await story.check(A, "good")
        assert story.state(A) == "disabled"
        states.carry_out("enable", [A])
        assert story.state(A) == "draining"

    asyncio.run(main())


def test_nodes_begin_as_start_says_when_they_are_new(story: Story) -> None:
    async def main() -> None:
        await story.put(config(TCP, nodes='"10.0.0.1:80"'))
        down = config(f'{TCP}; start = "down"; successes = 9')
        await story.put(down)
        assert (story.state(A), story.state(B)) == ("up", "down")
        await story.put(config(f'{TCP}; start = "down"; successes = 8'))
        await story.check(B, "good")
        assert story.state(B) == "up"

    asyncio.run(main())


def test_a_reload_keeps_counts_of_what_is_the_same_and_states_of_the_rest(story: Story) -> None:
    async def main() -> None:
        await story.put(config(TCP))
        await story.check(A, *[Failed("x")] * 3)
        await story.check(B, *[Failed("x")] * 2)
        await story.put(config(TCP, pool="retries = 1"))
        await story.check(B, Failed("x"))
        assert (story.state(A), story.state(B)) == ("down", "down")
        await story.put(config(f"{TCP}; port = 81"))
        assert (story.state(A), story.state(B)) == ("down", "down")
        assert story.force.monitors.checks[A]["m0"].checks == 0
        await story.put(config(f"{TCP}; port = 81", nodes='"10.0.0.2:80"'))
        await story.put(config(f"{TCP}; port = 81"))
        assert (story.state(A), story.state(B)) == ("up", "down")
        await story.put(config())
        assert (story.state(A), story.state(B)) == ("up", "up")
        assert story.force.states.down == set()

    asyncio.run(main())


def test_what_another_control_process_found_holds_until_checks_say_otherwise(story: Story) -> None:
    async def main() -> None:
        story.force.states.down.add(A)  # as `adopt` reads it from the node table
        story.force.states._configured = {A: False, B: False}
        story.force.monitors._nodes = {A, B}
        await story.put(config(TCP))
        assert (story.state(A), story.state(B)) == ("down", "up")
        await story.check(A, "good", "good")
        assert story.state(A) == "up"

    asyncio.run(main())


def test_a_node_that_workers_serve_with_is_not_new_to_another_control_process(
    story: Story,
) -> None:
    async def main() -> None:
        story.force.monitors.know([A])
        await story.put(config(f'{TCP}; start = "down"'))
        assert (story.state(A), story.state(B)) == ("up", "down")

    asyncio.run(main())


def test_all_monitors_of_a_node_have_to_agree(story: Story) -> None:
    async def main() -> None:
        await story.put(config(f"{TCP}; failures = 1", f"{TCP}; failures = 1; port = 90"))
        await story.check(A, Failed("x"), name="m1")
        await story.check(A, *["good"] * 5)
        assert story.state(A) == "down"
        await story.check(A, "good", "good", name="m1")
        assert story.state(A) == "up"

    asyncio.run(main())


def test_how_a_node_is_reached() -> None:
    cfg = config('type = "tls"', TCP, pool='proxy_protocol = "v2"')
    first, _, second, _ = monitors.identities(cfg, NOTHING)
    assert (first.key, first.name, first.target.tls) == (A, "m0", UNVERIFIED)
    assert (second.target.tls, second.target.proxy_protocol) == (None, "v2")
