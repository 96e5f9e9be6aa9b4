"""A worker whose loop does not turn: others serve for it, it is replaced, nothing waits for it."""

import os
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import HttpNode, changed, proxy, settings, until
from tests.harness.lasting import Impatient, Lasting

CONNECTIONS = 24  # the kernel spreads them by their ports: 2 ** -24 that one worker gets all


@pytest.fixture
def a():
    with HttpNode("a") as node:
        yield node


@contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def worker(p, pid):
    return next(one for one in p.status()["workers"] if one["pid"] == pid)


def silent(p, pid):
    until(lambda: f"(pid {pid}) has not answered" in p.stderr(), "the warning")
    assert "FLB-S143" in p.stderr()


def answers(p):
    return [p.get().status for _ in range(CONNECTIONS)]


def test_it_is_replaced(a):
    with proxy(settings(a, workers=2, worker_timeout="1s"), Lasting) as p:
        hung = p.worker_pids()[0]
        os.kill(hung, signal.SIGSTOP)
        assert answers(p) == [200] * CONNECTIONS
        p.wait_worker_replaced(hung)
        assert "FLB-S144" in p.stderr()
        assert f"(pid {hung}) was killed by SIG" in p.stderr()


def test_others_take_its_new_connections_until_it_answers_again(a):
    with proxy(settings(a, workers=2, worker_timeout="0s"), Impatient) as p:
        hung, well = p.worker_pids()
        with stopped(hung):
            silent(p, hung)
            assert answers(p) == [200] * CONNECTIONS
            assert worker(p, hung)["silent_ms"] >= 1000
            assert worker(p, well)["silent_ms"] == 0
        until(lambda: f"(pid {hung}) answers again" in p.stderr(), "the word")
        before = worker(p, hung)["requests"]
        assert worker(p, hung)["silent_ms"] == 0
        until(lambda: p.get() and worker(p, hung)["requests"] > before, "its own connections")
        assert p.worker_pids() == [hung, well]


def test_nothing_waits_for_it(a):
    with proxy(settings(a, workers=3, worker_timeout="0s"), Impatient) as p:
        hung, well, third = p.worker_pids()
        with stopped(hung):
            silent(p, hung)
            began = time.monotonic()
            assert p.reload(changed(p.config, "proxy.workers", 2)).returncode == 0
            assert time.monotonic() - began < 8, "not for its acknowledgement"
            until(lambda: not Path(f"/proc/{third}").exists(), "the end of the worker that leaves")
            assert answers(p) == [200] * CONNECTIONS
        until(lambda: worker(p, hung)["generation"] == 2, "its configuration")
        p.workers = 2
        assert p.worker_pids() == [hung, well]
        assert answers(p) == [200] * CONNECTIONS


def test_a_control_process_that_was_held_up_blames_nobody(a):
    with proxy(settings(a, workers=2, worker_timeout="1s"), Impatient) as p:
        pids = p.worker_pids()
        with stopped(p.process.pid):
            time.sleep(3.5)
            assert p.get().status == 200
        time.sleep(0.5)
        assert p.worker_pids() == pids
        assert "has not answered" not in p.stderr()


def test_a_listening_address_that_is_taken_out_is_closed(a):
    config = settings(a, workers=2, worker_timeout="1s")
    config["virtual_servers"]["more"] = {"listen": ["127.0.0.1:0"], "pool": "web"}
    with proxy(config, Impatient) as p:
        hung = p.worker_pids()[0]
        less = dict(p.config)
        less["virtual_servers"] = {"shop": p.config["virtual_servers"]["shop"]}
        os.kill(hung, signal.SIGSTOP)
        assert p.reload(less).returncode == 0
        until(lambda: not listens(p.address("more")), "its end")


def listens(address):
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return False
    return True
