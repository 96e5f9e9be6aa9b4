"""Who gets a request without a session: every algorithm, weights, backups, drained nodes."""

import threading
from collections import Counter

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings

ALGORITHMS = [
    "round-robin", "weighted-round-robin", "least-connections", "random-of-two",
    "fastest-response", "hash",
]  # fmt: skip


def spread(p, count, **more):
    return Counter(p.get(f"/{n}", **more).node for n in range(count))


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_serves_every_request(abc, algorithm):
    with proxy(settings(*abc, pool={"algorithm": algorithm})) as p:
        assert spread(p, 30).total() == 30


def test_round_robin_takes_turns(abc):
    with proxy(settings(*abc, pool={"algorithm": "round-robin"})) as p:
        names = [p.get().node for _ in range(12)]
    assert Counter(names) == {"a": 4, "b": 4, "c": 4}
    assert all(len(set(names[at : at + 3])) == 3 for at in range(0, 12, 3))


def weighted(abc):
    return [
        {"address": node, "weight": weight} for node, weight in zip(abc, (5, 2, 1), strict=True)
    ]


def test_weighted_round_robin_follows_the_weights_smoothly(abc):
    with proxy(settings(*weighted(abc), pool={"algorithm": "weighted-round-robin"})) as p:
        names = [p.get().node for _ in range(24)]
    assert Counter(names) == {"a": 15, "b": 6, "c": 3}
    assert "aaaa" not in "".join(names), "the heavy node's turns come in one burst"


@pytest.mark.parametrize("algorithm", ["least-connections", "random-of-two"])
def test_weights_matter_to_the_load_aware_algorithms(abc, algorithm):
    with proxy(settings(*weighted(abc), pool={"algorithm": algorithm})) as p:
        counts = loaded_spread(p, abc, 48)
    assert counts["a"] > counts["c"]


def loaded_spread(p, nodes, count):
    """Which nodes hold `count` requests that are all unanswered at the same time."""
    go = threading.Event()

    def hold(exchange):
        exchange.wait(go)
        exchange.send(reply(200))

    for node in nodes:
        node.script = hold
    clients = []
    for number in range(count):
        clients.append(p.client())
        clients[-1].send(request())
        while sum(len(node.requests) for node in nodes) <= number:
            threading.Event().wait(0.001)
    counts = Counter({node.name: len(node.requests) for node in nodes})
    go.set()
    for client in clients:
        assert client.response().status == 200
        client.sock.close()
    return counts


def test_least_connections_fills_the_emptiest(abc):
    with proxy(settings(*abc, pool={"algorithm": "least-connections"})) as p:
        assert loaded_spread(p, abc, 30) == {"a": 10, "b": 10, "c": 10}


def test_least_connections_counts_for_the_machine_and_not_per_worker(abc):
    config = settings(*abc, pool={"algorithm": "least-connections"}, workers=2)
    with proxy(config) as p:
        counts = loaded_spread(p, abc, 30)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_random_of_two_avoids_the_busiest(abc):
    with proxy(settings(*abc, pool={"algorithm": "random-of-two"})) as p:
        counts = loaded_spread(p, abc, 60)
    assert max(counts.values()) - min(counts.values()) <= 8


def test_fastest_response_prefers_the_fast_node():
    def slow(exchange):
        assert not threading.Event().wait(0.03)
        exchange.send(reply(200, b"slow"))

    with RawNode(slow) as turtle, RawNode(reply(200, b"fast")) as hare:
        with proxy(settings(turtle, hare, pool={"algorithm": "fastest-response"})) as p:
            counts = Counter(p.get().body for _ in range(60))
    assert counts[b"fast"] > counts[b"slow"]


def test_hash_gives_a_client_address_its_node_and_spreads_addresses(abc):
    with proxy(settings(*abc, pool={"algorithm": "hash"})) as p:
        homes = {}
        for turn in range(3):
            for host in range(1, 32):
                name = p.get(source=f"127.0.9.{host}").node
                assert homes.setdefault(host, name) == name, turn
    assert len(set(homes.values())) == 3


def test_a_backup_serves_only_when_the_others_are_gone():
    with HttpNode("main") as main, HttpNode("spare") as spare:
        config = settings(main, {"address": spare, "backup": True})
        with proxy(config) as p:
            assert spread(p, 10) == {"main": 10}
            main.stop()
            assert spread(p, 10) == {"spare": 10}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_draining_node_gets_no_new_session(abc, algorithm):
    a, b, c = abc
    nodes = [a, {"address": b, "draining": True}, c]
    with proxy(settings(*nodes, pool={"algorithm": algorithm})) as p:
        assert "b" not in spread(p, 30)


def test_a_node_of_weight_0_gets_no_new_session(abc):
    a, b, c = abc
    nodes = [a, {"address": b, "weight": 0}, c]
    with proxy(settings(*nodes, pool={"algorithm": "weighted-round-robin"})) as p:
        assert "b" not in spread(p, 30)


def test_all_draining_serves_or_refuses_as_configured(abc):
    nodes = [{"address": node, "draining": True} for node in abc]
    with proxy(settings(*nodes, pool={"drain_last": "serve"})) as p:
        assert spread(p, 6).total() == 6
    with proxy(settings(*nodes, pool={"drain_last": "refuse"})) as p:
        assert p.get().status == 503
