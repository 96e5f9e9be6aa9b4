"""Listening addresses come, go and move by reload, while connections arrive."""

import pytest

from tests.harness import HttpNode, changed, proxy, settings
from tests.harness.client import Client
from tests.harness.proxy import free_port


def moved(config, name):
    """The virtual server under another name: the same address, another listener."""
    return changed(config, "virtual_servers", {name: config["virtual_servers"]["shop"]})


def test_an_address_moves_to_another_virtual_server_without_a_worker_dying():
    with HttpNode("a") as a:
        config = settings(a, workers=2)
        with proxy(config) as p:
            pids = p.worker_pids()
            listen = p.config["virtual_servers"]["shop"]["listen"]
            for name in ("one", "two", "three"):
                new = changed(moved(config, name), f"virtual_servers.{name}.listen", listen)
                assert p.reload(new).returncode == 0
                answers = {p.get(source=f"127.0.30.{n}").node for n in range(1, 9)}
                assert answers == {"a"}
            assert p.worker_pids() == pids
            assert set(p.status()["virtual_servers"]) == {"three"}


def test_an_address_that_is_taken_away_refuses_and_the_others_serve():
    with HttpNode("a") as a:
        port = free_port()
        second = f"127.0.0.1:{port}"
        config = settings(a, server={"listen": ["127.0.0.1:0", second]})
        with proxy(config) as p:
            pids = p.worker_pids()
            for _ in range(3):
                fewer = changed(config, "virtual_servers.shop.listen", ["127.0.0.1:0"])
                assert p.reload(fewer).returncode == 0
                assert p.get().node == "a"
                with pytest.raises(ConnectionRefusedError):
                    Client(("127.0.0.1", port))
                assert p.reload(config).returncode == 0
                with Client(("127.0.0.1", port)) as client:
                    assert client.ask().node == "a"
            assert p.worker_pids() == pids
