"""The control process with fake workers: start, replacement, reload, stop.

The fake (control/fake_worker.py) speaks the channel and says what it was told; what the real
worker does with it is told by tests/proxy.
"""

import os
import pwd
import re
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastlb.control import Control
from tests.control.running import Running, fastlb, free_port, until

OPERATIONS = (Path(__file__).parents[1] / "docs/operations.md").read_text()
SHOP = """
[virtual_servers.shop]
listen = "127.0.0.1:{port}"
pool = "web"
[pools.web]
nodes = ["10.0.0.1:80", "10.0.0.2:80"]
persistence = "by-ip"
[persistence.by-ip]
type = "ip"
[timeouts]
drain = "1s"
"""


@pytest.fixture
def runs(tmp_path: Path):
    """Makes a Running; all end with the test."""
    made: list[Running] = []

    def make(text: str = SHOP, **more: object) -> Running:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Running(directory, text, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.end()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_one_ready_line_with_addresses_and_pids(runs) -> None:
    one = runs().start()
    (line,) = one.lines("fastlb: ready")
    pids = [worker["pid"] for worker in one.status()["workers"]]
    assert line == (
        f"fastlb: ready: listening on 127.0.0.1:{one.port}; workers {pids[0]}, {pids[1]}"
    )
    assert len(set(pids)) == 2


def test_ready_waits_for_every_worker(runs) -> None:
    one = runs(fake="late")
    begin = time.monotonic()
    one.start()
    assert time.monotonic() - begin > 0.5
    assert [worker["generation"] for worker in one.status()["workers"]] == [1, 1]


def test_every_worker_serves_and_has_only_its_own_sockets(runs) -> None:
    one = runs().start()
    told = one.ask_all()
    assert set(told) == {0, 1}
    assert {answer["descriptors"] for answer in told.values()} == {9}
    assert sorted(one for answer in told.values() for one in answer["sockets"]) == [[0, 0], [0, 1]]
    assert all(answer["nodelay"] and answer["log"] is None for answer in told.values())


def test_a_unix_socket_is_served_and_removed(runs, tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    one = runs(SHOP.replace('"127.0.0.1:{port}"', f'["127.0.0.1:{{port}}", "unix:{path}"]'))
    one.start()
    assert one.ask(path)["index"] in (0, 1)
    assert one.command("stop").returncode == 0
    assert not Path(path).exists()


def test_a_killed_worker_is_replaced_and_connections_wait_for_it(runs) -> None:
    one = runs(workers=1).start()
    pid = one.ask()["pid"]
    os.kill(pid, signal.SIGKILL)
    assert one.ask()["pid"] != pid
    (line,) = one.lines("FLB-S071")
    assert f"worker 0 (pid {pid}) was killed by SIGKILL" in line
    (worker,) = one.status()["workers"]
    assert worker["restarts"] == 1
    assert worker["pid"] == one.ask()["pid"]


def test_a_worker_that_keeps_ending_is_started_less_often(runs) -> None:
    one = runs(workers=1).start()
    for _ in range(6):
        os.kill(one.ask()["pid"], signal.SIGTERM)
    until(lambda: one.lines("FLB-S072"), "the line that says so")
    assert "the next one starts in 0.5 s" in one.lines("FLB-S072")[0]
    assert one.ask()["index"] == 0


def test_workers_that_never_start_end_the_start(runs) -> None:
    one = runs(fake="crash")
    one.spawn()
    assert one.wait() == 1
    assert one.ready_count() == 0
    (line,) = one.lines("fastlb: error")
    assert "ended with exit status 3" in line
    assert "FLB-S050" in line
    with pytest.raises(ConnectionRefusedError):
        one.ask()


def test_a_worker_that_is_silent_is_reported_and_can_be_stopped(runs) -> None:
    one = runs(fake="mute")
    one.spawn()
    until(lambda: (one.state_dir / "control.sock").exists(), "the control socket")
    assert one.command("stop").returncode == 0
    assert one.wait() == 0
    assert one.ready_count() == 0


def test_a_dead_control_process_leaves_its_workers_serving(runs) -> None:
    one = runs().start()
    one.status()
    one.signal(signal.SIGKILL)
    one.wait()
    assert set(one.ask_all()) == {0, 1}


# --- reload ---


def test_a_reload_reaches_every_worker_without_new_processes(runs) -> None:
    one = runs().start()
    before = one.ask_all()
    one.configure(SHOP.replace('"10.0.0.2:80"', '"10.0.0.2:80", "10.0.0.3:80"'))
    done = one.command("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in force (generation 2)" in done.stdout
    after = one.ask_all()
    for index in (0, 1):
        assert after[index]["pid"] == before[index]["pid"]
        assert after[index]["generation"] == 2
        assert after[index]["plan_bytes"] > before[index]["plan_bytes"]
        assert after[index]["descriptors"] == before[index]["descriptors"]


def test_sighup_reloads_too(runs) -> None:
    one = runs().start()
    one.signal(signal.SIGHUP)
    until(lambda: one.lines("info: reloaded: generation 2"), "the reload")
    one.file.write_text("nonsense = \n")
    one.signal(signal.SIGHUP)
    until(lambda: one.lines("not reloaded"), "the refusal")
    assert len(one.lines("fastlb: error")) == 1
    assert one.ask()["generation"] == 2


def test_a_wrong_configuration_leaves_all_as_it_was(runs) -> None:
    one = runs().start()
    one.configure(SHOP.replace('pool = "web"', 'pool = "wep"').replace('"1s"', '"1 parsec"'))
    done = one.command("reload")
    assert done.returncode == 2
    assert "wep" in done.stderr
    assert "parsec" in done.stderr
    assert one.ask()["generation"] == 1


def test_a_port_in_use_refuses_the_reload_as_a_whole(runs) -> None:
    one = runs().start()
    free = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        added = f'["127.0.0.1:{{port}}", "127.0.0.1:{free}", "127.0.0.1:{taken}"]'
        text = SHOP.replace('"127.0.0.1:{port}"', added) + "[persistence.more]\ntype = 'ip'\n"
        one.configure(text)
        done = one.command("reload")
    assert done.returncode == 1
    assert f"127.0.0.1:{taken}: in use" in done.stderr
    assert one.ask()["generation"] == 1
    with pytest.raises(ConnectionRefusedError):
        one.ask(free)
    assert one.command("reload").returncode == 0
    assert one.ask(free)["generation"] == 2
    assert set(one.status()["persistence"]) == {"by-ip", "more"}


def test_addresses_come_and_go_and_keep_their_ids(runs) -> None:
    one = runs().start()
    second = free_port()
    both = SHOP.replace('"127.0.0.1:{port}"', f'["127.0.0.1:{second}", "127.0.0.1:{{port}}"]')
    one.configure(both)
    assert one.command("reload").returncode == 0
    assert one.ask()["listeners"] == one.ask(second)["listeners"] == [0, 1]
    one.configure(SHOP.replace("{port}", str(second)))
    assert one.command("reload").returncode == 0
    until(lambda: one.ask(second)["listeners"] == [1], "the other one given up")
    with pytest.raises(ConnectionRefusedError):
        one.ask()


def test_an_address_moves_to_another_virtual_server(runs) -> None:
    one = runs().start()
    one.configure(SHOP.replace("virtual_servers.shop", "virtual_servers.new"))
    assert one.command("reload").returncode == 0
    until(lambda: one.ask()["listeners"] == [1], "the other one given up")
    assert set(one.status()["virtual_servers"]) == {"new"}


def test_states_of_nodes_follow_what_changed_in_the_configuration(runs) -> None:
    def states(one: Running) -> dict[str, str]:
        return {node["address"]: node["state"] for node in one.status()["pools"]["web"]["nodes"]}

    draining = SHOP.replace('"10.0.0.2:80"', '{ address = "10.0.0.2:80", draining = true }')
    one = runs(draining).start()
    assert states(one) == {"10.0.0.1:80": "up", "10.0.0.2:80": "draining"}
    one.configure(SHOP)
    one.command("reload")
    assert states(one) == {"10.0.0.1:80": "up", "10.0.0.2:80": "up"}
    one.configure(SHOP.replace('"10.0.0.1:80", ', ""))
    one.command("reload")
    one.configure(draining)
    one.command("reload")
    assert states(one) == {"10.0.0.1:80": "up", "10.0.0.2:80": "draining"}


def test_workers_that_are_silent_are_named() -> None:
    control = Control.__new__(Control)
    answers = ((0, 7, 7, 0), (1, 8, 6, 7), (2, 9, 5, 3))
    control.in_force = SimpleNamespace(generation=7)  # type: ignore[assignment]
    control.workers = SimpleNamespace(  # type: ignore[assignment]
        running={
            index: SimpleNamespace(index=index, pid=pid, acknowledged=taken, refused=refused)
            for index, pid, taken, refused in answers
        }
    )
    (line,) = control._slow_workers()
    assert line == "worker 2 (pid 9) has not taken over generation 7 [FLB-S073]"


def test_a_plan_that_workers_refuse_is_reported(runs) -> None:
    one = runs(fake="refuse").start()
    done = one.command("reload")
    assert done.returncode == 0
    assert done.stderr.count("keeps the one before [FLB-S051]") == 2
    assert len(one.lines("FLB-S051")) == 2
    assert one.ask()["generation"] == 1
    assert one.command("reload").stderr == ""
    assert one.ask()["generation"] == 3


def test_one_worker_that_refuses_a_plan_holds_nothing_up(runs) -> None:
    gone, more = free_port(), free_port()
    both = SHOP.replace('"127.0.0.1:{port}"', '["127.0.0.1:{port}", "127.0.0.1:%d"]')
    one = runs(both % gone, fake="refuse-one").start()
    one.configure(both % more)
    assert one.command("reload").stderr.count("FLB-S051") == 1

    def closed() -> bool:
        try:
            one.ask(gone)
        except ConnectionRefusedError:
            return True
        return False

    until(closed, "the end of the address that was taken out")
    assert {one.ask(more)["index"] for _ in range(24)} == {1}, "the other one has its sockets"
    assert {answer["generation"] for answer in one.ask_all().values()} == {1, 2}
    assert one.command("reload").stderr == ""
    until(lambda: {one.ask(more)["index"] for _ in range(24)} == {0, 1}, "its sockets")
    until(
        lambda: sorted(len(told["sockets"]) for told in one.ask_all().values()) == [2, 2],
        "each its own",
    )


def test_what_only_a_start_changes_is_said(runs, tmp_path: Path) -> None:
    one = runs().start()
    one.configure(SHOP, user="nobody", state_dir=str(tmp_path / "elsewhere"))
    done = fastlb("reload", "-c", str(one.directory / "none.toml"))
    assert done.returncode == 2
    one.signal(signal.SIGHUP)
    until(lambda: one.lines("reloaded: generation 2"), "the reload")
    warnings = one.lines("FLB-S070")
    assert [key for key in ("user", "state_dir", "secret_file") if key in "".join(warnings)] == [
        "user",
        "state_dir",
        "secret_file",
    ]
    assert len(one.ask_all()) == 2


def test_a_class_changes_its_size(runs) -> None:
    one = runs().start()
    for size in (64, 5000):
        one.configure(SHOP.replace('type = "ip"', f'type = "ip"\nsize = {size}'))
        assert one.command("reload").returncode == 0
        assert one.status()["persistence"]["by-ip"]["entries_max"] == size


# --- the access log ---


def test_the_log_is_opened_again_after_rotation(runs, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    one = runs(access_log=str(log)).start()
    one.ask_all(10)
    log.rename(tmp_path / "access.log.1")
    one.signal(signal.SIGUSR1)
    until(lambda: log.exists(), "the new file")

    def follows() -> bool:
        one.ask_all(10)
        old = (tmp_path / "access.log.1").stat().st_size
        one.ask_all(10)
        return (tmp_path / "access.log.1").stat().st_size == old

    until(follows, "both workers write to the new file")
    assert log.read_text().startswith("a line\n")


def test_a_reload_changes_the_log_and_keeps_it_when_that_fails(runs, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    one = runs().start()
    assert one.ask()["log"] is None
    one.configure(SHOP, access_log=str(log))
    assert one.command("reload").returncode == 0
    until(lambda: {told["log"] for told in one.ask_all().values()} == {str(log)}, "the log")
    one.configure(SHOP, access_log=str(tmp_path / "none" / "a.log"))
    done = one.command("reload")
    assert done.returncode == 0
    assert "FLB-S077" in done.stderr
    assert one.ask()["log"] == str(log)


# --- stop ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_leaves_nothing(runs, number: int) -> None:
    one = runs().start()
    pids = [worker["pid"] for worker in one.status()["workers"]]
    one.signal(number)
    assert one.wait() == 0
    assert all(gone(pid) for pid in pids)
    assert sorted(path.name for path in one.state_dir.iterdir()) == [
        "lock",
        "secret",
        "sessions",
        "workers",
    ]
    assert list((one.state_dir / "workers").iterdir()) == []
    assert (one.state_dir / "lock").read_text() == ""
    assert not one.lines("Traceback")


def test_the_stop_command_waits_for_the_end(runs) -> None:
    one = runs().start()
    assert one.command("stop").returncode == 0
    until(one.ended, "the end")
    assert one.wait() == 0


def test_workers_that_do_not_end_are_killed_and_named(runs) -> None:
    one = runs(fake="deaf").start()
    pids = [worker["pid"] for worker in one.status()["workers"]]
    one.signal(signal.SIGTERM)
    until(lambda: one.lines("stopping"), "the stop")
    one.signal(signal.SIGTERM)  # the second one does not wait
    assert one.wait() == 0
    assert len(one.lines("FLB-S078")) == 2
    assert all(gone(pid) for pid in pids)


def test_a_second_start_after_a_kill_works(runs) -> None:
    one = runs().start()
    pids = [worker["pid"] for worker in one.status()["workers"]]
    one.signal(signal.SIGKILL)
    one.wait()
    assert (one.state_dir / "control.sock").exists()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(gone, pids)), "the end of the workers")
    one.start()
    assert one.status()["generation"] == 1


# --- the user ---


def test_the_user_to_become_owns_what_is_written_later(runs, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    one = runs(user=pwd.getpwuid(os.geteuid()).pw_name, access_log=str(log)).start()
    assert {told["uid"] for told in one.ask_all().values()} == {os.geteuid()}
    assert one.command("reload").returncode == 0
    assert one.command("stop").returncode == 0
    one.wait()
    one.start()
    names = ("secret", "lock", "control.sock", "sessions", "sessions/by-ip.maps", ".")
    assert {(one.state_dir / name).stat().st_uid for name in names} == {os.geteuid()}
    assert log.stat().st_uid == os.geteuid()


def test_a_user_that_is_not_there_is_an_error(runs) -> None:
    one = runs(user="no-such-user")
    one.spawn()
    assert one.wait() == 1
    (line,) = one.lines("error")
    assert "FLB-S030" in line


def test_a_worker_that_cannot_be_executed_is_an_error(runs, tmp_path: Path) -> None:
    one = runs()
    one.program = tmp_path / "program.py"
    one.program.write_text(
        "import functools, sys\n"
        "from fastlb import cli, control\n"
        "control.Control = functools.partial(control.Control, command=('/nonexistent',))\n"
        "sys.exit(cli.main())\n"
    )
    one.spawn()
    assert one.wait() == 1
    (line,) = one.lines("error")
    assert "cannot be started (/nonexistent: No such file or directory)" in line


# --- the documentation ---


def test_every_field_of_the_status_is_explained(runs) -> None:
    rows = re.findall(r"^\| (`.+?`) \| ", OPERATIONS, re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"[a-z0-9_]+(?=`|\[\]`)", row)}
    status = runs().start().status()
    (server,) = status["virtual_servers"].values()
    (pool,) = status["pools"].values()
    (cls,) = status["persistence"].values()
    for table in (status, status["workers"][0], server, pool["nodes"][0], cls):
        missing = set(table) - explained - {"virtual_servers", "pools", "persistence"}
        assert missing == set()
