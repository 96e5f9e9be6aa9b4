"""What a service manager hears, over a real socket, and how the process is started by it."""

import os
import signal
import socket

import pytest

from fastlb.notify import Notify
from tests.harness import HttpNode, settings, until
from tests.harness.lasting import Lasting, lasting
from tests.harness.proxy import proxy
from tests.harness.wait import TIMEOUT


class Manager(socket.socket):
    address: str


@pytest.fixture(params=["file", "abstract"])
def heard(request, tmp_path):
    with Manager(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.address = str(tmp_path / "n")
        if request.param == "abstract":
            one.address = f"@fastlb-test-{os.getpid()}-{tmp_path.name}"
        one.bind("\0" + one.address[1:] if request.param == "abstract" else one.address)
        one.settimeout(TIMEOUT)
        yield one


def said(one):
    return dict(line.split("=", 1) for line in one.recv(4096).decode().split("\n"))


def said_but_watchdog(one):
    while "WATCHDOG" in (message := said(one)):
        pass
    return message


def test_the_life_of_a_service(heard):
    with HttpNode("a") as a, HttpNode("b") as b:
        config = settings(a, b, workers=2)
        with lasting_with(heard, config) as p:
            ready = said(heard)
            assert (ready["READY"], ready["STATUS"]) == ("1", "serving, generation 1")
            p.process.send_signal(signal.SIGHUP)
            begin = said(heard)
            assert begin["RELOADING"] == "1"
            assert int(begin["MONOTONIC_USEC"]) > 0
            assert said(heard)["READY"] == "1"
            pid = p.process.pid
            p.upgrade()
            assert said(heard)["RELOADING"] == "1"
            again = said(heard)
            assert again["READY"] == "1"
            assert p.process.pid == pid
            p.left()
            p.stop()
            assert said(heard)["STOPPING"] == "1"
            p.start()
            assert said(heard)["READY"] == "1"


def test_a_reload_that_fails_is_over_too(heard):
    with HttpNode("a") as a, lasting_with(heard, settings(a)) as p:
        said(heard)
        p.file.write_text("nonsense")
        p.process.send_signal(signal.SIGHUP)
        assert said(heard)["RELOADING"] == "1"
        assert said(heard)["READY"] == "1"


def test_the_watchdog_hears_as_long_as_a_worker_answers(heard):
    with HttpNode("a") as a, lasting_with(heard, settings(a), WATCHDOG_USEC="300000") as p:
        said_but_watchdog(heard)
        for _ in range(3):
            assert said(heard) == {"WATCHDOG": "1"}
        (pid,) = p.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            heard.settimeout(1)

            def silent():
                try:
                    said(heard)
                except TimeoutError:
                    return True
                return False

            until(silent, "silence")
        finally:
            os.kill(pid, signal.SIGCONT)
        heard.settimeout(TIMEOUT)
        assert said(heard) == {"WATCHDOG": "1"}


def test_nothing_can_gain_rights():
    with HttpNode("a") as a, lasting(settings(a)) as p:
        for pid in (p.process.pid, *p.worker_pids()):
            with open(f"/proc/{pid}/status") as lines:
                assert "NoNewPrivs:\t1\n" in list(lines)


def lasting_with(heard, config, **more):
    """One that is started by this manager."""

    class Managed(Lasting):
        def spawn(self):
            self.more = {"NOTIFY_SOCKET": heard.address, **more}
            super().spawn()

    return proxy(config, Managed)


# --- without a process ---


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000"}, 2.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_who_is_watched(environment, seconds):
    assert Notify(environment).watchdog_s == seconds


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/n", "@nobody-there"])
def test_nobody_who_listens_is_no_reason_to_stop(address):
    Notify({"NOTIFY_SOCKET": address}).ready("x")


def test_a_status_is_one_line(heard):
    Notify({"NOTIFY_SOCKET": heard.address}).stopping("one\nREADY=1")
    assert said(heard) == {"STOPPING": "1", "STATUS": "one READY=1"}
