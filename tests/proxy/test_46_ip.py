"""Persistence by client address: one cache for all workers, pools and connections."""

import threading
from collections import Counter

import pytest

from tests.harness import ANY_PORT, HttpNode, changed, proxy, settings


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def by_ip(nodes, workers=1, **keys):
    return settings(*nodes, persistence={"type": "ip", **keys}, workers=workers)


def test_an_address_keeps_its_node_and_addresses_are_spread(abc):
    with proxy(by_ip(abc)) as p:
        homes = {}
        for _ in range(4):
            for host in range(1, 11):
                node = p.get(source=f"127.0.3.{host}").node
                assert homes.setdefault(host, node) == node
    assert sorted(Counter(homes.values()).values()) == [3, 3, 4]


def test_every_worker_knows_every_session(abc):
    with proxy(by_ip(abc, workers=2)) as p:
        homes = {}
        for _ in range(8):
            for host in range(1, 9):
                node = p.get(source=f"127.0.3.{host}").node
                assert homes.setdefault(host, node) == node
        requests = [worker["requests"] for worker in p.status()["workers"]]
    assert all(count > 0 for count in requests), "one worker served everything"
    assert sum(requests) == 64


def test_first_requests_of_one_address_at_the_same_time_agree(abc):
    with proxy(by_ip(abc, workers=2)) as p:
        for round_number in range(10):
            source = f"127.0.4.{round_number + 1}"
            nodes = []
            ready = threading.Barrier(8)

            def one(source=source, nodes=nodes, ready=ready):
                with p.client(source) as client:
                    ready.wait(10)
                    nodes.append(client.ask().node)

            threads = [threading.Thread(target=one) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(set(nodes)) == 1, nodes


def test_a_prefix_makes_neighbours_one_client(abc):
    with proxy(by_ip(abc, ipv4_prefix=24)) as p:
        assert len({p.get(source=f"127.0.5.{host}").node for host in range(1, 8)}) == 1
        assert len({p.get(source=f"127.0.{net}.1").node for net in range(10, 16)}) == 3


def test_a_full_cache_forgets_the_least_recently_used(abc):
    with proxy(by_ip(abc, size=16)) as p:
        for host in range(1, 17):
            p.get(source=f"127.0.6.{host}")
        p.get(source="127.0.6.1")
        p.get(source="127.0.6.17")
        assert p.outcomes(18) == ["new"] * 16 + ["hit", "new"]
        for host in (1, 3, 16, 17, 2):
            p.get(source=f"127.0.6.{host}")
        assert p.outcomes(23)[18:] == ["hit"] * 4 + ["new"]
        status = p.status()["persistence"]["shop"]
    assert (status["entries"], status["entries_max"], status["evictions"]) == (16, 16, 2)


def test_a_map_expires_since_its_last_use(abc):
    with proxy(by_ip(abc, expiry="1s")) as p:
        p.get(source="127.0.7.1")
        assert not threading.Event().wait(1.5)
        p.get(source="127.0.7.1")
        assert p.outcomes(2) == ["new", "expired"]
        assert p.status()["persistence"]["shop"]["expiries"] == 1


def test_expiry_0_is_never(abc):
    with proxy(by_ip(abc, expiry="0s")) as p:
        p.get(source="127.0.7.2")
        p.get(source="127.0.7.2")
        assert p.outcomes(2) == ["new", "hit"]


def test_two_pools_share_a_class_and_a_client_stays_on_its_machine():
    """The same machines serve two pools on different ports."""
    with HttpNode("web-1") as web1, HttpNode("web-2") as web2:
        with HttpNode("api-1", host=web1.host) as api1, HttpNode("api-2", host=web2.host) as api2:
            config = by_ip([web1, web2])
            config["virtual_servers"]["api"] = {
                "listen": [ANY_PORT], "protocol": "http", "pool": "api",
            }  # fmt: skip
            config["pools"]["api"] = {"nodes": [api2, api1], "persistence": "shop"}
            with proxy(config) as p:
                for host in range(1, 9):
                    source = f"127.0.8.{host}"
                    web = p.get(source=source).node
                    api = p.get(source=source, server="api").node
                    assert web.removeprefix("web-") == api.removeprefix("api-")


def test_failure_of_the_node_moves_the_session_for_good():
    nodes = {name: HttpNode(name) for name in "ab"}
    for node in nodes.values():
        node.start()
    try:
        with proxy(by_ip(nodes.values())) as p:
            home = p.get().node
            nodes[home].stop()
            other = p.get().node
            assert other != home
            nodes[home].start()
            assert [p.get().node for _ in range(4)] == [other] * 4
            assert p.outcomes(6) == ["new", "connect-failed"] + ["hit"] * 4
    finally:
        for node in nodes.values():
            node.stop()


@pytest.mark.parametrize(("delete", "later"), [(True, "new"), (False, "hit")])
def test_close_with_and_without_delete_on_failure(delete, later):
    nodes = {name: HttpNode(name) for name in "ab"}
    for node in nodes.values():
        node.start()
    try:
        config = by_ip(nodes.values(), failure_mode="close", delete_on_failure=delete)
        with proxy(config) as p:
            home = p.get().node
            nodes[home].stop()
            assert p.get().status == 503
            nodes[home].start()
            from tests.harness import until

            until(lambda: p.get().status == 200, "the session is served again")

            def served():
                return [line["outcome"] for line in p.log_lines() if line["status"] == 200]

            until(lambda: len(served()) >= 2, "the second request served is in the log")
            assert served()[1] == later
    finally:
        for node in nodes.values():
            node.stop()


def test_a_map_survives_a_reload_that_changes_the_pool(abc):
    a, b, c = abc
    config = by_ip([a, b])
    with proxy(config) as p:
        homes = {host: p.get(source=f"127.0.9.{host}").node for host in range(1, 7)}
        assert p.reload(changed(config, "pools.web.nodes", [c, b, a])).returncode == 0
        again = {host: p.get(source=f"127.0.9.{host}").node for host in range(1, 7)}
    assert again == homes


def test_maps_survive_a_full_stop_and_start(abc, tmp_path):
    config = by_ip(abc)
    config["proxy"]["state_dir"] = str(tmp_path / "state")
    with proxy(config) as p:
        homes = {host: p.get(source=f"127.0.9.{host}").node for host in range(1, 7)}
    with proxy(config) as p:
        again = {host: p.get(source=f"127.0.9.{host}").node for host in reversed(homes)}
        assert p.outcomes(6) == ["hit"] * 6
    assert again == homes
