"""A worker's life: its start, its signals, its end, and that what it counts it gives back."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastlb import channel
from fastlb.channel import Kind, Message
from tests.harness import HttpNode, RawNode, reply, request, settings
from tests.harness.proxy import environment
from tests.harness.wait import TIMEOUT, until
from tests.harness.worker import worker

ENDS = [signal.SIGTERM, signal.SIGQUIT]


def test_counters_say_who_works() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        until(lambda: w.stats["pid"], "the worker's pid")
        assert w.stats["pid"] == w.pid
        assert w.stats["generation"] == 1
        assert w.ask().node == "a"
        until(lambda: w.stats["requests"] == 1, "the request counted")
        assert w.stats["gil_acquisitions"] == 0


def test_idle_worker_does_not_turn() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        client.ask()
        w.wait_objects(exchanges=0)
        turns = w.stats["turns"]
        with pytest.raises(AssertionError, match="another turn"):
            _until_for(0.2, lambda: w.stats["turns"] > turns + 1)


def _until_for(seconds: float, look) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "another turn"
        time.sleep(0.02)


@pytest.mark.parametrize("number", ENDS)
def test_signal_before_any_plan_ends_it(number: signal.Signals) -> None:
    with worker(None) as w:
        until(lambda: w.stats["pid"], "the worker in its loop")
        w.signal(number)
        assert w.wait_end() == 0


@pytest.mark.parametrize("number", ENDS)
def test_signal_ends_an_idle_worker(number: signal.Signals) -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        client.ask()
        w.signal(number)
        client.expect_closed()
        client.sock.close()
        assert w.wait_end() == 0


def held(exchange) -> None:
    """A node's script: answers when the test has put something into `node.go`."""
    exchange.read_body()
    exchange.wait(exchange.node.go)
    exchange.send(reply(200, b"late"))


def holding_node() -> RawNode:
    node = RawNode(held)
    node.go = threading.Event()
    return node


def test_sigterm_lets_requests_end() -> None:
    with holding_node() as a, worker(settings(a, timeouts={"drain": "30s"})) as w:
        with w.client() as client:
            client.send(request("/"))
            a.wait_requests(1)
            w.signal(signal.SIGTERM)
            until(lambda: _refuses(w), "the listener given up")
            a.go.set()
            answer = client.response()
            assert (answer.status, answer.body) == (200, b"late")
            assert answer.get("Connection") == b"close"
            client.expect_closed()
        assert w.wait_end() == 0


def _refuses(w) -> bool:
    """Whether the worker's own descriptor of the listener is closed."""
    inode = os.fstat(w.sockets["shop0"].fileno()).st_ino
    folder = f"/proc/{w.pid}/fd"
    held = []
    for name in os.listdir(folder):
        try:
            held.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return f"socket:[{inode}]" not in held


def test_drain_time_is_the_end_of_waiting() -> None:
    with holding_node() as a, worker(settings(a, timeouts={"drain": "1s"})) as w:
        with w.client() as client:
            client.send(request("/"))
            a.wait_requests(1)
            w.signal(signal.SIGTERM)
            assert w.wait_end() == 0
            with pytest.raises(ConnectionResetError):
                client.response()
        a.go.set()


def test_sigquit_cuts_what_runs() -> None:
    with holding_node() as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        a.wait_requests(1)
        w.signal(signal.SIGQUIT)
        assert w.wait_end() == 0
        with pytest.raises(ConnectionResetError):
            client.response()
        assert w.stats["causes"] == {"stopped": 1}
        a.go.set()


def test_second_stop_hurries_the_first() -> None:
    with holding_node() as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        a.wait_requests(1)
        channel.send(w.channel, Message(Kind.STOP, 0, 60_000))
        channel.send(w.channel, Message(Kind.STOP, 0, 0))
        assert w.wait_end() == 0
        a.go.set()


def test_everything_is_counted_down_at_the_end() -> None:
    with holding_node() as a, worker(settings(a)) as w:
        with w.client() as busy, w.client() as idle, w.client() as begun:
            busy.send(request("/"))
            begun.send(b"GET / HT")
            a.wait_requests(1)
            w.wait_objects(clients=3, exchanges=1, buffers=2, node_connections=1)
            idle.sock.fileno()
            w.stop()
            nothing = {"clients": 0, "node_connections": 0, "exchanges": 0, "pipes": 0}
            assert {kind: w.objects[kind] for kind in nothing} == nothing
            assert w.server_stats()["connections"] == 0
        a.go.set()


def test_segment_without_its_counters_is_refused() -> None:
    with worker(None) as w:
        ours, theirs = channel.socket_pair()
        fds = (w.shared.fd, theirs.fileno())
        with ours, theirs:
            done = subprocess.run(
                [sys.executable, "-m", "fastlb.worker_main", "1", *map(str, fds), "-1", "0"],
                pass_fds=fds, env=environment(), capture_output=True, text=True,
                timeout=3 * TIMEOUT, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert "worker 1: no counters in the segment" in done.stderr
