"""What runs out: descriptors, memory, room on the disk. Each has a limit and a counter
(docs/reliability.md); what runs already goes on, and all is well once there is more."""

import contextlib
import os
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastlb.control_socket import socket_path
from tests.harness import (
    TIMEOUT,
    HttpNode,
    RawNode,
    changed,
    proxy,
    reply,
    request,
    settings,
    until,
)
from tests.harness.operator import here, status_of
from tests.harness.proxy import children, free_port

HALF = b"GET /slow HTTP/1.1\r\nHost: a\r\nX: "


def figure(p, name):
    return sum(worker[name] for worker in status_of(p)["workers"])


def open_descriptors(pid):
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def held_and_go():
    """A script that answers /held when told, and an event that says it has been asked."""
    asked, go = threading.Event(), threading.Event()

    def hold(exchange):
        asked.set()
        exchange.wait(go)
        exchange.send(reply(200, b"held"))

    return {"/held": hold, "*": reply(200, b"x" * 1000)}, asked, go


# --- descriptors ---


def test_without_descriptors_accepting_pauses_and_goes_on_when_there_are_some():
    script, asked, go = held_and_go()
    with RawNode(script) as node, proxy(settings(node)) as p, p.client() as running:
        running.send(request("/held"))
        assert asked.wait(TIMEOUT)
        (pid,) = p.worker_pids()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (260, 260))
        assert p.reload(p.config).returncode == 0  # the worker looks at its limit again
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(p.client()) for _ in range(200)]
            until(lambda: figure(p, "accept_pauses"), "accepting to pause")
            assert len(open_descriptors(pid)) < 260  # what node connections need is kept back
            go.set()
            assert running.response().body == b"held"
            for client in idle[:150]:
                client.sock.close()
            assert [client.ask().status for client in idle[150:]] == [200] * 50
        assert p.get().status == 200


def test_a_control_process_without_descriptors_does_what_it_is_told():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        control = p.process.pid
        top = max(open_descriptors(control)) + 1
        resource.prlimit(control, resource.RLIMIT_NOFILE, (top, 20_000))
        with contextlib.ExitStack() as stack:  # there may be gaps among those that are open
            while "FLB-S168" not in p.stderr():
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(str(socket_path(Path(p.config["proxy"]["state_dir"]))))
                assert status_of(p)["workers"]
        (pid,) = p.wait_worker_replaced(p.kill_worker(0))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (20_000, 20_000))  # it was born with less
        done = here("reload", "-c", str(p.file))  # which takes what it may have
        assert done.returncode == 0, done.stderr
        assert p.get().status == 200
        place = p.config["virtual_servers"]["shop"]["listen"]
        more = [f"127.0.0.1:{free_port()}" for _ in range(20)]
        done = p.reload(changed(p.config, "virtual_servers.shop.listen", place + more))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in p.stderr()


# --- memory ---


def test_without_buffers_new_requests_are_refused_and_running_ones_finish():
    def large(exchange):
        asked.set()
        exchange.wait(go)
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            exchange.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        exchange.send(b"0\r\n\r\n")

    asked, go = threading.Event(), threading.Event()
    script = {"/large": large, "*": reply(200)}
    with RawNode(script) as node, proxy(settings(node, limits={"buffers": "4MiB"})) as p:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(p.client())
            running.send(request("/large"))
            assert asked.wait(TIMEOUT)
            for _ in range(4 * 64):  # of 16 KiB each
                stack.enter_context(p.client()).send_if_open(HALF)
            until(lambda: figure(p, "buffers_refused"), "the bound to be reached")
            with p.client() as new:
                new.send_if_open(request())
                answer = new.answer_then_closed()
                assert answer is None or answer.status == 503
            go.set()
            assert len(running.response().body) == 64 * 0x4000
        until(lambda: figure(p, "connections") == 0, "all to have gone")
        assert p.get().status == 200
        assert status_of(p)["causes"]["no-buffer"] >= 1


def test_without_memory_of_the_system_new_requests_fail_and_running_ones_finish():
    script, asked, go = held_and_go()
    with RawNode(script) as node, proxy(settings(node)) as p, contextlib.ExitStack() as stack:
        running = stack.enter_context(p.client())
        running.send(request("/held"))
        assert asked.wait(TIMEOUT)
        (pid,) = p.worker_pids()
        most = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (data_bytes(pid) + (1 << 20), most[1]))
        for _ in range(1000):
            stack.enter_context(p.client()).send_if_open(HALF)
        until(lambda: figure(p, "buffers_refused"), "malloc to fail")
        go.set()
        assert running.response().body == b"held"
        resource.prlimit(pid, resource.RLIMIT_DATA, most)
        assert p.get().status == 200
        assert children(p.process.pid) == [pid]  # the same one all the time


def data_bytes(pid):
    with open(f"/proc/{pid}/status") as file:
        (line,) = (one for one in file if one.startswith("VmData:"))
    return int(line.split()[1]) << 10


# --- connections ---


def test_storms_of_connections_leave_others_their_turn():
    with HttpNode("a") as a, proxy(settings(a, workers=2)) as p:
        ended = threading.Event()

        def storm(number):
            count = 0
            while not ended.is_set():
                client = p.client()
                if count % 2:
                    client.reset()
                client.sock.close()
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            storms = [pool.submit(storm, number) for number in range(4)]
            answers = [p.get().status for _ in range(100)]
            ended.set()
            came = sum(one.result() for one in storms)
        assert answers == [200] * 100
        assert came > 100
        until(lambda: figure(p, "connections") == 0, "all to have gone")
        until(lambda: status_of(p)["virtual_servers"]["shop"]["accepted"] >= came, "all counted")


# --- the disk ---


def test_a_log_that_takes_nothing_costs_its_lines_and_no_request(tmp_path):
    with HttpNode("a") as a, proxy(settings(a, access_log="/dev/full")) as p:
        assert [p.get().status for _ in range(10)] == [200] * 10
        until(lambda: figure(p, "log_lines_dropped") == 10, "all lines to be counted")
        done = p.reload(changed(p.config, "proxy.access_log", str(tmp_path / "log")))
        assert done.returncode == 0
        assert p.get("/logged").status == 200
        until(lambda: "/logged" in (tmp_path / "log").read_text(), "lines again")
        assert figure(p, "log_lines_dropped") == 10


def test_a_line_that_a_full_disk_cuts_does_not_spoil_the_next():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        p.get("/before")
        p.log(1)
        size = p.log_file.stat().st_size
        (pid,) = p.worker_pids()
        most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + size // 2, most[1]))
        with p.client() as client:
            assert [client.ask("/cut").status for _ in range(5)] == [200] * 5
        until(lambda: figure(p, "log_lines_dropped") == 5, "all lines to be counted")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, most)
        assert p.get("/after").status == 200
        until(lambda: "/after" in p.log_file.read_text(), "lines again")
        before, cut, after = p.log_file.read_text().splitlines()
        assert '"/before"' in before
        assert not cut.endswith("}")
        assert '"/after"' in after
        assert after.endswith("}")
