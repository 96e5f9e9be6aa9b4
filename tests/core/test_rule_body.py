"""What gathering a body holds of memory, and that all of it is given back. What rules, nodes and
clients see of it is told in tests/proxy/test_111_rules_async.py."""

import pytest

from tests.harness import HttpNode, settings
from tests.harness.rules import ruled_worker
from tests.harness.settings import Config, changed

TEXT = """import asyncio
from fastlb import rule
@rule.request
async def reads(request):
    body = await request.body(limit="1MiB")
    request.headers["X-Bytes"] = str(len(body))
    if request.path == "/holds":
        await asyncio.sleep(60)
"""
NOTHING = {"exchanges": 0, "buffers": 0, "rule_calls": 0, "rule_states": 0}


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


def config(a: HttpNode, **more: object) -> Config:
    new = changed(settings(a, **more), "virtual_servers.shop.rules", ["my:reads"])
    return changed(new, "rules.timeout", "1m")


def post(target: str, count: int) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {count}\r\n\r\n"
    return head.encode()


@pytest.mark.parametrize("sent", [0, 20_000, 200_000])
def test_a_client_that_leaves_in_the_middle(a: HttpNode, sent: int) -> None:
    with ruled_worker(config(a), my=TEXT) as w:
        for _ in range(3):
            with w.client() as client:
                client.send(post("/", 300_000), b"x" * sent)
                w.wait_objects(rule_calls=1, buffers=1)
                client.reset()
            w.wait_objects(**NOTHING)
    assert a.requests == []


def test_a_client_that_leaves_while_the_rule_has_the_body(a: HttpNode) -> None:
    with ruled_worker(config(a), my=TEXT) as w:
        with w.client() as client:
            client.send(post("/holds", 300_000), b"x" * 300_000)
            w.wait_objects(rule_calls=1, buffers=2)
            client.reset()
        w.wait_objects(**NOTHING)


def test_a_rule_that_is_abandoned_with_the_body(a: HttpNode) -> None:
    with ruled_worker(changed(config(a), "rules.timeout", "50ms"), my=TEXT) as w:
        with w.client() as client:
            client.send(post("/holds", 300_000), b"x" * 300_000)
            assert client.response().start.split(b" ")[1] == b"200"
        w.wait_objects(**NOTHING)
    assert a.requests[0].body == b"x" * 300_000


def test_no_memory_for_it_is_503(a: HttpNode) -> None:
    with ruled_worker(config(a, limits={"buffers": "4MiB"}), my=TEXT) as w:
        clients = []
        for i in (1, 2):
            clients.append(w.client())
            clients[-1].send(post("/holds", 900_000), b"x" * 900_000)
            w.wait_objects(rule_calls=i, buffers=2 * i)
        with w.client() as client:
            client.send(post("/", 900_000))
            client.send_if_open(b"x" * 900_000)
            assert client.response().start.split(b" ")[1] == b"503"
        for client in clients:
            client.reset()
        w.wait_objects(clients=0, **NOTHING)
        assert w.stats["causes"] == {"no-buffer": 1, "client-closed": 2}
        with w.client() as client:
            client.send(post("/", 900_000), b"x" * 900_000)
            assert client.response().start.split(b" ")[1] == b"200"
