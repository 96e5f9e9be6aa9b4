"""Workers die and are replaced, reloads happen in place, stops are graceful: no session is lost."""

import signal
import threading

import pytest

from tests.harness import (
    HttpNode,
    RawNode,
    changed,
    command,
    proxy,
    reply,
    request,
    settings,
    sticky,
    until,
)


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def held(go, body=b"held"):
    def script(exchange):
        exchange.wait(go)
        exchange.send(reply(200, body))

    return script


def test_a_killed_worker_is_replaced_and_no_map_is_lost(abc):
    with proxy(settings(*abc, persistence={"type": "ip"}, workers=2)) as p:
        homes = {n: p.get(source=f"127.0.20.{n}").node for n in range(1, 14)}
        for index in (0, 1):
            p.wait_worker_replaced(p.kill_worker(index))
            again = {n: p.get(source=f"127.0.20.{n}").node for n in homes}
            assert again == homes
        assert p.status()["persistence"]["shop"]["entries"] == 13


def test_cookies_outlive_every_worker(abc):
    with proxy(sticky(*abc, workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(7)]
        for user in users:
            user.get()
        for index in (0, 1):
            p.wait_worker_replaced(p.kill_worker(index))
        for user in users:
            assert user.get().all("Set-Cookie") == []
    assert [len(set(user.nodes)) for user in users] == [1] * 7


def test_while_a_worker_is_dead_connections_are_still_accepted(abc):
    with proxy(settings(*abc, workers=2)) as p:
        gone = p.kill_worker(0)
        statuses = {p.get(source=f"127.0.21.{n}").status for n in range(1, 40)}
        p.wait_worker_replaced(gone)
    assert statuses == {200}


def test_the_only_worker_killed_again_and_again_comes_back(abc):
    with proxy(settings(*abc, persistence={"type": "ip"})) as p:
        home = p.get().node
        for _ in range(4):
            p.wait_worker_replaced(p.kill_worker(0))
            assert p.get().node == home


def test_node_load_of_a_dead_worker_is_forgotten(abc):
    """Its open requests must not count for least-connections for ever."""
    go = threading.Event()
    with HttpNode("d") as d:
        answer = d.script
        d.script = lambda exchange: (exchange.wait(go), answer(exchange))
        config = settings(d, pool={"algorithm": "least-connections"})
        with proxy(config) as p:
            clients = [p.client() for _ in range(5)]
            for client in clients:
                client.send(request())
            d.wait_requests(5)
            p.wait_worker_replaced(p.kill_worker(0))
            for client in clients:
                client.sock.close()
            go.set()
            until(
                lambda: p.status()["pools"]["web"]["nodes"][0]["connections"] == 0,
                "the dead worker's connections are forgotten",
            )


def test_a_reload_keeps_running_requests_and_workers(abc):
    a, b, _ = abc
    go = threading.Event()
    with RawNode({"/slow": held(go), "*": reply(200, b"quick")}) as slow:
        config = settings(slow)
        with proxy(config) as p, p.client() as client:
            pids = p.worker_pids()
            client.send(request("/slow"))
            slow.wait_requests(1)
            for _ in range(3):
                assert p.reload(changed(config, "pools.web.nodes", [a, b])).returncode == 0
                assert p.get().node in ("a", "b")
                assert p.reload(config).returncode == 0
                assert p.get().body == b"quick"
            go.set()
            assert client.response().body == b"held"
            assert client.ask().body == b"quick"
            assert p.worker_pids() == pids


def test_a_reload_keeps_tunnels(abc):
    def echo(exchange):
        exchange.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := exchange.connection.reader.sock.recv(100):
            exchange.send(data)
        exchange.close()

    with RawNode(echo) as node:
        config = settings(node)
        with proxy(config) as p, p.client() as client:
            client.send(request("/", ("Connection", "upgrade"), ("Upgrade", "echo")))
            client.response()
            assert p.reload(changed(config, "pools.web.nodes", [abc[0]])).returncode == 0
            assert p.get().node == "a"
            client.send(b"still")
            assert client.reader.exactly(5) == b"still"


def test_a_reload_under_load_fails_no_request(abc):
    a, b, c = abc
    config = settings(a, b, c, workers=2)
    fewer = changed(config, "pools.web.nodes", [a, b])
    stop = threading.Event()
    failures = []
    served = []

    def load(p):
        with p.client() as client:
            while not stop.is_set():
                try:
                    served.append(client.ask().status)
                except Exception as error:
                    failures.append(error)
                    return

    with proxy(config) as p:
        threads = [threading.Thread(target=load, args=(p,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for number in range(6):
            assert p.reload(fewer if number % 2 == 0 else config).returncode == 0
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(served) == {200}


def test_a_reload_of_a_bad_configuration_changes_nothing_and_says_why(abc):
    config = sticky(*abc)
    with proxy(config) as p:
        user = p.user("alice")
        user.get()
        bad = changed(config, "pools.web.algorithm", "round-robbin")
        done = p.reload(bad)
        assert done.returncode != 0
        assert "round-robbin" in done.stderr
        assert "round-robin" in done.stderr
        user.get()
        assert p.user("bob").get().status == 200
    assert len(set(user.nodes)) == 1


def test_a_class_can_be_added_and_changed_by_reload(abc):
    plain = settings(*abc)
    with proxy(plain) as p:
        assert p.get().all("Set-Cookie") == []
        assert p.reload(sticky(*abc)).returncode == 0
        user = p.user("alice")
        for _ in range(5):
            user.get()
        assert p.reload(plain).returncode == 0
        assert p.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones():
    go = threading.Event()
    with RawNode(held(go)) as node:
        with proxy(settings(node, timeouts={"drain": "20s"})) as p:
            with p.client() as busy, p.client() as idle:
                busy.send(request())
                node.wait_requests(1)
                p.process.send_signal(signal.SIGTERM)
                idle.expect_closed()
                until(lambda: refused(p), "new connections are refused")
                go.set()
                assert busy.response().body == b"held"
                assert p.process.wait(10) == 0


def refused(p):
    try:
        p.client().sock.close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_drain_time_bounds_a_stop():
    with RawNode(lambda exchange: exchange.wait_end()) as node:
        with proxy(settings(node, timeouts={"drain": "1s"})) as p, p.client() as client:
            client.send(request())
            node.wait_requests(1)
            assert command("stop", "-c", str(p.file)).returncode == 0
            assert p.process.wait(10) == 0


def test_a_stalled_control_process_stalls_no_request(abc):
    with proxy(sticky(*abc, workers=2)) as p:
        user = p.user("alice")
        user.get()
        p.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(10):
                user.get()
            assert {p.user(f"u{n}").get().status for n in range(10)} == {200}
        finally:
            p.process.send_signal(signal.SIGCONT)
    assert len(set(user.nodes)) == 1


def test_no_process_is_left_behind(abc):
    from pathlib import Path

    with proxy(settings(*abc, workers=2)) as p:
        pids = p.worker_pids()
        assert len(set(pids)) == 2
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
