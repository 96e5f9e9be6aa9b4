"""A node never has more connections than its max_connections, whoever opens them."""

import threading

import pytest

from tests.core.handshakes import certificate
from tests.harness import CountingNode, proxy, settings, until
from tests.harness.tls_node import TlsNode

MOMENT = 0.005


def limited(*nodes, most=3, **more):
    return settings(*({"address": one, "max_connections": most} for one in nodes), **more)


def crowd(p, clients, requests, status=200):
    """So many clients at one time, each with so many requests on one connection; what they got."""
    got = []

    def one(number):
        with p.client() as client:
            got.extend(client.ask(f"/{number}/{n}").status for n in range(requests))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("most", [1, 3])
def test_never_more_than_its_limit_and_everybody_is_served(workers, most):
    with CountingNode(seconds=MOMENT) as node:
        with proxy(limited(node, most=most, workers=workers)) as p:
            assert crowd(p, 16, 5) == [200] * 80
            until(lambda: p.status()["pools"]["web"]["waiting"] == 0, "an empty queue")
            pool = p.status()["pools"]["web"]
    assert node.most_open <= most
    assert node.most_requests == most
    assert pool["waited"] > 0
    assert pool["queue_full"] == pool["queue_timeouts"] == 0


class CountingTlsNode(TlsNode):
    most_open = 0

    def _answer(self, exchange):
        self.most_open = max(self.most_open, CountingNode.open_now(self, MOMENT))
        super()._answer(exchange)


def test_over_tls_too():
    with CountingTlsNode("a", certificate()) as node:
        config = limited(node, most=2, workers=2, pool={"tls": {"verify": False}})
        with proxy(config) as p:
            assert crowd(p, 8, 3) == [200] * 24
            (one,) = p.status()["pools"]["web"]["nodes"]
            assert one["open"] <= 2
            assert one["reuses"] > 0
    assert node.most_open == 2


@pytest.mark.parametrize("most", [1, 2])
def test_idle_connections_of_one_worker_do_not_keep_the_others_out(most):
    with CountingNode() as node, proxy(limited(node, most=most, workers=4)) as p:
        for n in range(40):  # each connection may come to another worker
            assert p.get(f"/{n}").status == 200
        assert p.status()["pools"]["web"]["queue_timeouts"] == 0
    assert node.most_open <= most


def test_one_worker_keeps_the_connections_that_it_may_have():
    with CountingNode() as node, proxy(limited(node, most=1)) as p:
        for n in range(10):
            assert p.get(f"/{n}").status == 200
    assert len(node.connections) == 1


def test_a_node_that_refuses_holds_no_place():
    with CountingNode() as node:
        node.stop()
        with proxy(limited(node, most=1, pool={"passive": {"failures": 0}})) as p:
            for _ in range(5):
                assert p.get().status == 503
            assert p.status()["pools"]["web"]["nodes"][0]["open"] == 0
            node.start()
            assert p.get().status == 200
