"""The control process dies: workers serve on, and the next one takes them over as they are."""

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import (
    HttpNode,
    RawNode,
    changed,
    proxy,
    reply,
    request,
    settings,
    sticky,
    toml,
    until,
)
from tests.harness.certificates import Authority
from tests.harness.lasting import Impatient, Load, Tunnel, echo, lasting
from tests.harness.operator import descriptors
from tests.harness.tls_client import TlsClient, client_context


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


def socket_files(p):
    return sorted(path.name for path in (p.folder / "state/workers").glob("*.sock"))


def test_a_new_control_process_takes_the_workers_over_under_load(ab):
    config = settings(*ab, persistence={"type": "ip"}, workers=2)
    with lasting(config) as p, Load(p) as load:
        pids, before = p.worker_pids(), p.status()
        for _ in range(3):
            p.crash()
            load.more()
            assert p.orphans() == pids, "FLB-S139 names them"
            load.more()
            p.start()
            assert p.worker_pids() == pids
            load.more()
        after = p.status()
        shop, pool = before["virtual_servers"]["shop"], after["pools"]["web"]
        assert after["virtual_servers"]["shop"]["requests"] > shop["requests"]
        assert after["persistence"]["shop"]["entries"] == 6
        assert sum(node["requests"] for node in pool["nodes"]) > 0
        assert after["uptime_seconds"] >= before["uptime_seconds"]
    assert load.failures == []
    assert {len(nodes) for nodes in load.nodes.values()} == {1}, "sessions stay"


def test_what_runs_goes_on_and_a_reload_reaches_it():
    go = threading.Event()

    def slow(exchange):
        go.wait(120)
        exchange.send(reply(200, b"late"))

    with RawNode({"/slow": slow, "/echo": echo, "*": reply(200, b"quick")}) as node:
        config = settings(node, workers=2, timeouts={"response": "120s", "keep_alive": "120s"})
        with lasting(config) as p, Tunnel(p) as tunnel, p.client() as client, p.client() as idle:
            client.send(request("/slow"))
            node.wait_requests(2)
            assert idle.ask().body == b"quick"
            p.crash()
            tunnel.says()
            assert idle.ask().body == b"quick"
            p.start()
            tunnel.says()
            with HttpNode("new") as new:
                assert p.reload(changed(config, "pools.web.nodes", [new])).returncode == 0
                assert p.get().node == "new"
                assert idle.ask().node == "new"
                tunnel.says()
                go.set()
                assert client.response().body == b"late"
                p.crash()
                p.start()
                tunnel.says()
                assert p.get().node == "new"
        assert go.is_set()


def test_what_operators_said_and_what_nodes_have_stays(ab):
    a, b = ab
    with lasting(sticky(a, b, workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(6)]
        for user in users:
            user.get()
        assert p.command("drain", a.address).returncode == 0
        p.crash()
        p.start()
        states = [node["state"] for node in p.status()["pools"]["web"]["nodes"]]
        assert states == ["draining", "up"]
        for user in users:
            user.get()
        assert {p.user(f"n{n}").get().node for n in range(6)} == {"b"}
        assert {len(set(user.nodes)) for user in users} == {1}


def test_a_worker_that_died_meanwhile_is_started(ab):
    with lasting(settings(*ab, workers=3)) as p:
        pids = p.worker_pids()
        p.crash()
        os.kill(pids[1], signal.SIGKILL)
        until(lambda: gone(pids[1]) or zombie(pids[1]), "its end")
        assert set(p.orphans()) == {pids[0], pids[2]}
        assert socket_files(p) == ["0.sock", "2.sock"], "its socket is removed"
        p.start()
        after = p.worker_pids()
        assert (after[0], after[2]) == (pids[0], pids[2])
        assert after[1] not in pids
        assert {p.get().status for _ in range(40)} == {200}
        p.wait_worker_replaced(p.kill_worker(0))  # adopted, and no child of this one


def zombie(pid):
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_all_workers_dead_is_a_plain_start(ab):
    with lasting(settings(*ab, workers=2)) as p:
        pids = p.worker_pids()
        p.crash()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        p.start()
        assert p.get().status == 200
        assert not set(pids) & set(p.worker_pids())


def test_a_configuration_that_is_wrong_leaves_the_workers_serving(ab):
    config = settings(*ab, workers=2)
    with lasting(config) as p:
        pids = p.worker_pids()
        p.crash()
        right = p.file.read_text()
        p.file.write_text(right.replace("round-robin", "round-robbin"))
        p.spawn()
        assert p.process.wait(20) == 2
        p.file.write_text(right.replace("[pools", 'listen = "192.0.2.7:81"\n[pools', 1))
        p.file.write_text(toml(changed(p.config, "virtual_servers.more", {
            "listen": ["192.0.2.77:80"], "pool": "web",
        })))  # fmt: skip
        p.spawn()
        assert p.process.wait(20) == 1
        assert "192.0.2.77" in p.stderr()
        assert p.get().status == 200
        p.file.write_text(right)
        p.start()
        assert p.worker_pids() == pids


def test_the_configuration_may_have_changed_meanwhile(ab):
    a, b = ab
    config = settings(a, workers=2, persistence={"type": "ip"})
    with lasting(config) as p:
        p.get()
        pids = p.worker_pids()
        p.crash()
        new = changed(changed(p.config, "pools.web.nodes", [b]), "proxy.workers", 1)
        new["virtual_servers"]["more"] = {"listen": [p._free_listen("127.0.0.1")], "pool": "web"}
        new["persistence"]["shop"] = {"type": "ip", "size": 64}
        p.file.write_text(toml(new))
        p.start()
        p.workers = 1
        assert p.worker_pids() == pids[:1]
        assert p.get().node == "b"
        assert p.status()["persistence"]["shop"]["entries_max"] == 64
        p.listens["more", 0] = new["virtual_servers"]["more"]["listen"][0]
        assert p.get(server="more").node == "b"


def test_workers_that_nobody_controls_can_be_stopped(ab):
    with lasting(settings(*ab, workers=2)) as p:
        pids = p.worker_pids()
        p.crash()
        done = p.command("stop")
        assert done.returncode == 0, done.stderr
        assert all(gone(pid) or zombie(pid) for pid in pids)
        assert socket_files(p) == []
        again = p.command("stop")
        assert again.returncode == 1
        assert "FLB-S060" in again.stderr
        p.start()


def test_workers_that_stop_get_others_in_their_place():
    with RawNode({"/echo": echo, "*": reply(200, b"quick")}) as node:
        with lasting(settings(node, workers=2, timeouts={"drain": "60s"})) as p:
            with Tunnel(p) as tunnel:
                old = p.worker_pids()
                p.process.send_signal(signal.SIGTERM)
                until(lambda: any(map(gone, old)), "the end of the idle one")
                p.crash()
                p.start()
                assert p.get().body == b"quick"
                assert not set(old) & set(p.worker_pids())
                tunnel.client.sock.close()
                until(lambda: all(gone(pid) or zombie(pid) for pid in old), "their end")
                until(lambda: p.status()["leaving"] == [], "nobody leaves")
            assert p.get().body == b"quick"
            assert p.reload(p.config).returncode == 0
            assert len(p.status()["workers"]) == 2


def test_two_at_once_are_refused_and_harm_nobody(ab):
    with lasting(settings(*ab, workers=2)) as p:
        p.crash()
        p.start()
        done = p.command("run")
        assert done.returncode == 1
        assert "FLB-S005" in done.stderr
        assert p.get().status == 200
        p.wait_worker_replaced(p.kill_worker(0))


def test_a_worker_that_does_not_answer_is_killed_and_replaced(ab):
    """It could be told nothing, and what is queued at its socket would wait for ever."""
    with lasting(settings(*ab, workers=2)) as p:
        pids = p.worker_pids()
        p.crash()
        os.kill(pids[1], signal.SIGSTOP)
        p.start()
        assert "FLB-S132" in p.stderr()
        assert f"worker 1 (pid {pids[1]})" in p.stderr()
        after = p.worker_pids()
        assert after[0] == pids[0]
        assert gone(pids[1]) or zombie(pids[1])
        assert {p.get().status for _ in range(40)} == {200}


@contextmanager
def stopped_orphan(ab, worker_timeout):
    """A worker without a control process, that does not answer."""
    config = settings(*ab, workers=1, worker_timeout=worker_timeout)
    with proxy(config, Impatient) as p:
        (pid,) = p.worker_pids()
        p.crash()
        os.kill(pid, signal.SIGSTOP)
        yield p, pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        if p.process.poll() is not None:
            p.start()


def test_one_that_alone_does_not_answer_has_more_time_and_is_then_killed(ab):
    with stopped_orphan(ab, "3s") as (p, pid):
        began = time.monotonic()
        p.start()
        assert time.monotonic() - began > 2.5
        assert f"worker 0 (pid {pid}), of a control process before" in p.stderr()
        assert "within 3 s and is killed [FLB-S132]" in p.stderr()
        assert gone(pid) or zombie(pid)
        assert {p.get().status for _ in range(8)} == {200}


def test_one_that_answers_within_that_time_is_taken_over(ab):
    with stopped_orphan(ab, "60s") as (p, pid):
        readies = p.stderr().count("fastlb: ready")
        p.spawn()
        until(lambda: "they have 60 s for it" in p.stderr(), "the word")
        os.kill(pid, signal.SIGCONT)
        until(lambda: p.stderr().count("fastlb: ready") > readies, "the start")
        assert p.worker_pids() == [pid]


def test_where_silent_workers_are_never_ended_the_start_is_refused(ab):
    with stopped_orphan(ab, "0s") as (p, pid):
        p.spawn()
        assert p.process.wait(20) == 1
        assert "FLB-S141" in p.stderr()
        done = p.command("status")
        assert done.returncode == 1
        assert "FLB-S141" in done.stderr
        os.kill(pid, signal.SIGCONT)
        p.start()
        assert p.worker_pids() == [pid]


def test_asked_too_often_it_is_still_there(ab):
    """What nobody takes fills the queue of its socket."""
    with stopped_orphan(ab, "1s") as (p, pid):
        asked = []
        with suppress(BlockingIOError):
            for _ in range(100):
                asked.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                asked[-1].setblocking(False)
                asked[-1].connect(str(p.folder / "state/workers/0.sock"))
        assert len(asked) < 100
        p.start()
        assert gone(pid) or zombie(pid)
        for one in asked:
            one.close()


@pytest.mark.parametrize("how", [[], ["--now"]])
def test_one_that_does_not_answer_can_be_stopped(ab, how):
    with stopped_orphan(ab, "0s") as (p, pid):
        done = p.command("stop", *how)
        assert done.returncode == 0, done.stderr
        assert f"workers {pid} had no control process" in done.stderr
        assert gone(pid) or zombie(pid)
        assert list((p.folder / "state/workers").iterdir()) == []
        assert "FLB-S060" in p.command("stop").stderr


def test_sessions_of_tls_are_resumed_after_it(tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    pair = Authority(folder).certificate("shop.test")
    tls = {"certificates": [pair.table()]}
    with HttpNode("a") as a:
        config = settings(a, server={"protocol": "https", "tls": tls}, workers=2)
        with lasting(config) as p:
            context, session = client_context("1.2"), None
            for visit in range(6):
                with TlsClient(p.address(), context, session, "shop.test") as client:
                    assert client.ask("/").status == 200
                    assert client.reused == (visit > 0)
                    session = client.session
                if visit == 1:
                    p.crash()
                    p.start()
                if visit == 3:
                    p.upgrade()


def test_the_access_log_goes_on_and_rotates(ab):
    with lasting(settings(*ab, workers=1)) as p:
        p.get("/one")
        p.crash()
        p.get("/two")
        p.log_file.rename(p.folder / "rotated")
        p.start()
        p.get("/three")
        assert p.log_of("/three")["status"] == 200
        assert "/three" not in (p.folder / "rotated").read_text()
        assert "/two" in (p.folder / "rotated").read_text()


def test_a_unix_socket_is_taken_over_too(ab, tmp_path):
    path = tmp_path / "shop.sock"
    config = settings(*ab, workers=2, server={"listen": [f"unix:{path}"]})
    with lasting(config) as p:
        p.crash()
        inode = path.stat().st_ino
        p.start()
        assert path.stat().st_ino == inode
    assert not path.exists()


def test_crashes_leave_no_descriptor_behind(ab):
    with lasting(settings(*ab, workers=2)) as p:
        p.crash()
        p.start()
        pids = p.worker_pids()
        before = [descriptors(pid) for pid in pids]
        for _ in range(4):
            p.crash()
            p.start()
        until(lambda: [descriptors(pid) for pid in pids] == before, "as before")


def test_a_worker_is_replaced_though_nothing_can_be_written(ab):
    with lasting(settings(*ab, persistence={"type": "ip"}, workers=2)) as p:
        sockets, aside = p.folder / "state/workers", p.folder / "aside"
        sockets.rename(aside)
        sockets.touch()
        dead = p.kill_worker(0)
        first, second = p.wait_worker_replaced(dead)
        assert {p.get().status for _ in range(20)} == {200}
        assert "FLB-S142" in p.stderr()
        done = p.command("upgrade")
        assert done.returncode == 1
        assert f"would not find workers {first}, {second}" in done.stderr
        sockets.unlink()
        aside.rename(sockets)
        done = p.command("upgrade")
        assert f"would not find workers {first}" in done.stderr
        assert str(second) not in done.stderr
        assert p.worker_pids() == [first, second]
        p.crash()
        until(lambda: gone(first), "the end of the worker that nobody would find")
        assert {p.get().status for _ in range(20)} == {200}
        p.start()
        assert second in p.worker_pids()
        assert len(p.worker_pids()) == 2
        assert {p.get().status for _ in range(20)} == {200}
