"""The number of workers changes by a reload: no connection is refused, cut or forgotten."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.harness import HttpNode, RawNode, changed, proxy, reply, request, settings, until
from tests.harness.lasting import Load, Tunnel, echo
from tests.harness.operator import descriptors


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def resized(p, config, workers):
    done = p.reload(changed(config, "proxy.workers", workers))
    assert (done.returncode, done.stderr) == (0, "")
    p.workers = workers


def leaving(p):
    return [worker["pid"] for worker in p.status()["leaving"]]


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


def test_more_and_fewer_workers_under_load(ab):
    config = settings(*ab, persistence={"type": "ip"}, workers=2, timeouts={"drain": "5s"})
    with proxy(config) as p, Load(p) as load:
        before = p.worker_pids()
        for count in (4, 1, 3, 2):
            resized(p, config, count)
            pids = p.worker_pids()
            assert len(set(pids)) == count
            assert pids[0] == before[0], "the first worker stays"
            load.more(30)
        until(lambda: not leaving(p), "the end of those that leave")
    assert load.failures == []
    assert {len(nodes) for nodes in load.nodes.values()} == {1}, "sessions stay"


def test_what_is_queued_at_a_socket_is_served_by_another_worker(ab):
    """The worker that leaves is frozen: it could not even take them over the edge."""
    config = settings(*ab, workers=2, timeouts={"drain": "5s"})
    with proxy(config) as p:
        frozen = p.worker_pids()[1]
        os.kill(frozen, signal.SIGSTOP)
        try:
            clients = [p.client() for _ in range(40)]  # some are queued at the frozen one
            for client in clients:
                client.send(request())
            resized(p, config, 1)
            assert {client.response().status for client in clients} == {200}
        finally:
            os.kill(frozen, signal.SIGCONT)
        until(lambda: gone(frozen), "its end")
        for client in clients:
            client.sock.close()


def test_a_worker_that_leaves_finishes_what_it_has():
    go = threading.Event()

    def slow(exchange):
        go.wait(120)
        exchange.send(reply(200, b"late"))

    with RawNode({"/slow": slow, "/echo": echo, "*": reply(200, b"quick")}) as node:
        config = settings(node, workers=2, timeouts={"drain": "20s"})
        with proxy(config) as p:
            tunnels = [Tunnel(p) for _ in range(8)]
            slows = [p.client() for _ in range(8)]
            for client in slows:
                client.send(request("/slow"))
            node.wait_requests(16)
            (leaves,) = p.worker_pids()[1:]
            resized(p, config, 1)
            assert leaving(p) == [leaves]
            for tunnel in tunnels:
                tunnel.says()
            go.set()
            for client in slows:
                assert client.response().body == b"late"
                client.sock.close()
            assert leaving(p) == [leaves], "tunnels are still open"
            for tunnel in tunnels:
                tunnel.client.sock.close()
            until(lambda: gone(leaves), "its end")
            assert p.get().body == b"quick"


def test_idle_connections_of_a_worker_that_leaves_are_told_with_their_next_answer(ab):
    config = settings(*ab, workers=2, timeouts={"drain": "30s", "keep_alive": "90s"})
    with proxy(config) as p:
        clients = [p.client() for _ in range(12)]
        for client in clients:
            assert client.ask().get("Connection") is None
        leaves = p.worker_pids()[1]
        resized(p, config, 1)
        until(lambda: leaving(p) == [leaves], "that it leaves")
        closed = 0
        for client in clients:
            answer = client.ask()
            assert answer.status == 200
            if answer.get("Connection") == b"close":
                closed += 1
                client.expect_closed()
            client.sock.close()
        assert closed > 0
        until(lambda: gone(leaves), "its end")


def test_the_drain_time_is_the_end_of_what_a_leaving_worker_has():
    with RawNode({"/echo": echo, "*": reply(200, b"quick")}) as node:
        config = settings(node, workers=2, timeouts={"drain": "1s"})
        with proxy(config) as p:
            tunnels = [Tunnel(p) for _ in range(8)]
            leaves = p.worker_pids()[1]
            resized(p, config, 1)
            until(lambda: gone(leaves), "its end")
            for tunnel in tunnels:
                tunnel.client.sock.close()
            assert "did not end in time" not in p.stderr()


def test_a_replaced_worker_has_all_the_sockets_of_the_one_before(ab):
    config = settings(*ab, workers=3)
    with proxy(config) as p:
        resized(p, config, 1)
        p.wait_worker_replaced(p.kill_worker(0))
        assert {p.get().status for _ in range(30)} == {200}


def test_a_reload_that_fails_starts_no_worker(ab):
    config = settings(*ab, workers=1)
    with proxy(config) as p:
        pids = p.worker_pids()
        bad = changed(changed(config, "proxy.workers", 4), "virtual_servers.shop.listen", [
            *config["virtual_servers"]["shop"]["listen"], "192.0.2.77:80",
        ])  # fmt: skip
        done = p.reload(bad)
        assert done.returncode == 1
        assert "192.0.2.77:80" in done.stderr
        assert p.worker_pids() == pids
        assert {p.get().status for _ in range(20)} == {200}, "no socket that nobody serves"


def test_counters_of_workers_that_have_left_stay(ab):
    config = settings(*ab, workers=3)
    with proxy(config) as p:
        for _ in range(30):
            p.get()
        resized(p, config, 1)
        until(lambda: not leaving(p), "the end of those that leave")
        until(lambda: p.status()["virtual_servers"]["shop"]["requests"] == 30, "all are counted")


def test_twenty_changes_leave_no_descriptor_behind(ab):
    config = settings(*ab, workers=1)
    with proxy(config) as p:
        pid = p.process.pid
        for _ in range(2):  # what is opened once is open then
            resized(p, config, 2)
            resized(p, config, 1)
        until(lambda: not leaving(p), "the end of those that leave")
        p.status()
        before = descriptors(pid), descriptors(p.worker_pids()[0])
        for _ in range(10):
            resized(p, config, 2)
            resized(p, config, 1)
        until(lambda: not leaving(p), "the end of those that leave")
        until(lambda: no_more_than(before, (pid, p.worker_pids()[0])), "no more than before")


def no_more_than(before, pids):
    return all(descriptors(pid) <= was for pid, was in zip(pids, before, strict=True))
