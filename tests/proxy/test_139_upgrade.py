"""Another version of the program takes over under load: no connection refused, no session lost."""

import os
import signal
import threading
from pathlib import Path

import pytest

import fastlb
from tests.harness import HttpNode, RawNode, changed, reply, request, settings, toml, until
from tests.harness.lasting import Load, Tunnel, echo, lasting, version_of
from tests.harness.operator import descriptors

OTHER_MEMORY = {"manifest": ("MEANING = 1 ", "MEANING = 2 ")}


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


def zombie(pid):
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_new_version_takes_over_under_load(ab, tmp_path):
    config = settings(*ab, persistence={"type": "ip"}, workers=2, timeouts={"drain": "5s"})
    with lasting(config) as p, Load(p) as load:
        before, pid = p.worker_pids(), p.process.pid
        p.install(version_of(tmp_path / "v2", "9.9.9"))
        told = p.upgrade()
        load.more()
        assert told["from"] == {"version": fastlb.__version__, "pid": pid, "workers": before}
        assert (told["to"]["version"], told["to"]["pid"]) == ("9.9.9", pid)
        status = p.status()
        assert status["version"] == "9.9.9"
        assert status["persistence"]["shop"]["entries"] == 6
        assert not set(p.worker_pids()) & set(before)
        p.left()
        load.more()
    assert load.failures == []
    assert {len(nodes) for nodes in load.nodes.values()} == {1}, "sessions stay"
    assert all(map(gone, before))


def test_another_memory_gets_session_maps_by_files(ab, tmp_path):
    config = settings(*ab, persistence={"type": "ip"}, workers=2, timeouts={"drain": "5s"})
    with lasting(config) as p, Load(p) as load:
        before = p.worker_pids()
        p.install(version_of(tmp_path / "v2", "9.9.9", **OTHER_MEMORY))
        p.upgrade()
        assert p.status()["persistence"]["shop"]["entries"] == 6
        until(lambda: all(map(gone, before)), "the end of the workers before")
        load.more()
        p.crash()
        load.more()
        p.start()
        load.more()
    assert load.failures == []
    assert {len(nodes) for nodes in load.nodes.values()} == {1}, "sessions stay"


def test_another_memory_after_a_crash_is_a_takeover_by_new_workers(ab, tmp_path):
    with lasting(settings(*ab, workers=2, timeouts={"drain": "5s"})) as p, Load(p) as load:
        before = p.worker_pids()
        p.crash()
        p.install(version_of(tmp_path / "v2", "9.9.9", **OTHER_MEMORY))
        p.start()
        assert not set(p.worker_pids()) & set(before)
        until(lambda: all(map(gone, before)), "the end of the workers before")
        load.more()
    assert load.failures == []


def test_after_it_a_crash_during_the_drain_costs_nothing(tmp_path):
    """Old workers that leave have seen more configurations than the new ones that serve."""
    with RawNode({"/echo": echo, "*": reply(200, b"quick")}) as node, HttpNode("b") as b:
        config = settings(
            node, b, persistence={"type": "ip"}, workers=2,
            timeouts={"drain": "60s", "response": "60s", "keep_alive": "60s"},
        )  # fmt: skip
        with lasting(config) as p, Tunnel(p) as tunnel:
            old = p.worker_pids()
            for weight in (2, 3, 4):
                assert p.command("node", "weight", b.address, str(weight)).returncode == 0
            p.install(version_of(tmp_path / "v2", "9.9.9", **OTHER_MEMORY))
            p.upgrade()
            before = p.status()
            assert before["generation"] > 3, "numbers go on"
            p.get(source="127.0.70.9")
            assert p.command("node", "weight", b.address, "7").returncode == 0
            serving = p.worker_pids()
            p.crash()
            tunnel.says()
            p.start()
            tunnel.says()
            assert p.worker_pids() == serving
            after = p.status()
            entries = before["persistence"]["shop"]["entries"]
            assert after["persistence"]["shop"]["entries"] == entries + 1
            assert [one["change"] for one in after["edits"]] == ["weight 7"]
            assert after["virtual_servers"]["shop"]["requests"] > 0
            tunnel.client.sock.close()
            until(lambda: all(map(gone, old)), "the end of the workers before")
            assert p.get().status == 200


def test_what_runs_is_finished_by_the_old_workers(tmp_path):
    go = threading.Event()

    def slow(exchange):
        go.wait(120)
        exchange.send(reply(200, b"late"))

    with RawNode({"/slow": slow, "/echo": echo, "*": reply(200, b"quick")}) as node:
        patient = dict.fromkeys(("client_header", "keep_alive", "response"), "120s")
        config = settings(node, workers=2, timeouts={"drain": "30s", **patient})
        with lasting(config) as p, p.client() as idle, p.client() as fresh:
            before = p.worker_pids()
            idle.ask()
            with Tunnel(p) as tunnel, p.client() as client:
                client.send(request("/slow"))
                node.wait_requests(3)
                p.install(version_of(tmp_path / "v2", "9.9.9"))
                p.upgrade()
                tunnel.says()
                for one in (idle, fresh):
                    answer = one.ask()
                    assert (answer.body, answer.get("Connection")) == (b"quick", b"close")
                    one.expect_closed()
                p.crash()  # they go on even without any control process
                tunnel.says()
                p.start()
                tunnel.says()
                go.set()
                assert client.response().body == b"late"
                assert p.get().body == b"quick"
            until(lambda: all(map(gone, before)), "the end of the workers before")


def test_a_version_that_cannot_be_imported_changes_nothing_and_says_why(ab, tmp_path):
    with lasting(settings(*ab, workers=2)) as p, Load(p) as load:
        before = p.worker_pids()
        broken = ("import socket\n", "import socket\nraise RuntimeError('no such thing')\n")
        p.install(version_of(tmp_path / "v2", "9.9.9", channel=broken))
        done = p.command("upgrade")
        assert done.returncode == 1
        for part in ("FLB-S135", "FLB-S136", "no such thing"):
            assert part in done.stderr
        p.process.send_signal(signal.SIGUSR2)
        until(lambda: "FLB-S135" in p.stderr(), "the same on standard error")
        assert p.worker_pids() == before
        assert p.reload(p.config).returncode == 0
        (p.folder / "program").unlink()
        (p.folder / "program").symlink_to(Path(fastlb.__file__).parents[1])
        p.upgrade()
        load.more()
    assert load.failures == []


def test_a_configuration_that_is_wrong_refuses_the_upgrade(ab):
    with lasting(settings(*ab, workers=2)) as p:
        right, before = p.file.read_text(), p.worker_pids()
        for wrong, part in (
            (right.replace("round-robin", "round-robbin"), "round-robbin"),
            (right.replace("/state", "/elsewhere"), "another state_dir"),
        ):
            p.file.write_text(wrong)
            p.process.send_signal(signal.SIGUSR2)
            until(lambda part=part: part in p.stderr(), part)
            p.file.write_text(right)
            assert p.worker_pids() == before


def test_a_version_whose_start_fails_leaves_the_workers_serving(ab, tmp_path):
    with lasting(settings(*ab, workers=2)) as p, Load(p) as load:
        before = p.worker_pids()
        fails = ("        self._find_workers()\n", "        raise RuntimeError('on purpose')\n")
        p.install(version_of(tmp_path / "v2", "9.9.9", control=fails))
        done = p.command("upgrade")
        assert done.returncode == 1
        assert "FLB-S140" in done.stderr
        assert "on purpose" in p.stderr()
        p.process.wait(10)
        load.more()
        p.install(Path(fastlb.__file__).parents[1])
        assert p.orphans() == before
        p.start()
        assert p.worker_pids() == before
        load.more()
        (p.folder / "stderr").write_text("")  # the failure was meant
    assert load.failures == []


def test_new_workers_that_do_not_start_leave_the_old_ones_serving(ab, tmp_path):
    with lasting(settings(*ab, workers=2)) as p, Load(p) as load:
        before = p.worker_pids()
        fails = ("    from fastlb._core.worker import run\n", "    return 7\n")
        p.install(version_of(tmp_path / "v2", "9.9.9", worker_main=fails))
        assert p.command("upgrade").returncode == 1
        assert p.process.wait(20) == 1
        assert "FLB-S134" in p.stderr()
        load.more()
        p.install(Path(fastlb.__file__).parents[1])
        assert p.orphans() == before
        p.start()
        load.more()
    assert load.failures == []


def test_many_upgrades_leave_no_descriptor_behind(ab):
    with lasting(settings(*ab, workers=1, timeouts={"drain": "5s"})) as p:
        counts = []
        for _ in range(3):
            p.upgrade()
            p.left()
            counts.append((descriptors(p.process.pid), descriptors(p.worker_pids()[0])))
        assert len(set(counts[1:])) == 1, counts


def test_an_upgrade_may_change_the_configuration_too(ab):
    a, b = ab
    config = settings(a, workers=1)
    with lasting(config) as p:
        new = changed(changed(p.config, "proxy.workers", 3), "pools.web.nodes", [b])
        p.file.write_text(toml(new))
        told = p.upgrade()
        p.workers = 3
        assert len(told["to"]["workers"]) == 3
        assert p.get().node == "b"
        p.left()
        assert {p.get().status for _ in range(30)} == {200}


def test_a_worker_that_dies_while_it_leaves_is_reported(ab):
    with RawNode({"/echo": echo, "*": reply(200, b"quick")}) as node:
        with lasting(settings(node, workers=1, timeouts={"drain": "30s"})) as p:
            (pid,) = p.worker_pids()
            with Tunnel(p):
                p.upgrade()
                os.kill(pid, signal.SIGKILL)
                until(lambda: "FLB-S131" in p.stderr(), "the warning")
                assert p.get().body == b"quick"
            p.left()
