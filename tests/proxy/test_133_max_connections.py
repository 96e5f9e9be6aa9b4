"""A node never has more connections than its max_connections, whoever opens them."""

import threading

import pytest

from tests.harness import CountingNode, proxy, settings, until

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
