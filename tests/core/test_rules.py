"""When rules run and when they do not, and the ends of waiting. The stories are in
tests/proxy/test_110_rules_path.py and test_111_rules_async.py."""

import pytest

from fastlb._core.stats import read_rule
from tests.harness import HttpNode, RawNode, settings
from tests.harness.rules import ruled_worker
from tests.harness.settings import Config, changed
from tests.harness.tcp import Peer, TcpNode
from tests.harness.wait import until
from tests.harness.wire import Truncated
from tests.harness.worker import WorkerProcess

TEXT = """import asyncio, time
from fastlb import rule
@rule.connection
def first(connection): pass
@rule.request
def plain(request):
    if request.path == "/boom": raise ValueError("boom")
@rule.request
async def waits(request):
    await asyncio.sleep(60)
@rule.request
async def blocks(request):
    time.sleep(2.5)
    request.path = "/too-late"
@rule.response
def last(request, response): pass
@rule.connection
async def slow(connection):
    await asyncio.sleep(60)
"""


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


def config(a: HttpNode, *names: str, **more: object) -> Config:
    new = changed(settings(a), "virtual_servers.shop.rules", [f"my:{name}" for name in names])
    new["rules"] = {"timeout": "1m", **more}
    return new


def calls(w: WorkerProcess, *names: str) -> dict[str, int]:
    at = w.shared.address(w.shared.counters[0])
    used = w.slots.rules.used
    return {name: read_rule(at, used[f"my:{name}"])["calls"] for name in names}


def test_who_runs_for_what(a: HttpNode) -> None:
    names = ("first", "plain", "last")
    with ruled_worker(config(a, *names), my=TEXT) as w, w.client() as client:
        client.ask("/")
        client.ask("/")
        assert calls(w, *names) == {"first": 1, "plain": 2, "last": 2}
        # Neither what is no request, nor what fastlb answers by itself, nor interim answers.
        client.send(b"CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n")
        client.response()
        a.stop()
        assert w.ask("/").start.split(b" ")[1] == b"503"
        assert calls(w, *names) == {"first": 2, "plain": 3, "last": 2}


def test_not_on_interim_answers(a: HttpNode) -> None:
    script = (
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    with RawNode(script) as node, ruled_worker(config(node, "last"), my=TEXT) as w:
        assert len(w.ask("/").interim) == 3
        assert calls(w, "last") == {"last": 1}


def test_a_failure_answers_500_where_that_is_asked_for(a: HttpNode) -> None:
    with ruled_worker(config(a, "plain", on_error="500"), my=TEXT) as w:
        assert w.ask("/boom").start.split(b" ")[1] == b"500"
        assert w.ask("/").start.split(b" ")[1] == b"200"
        assert w.stats["causes"] == {"rule-failed": 1}


@pytest.mark.parametrize("on_error", ["continue", "500"])
def test_a_rule_that_does_not_end_though_cancelled_is_abandoned(a: HttpNode, on_error: str) -> None:
    """It holds the thread of the event loop; the exchange goes on without it."""
    new = config(a, "blocks", timeout="100ms", on_error=on_error)
    with ruled_worker(new, my=TEXT) as w:
        answer = w.ask("/asked")
        assert answer.start.split(b" ")[1] == (b"200" if on_error == "continue" else b"500")
        w.wait_objects(rule_calls=0, rule_states=0)
    assert [one.target for one in a.requests] == ([b"/asked"] if on_error == "continue" else [])


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_is_gone_before_its_rules_begin_or_then(a: HttpNode, half: bool) -> None:
    with ruled_worker(config(a, "waits"), my=TEXT) as w, w.client() as client:
        with w.frozen():
            client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            if half:
                client.half_close()
            else:
                client.reset()
        w.wait_objects(clients=0, exchanges=0, rule_calls=0, rule_states=0)
    assert a.requests == []


def test_a_node_that_goes_while_response_rules_wait(a: HttpNode) -> None:
    text = TEXT + (
        "@rule.response\nasync def late(request, response):\n    await asyncio.sleep(0.05)\n"
    )

    def script(x) -> None:
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        x.reset()

    with RawNode(script) as node, ruled_worker(config(node, "late"), my=text) as w:
        with w.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            with pytest.raises((Truncated, ConnectionResetError)):
                client.response()
        w.wait_objects(exchanges=0, node_connections=0, buffers=0, rule_calls=0, rule_states=0)
        assert w.stats["causes"] == {"node-closed": 1}


def test_a_passage_ends_where_its_rules_fail_or_its_client_leaves() -> None:
    with TcpNode() as node:
        new = config(node.address, "slow", timeout="50ms", on_error="500")
        new["virtual_servers"]["shop"]["protocol"] = "tcp"
        with ruled_worker(new, my=TEXT) as w:
            with Peer.connect(w.address()) as client:
                client.send(b"hello")
                until(lambda: w.stats["causes"] == {"rule-failed": 1}, "the rule failed")
            w.use(changed(new, "rules.timeout", "1m"))
            with Peer.connect(w.address()) as client:
                client.send(b"hello")
                w.wait_objects(rule_calls=1)
                client.reset()
            w.wait_objects(clients=0, exchanges=0, buffers=0, rule_calls=0, rule_states=0)
