"""What calls and states of rules hold in a real worker, and that all of it is given back."""

import pytest

from fastlb._core.stats import read_rule
from tests.harness import HttpNode, settings
from tests.harness.rules import ruled_worker
from tests.harness.settings import Config, changed
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess

TEXT = """import asyncio
from fastlb import rule
@rule.connection
def first(connection):
    connection.data["mark"] = Mark()
    connection.log["a"] = "x" * 200
@rule.request
async def waits(request):
    request.data["own"] = Mark()
    await asyncio.sleep(0 if request.path == "/" else 60)
@rule.response
def last(request, response):
    response.headers["X-Marks"] = str(alive)
    response.headers["X-Own"] = str("mark" in request.data and "own" in request.data)
alive = 0
class Mark:
    def __init__(self):
        global alive
        alive += 1
    def __del__(self):
        global alive
        alive -= 1
"""
NOTHING = {"rule_calls": 0, "rule_states": 0}


def waiting(w: WorkerProcess) -> int:
    at = w.shared.address(w.shared.counters[0])
    return sum(read_rule(at, slot)["waiting"] for slot in range(4))


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


def config(a: HttpNode, *names: str) -> Config:
    new = changed(settings(a), "rules.timeout", "1m")
    return changed(new, "virtual_servers.shop.rules", [f"my:{name}" for name in names])


def test_a_connection_at_rest_keeps_what_its_rules_asked_for_and_nothing_else(a: HttpNode) -> None:
    with ruled_worker(config(a, "first", "waits", "last"), my=TEXT) as w:
        with w.client() as client:
            for _ in range(3):
                assert client.ask("/").get("X-Own") == b"True"
                w.wait_objects(rule_calls=0, rule_states=1, exchanges=0, buffers=0)
        w.wait_objects(clients=0, **NOTHING)
        # Two are this connection's and this request's own.
        assert w.ask("/").get("X-Marks") == b"2"


def test_calls_that_wait_hold_their_states(a: HttpNode) -> None:
    with ruled_worker(config(a, "first", "waits", "last"), my=TEXT) as w:
        clients = [w.client() for _ in range(5)]
        for client in clients:
            client.send(b"GET /long HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        w.wait_objects(rule_calls=5, rule_states=10, exchanges=5)
        until(lambda: waiting(w) == 5, "rules wait")
        for client in clients:
            client.reset()
        w.wait_objects(clients=0, exchanges=0, buffers=0, **NOTHING)
        until(lambda: waiting(w) == 0, "no rule waits")
        assert w.ask("/").get("X-Marks") == b"2"


def test_the_plan_of_a_call_is_held_and_then_given_up(a: HttpNode) -> None:
    with ruled_worker(config(a, "first", "waits", "last"), my=TEXT) as w:
        with w.client() as client:
            client.send(b"GET /long HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            w.wait_objects(rule_calls=1)
            w.use(config(a, "first"))
            assert w.plans_mapped() == 2
            client.reset()
        until(lambda: w.plans_mapped() == 1, "the old plan is gone")
        w.wait_objects(**NOTHING)


def test_a_worker_that_ends_with_calls_under_way_leaves_nothing(a: HttpNode) -> None:
    with ruled_worker(config(a, "first", "waits", "last"), my=TEXT) as w:
        clients = [w.client() for _ in range(5)]
        for client in clients:
            client.send(b"GET /long HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        w.wait_objects(rule_calls=5)
        w.stop()
        for client in clients:
            client.expect_closed()
            client.reset()


def test_what_is_not_asked_for_is_not_there(a: HttpNode) -> None:
    """Response rules alone: nothing before them, and nothing kept by the connection."""
    with ruled_worker(config(a, "last"), my=TEXT) as w, w.client() as client:
        assert client.ask("/").get("X-Own") == b"False"
        w.wait_objects(exchanges=0, **NOTHING)
