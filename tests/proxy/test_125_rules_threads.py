"""Rules that block, wait for ever, or break what they run in: the others do not notice."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness import HttpNode, proxy, settings, until
from tests.harness.proxy import Proxy
from tests.harness.rules import ruled

RULES = """
import asyncio, os, sys, time
from fastlb import rule

def case(name):
    def choose(function):
        CASES[name] = function
        return function
    return choose

CASES = {}

@case("/sleeps")
async def _(request):
    await asyncio.sleep(3600)

@case("/stubborn")
async def _(request):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@case("/left")
async def _(request):
    open("began", "w").close()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        open("cancelled", "w").close()
        raise

@case("/spins-async")
async def _(request):
    while True:
        pass

@case("/stuck")
async def _(request):
    open("stuck", "w").close()
    time.sleep(3600)

@case("/exits-async")
async def _(request):
    sys.exit(3)

@case("/stops-loop")
async def _(request):
    asyncio.get_running_loop().stop()

@case("/forks-async")
async def _(request):
    if os.fork():
        os.wait()

@rule.request
async def waits(request):
    if request.path in CASES:
        await CASES[request.path](request)

@rule.request
def computes(request):
    match request.path:
        case "/spins":
            while True:
                pass
        case "/sleeps-inline":
            time.sleep(3600)
        case "/exits":
            sys.exit(3)
        case "/interrupts":
            raise KeyboardInterrupt
        case "/recurses":
            computes(request)
        case "/forks":
            if os.fork():
                os.wait()
        case "/counts":
            request.respond(200, body=str(rule.shared("t").incr("all")).encode())
"""


def config(node, *rules: str, timeout: str = "300ms", workers: int = 1):
    made = settings(node, server={"rules": list(rules)}, workers=workers)
    made["rules"] = {"timeout": timeout, "watchdog": "50ms"}
    return made


@pytest.fixture(scope="module")
def node():
    with HttpNode("a") as one:
        yield one


@pytest.fixture(scope="module")
def both(node):
    """Each kind beside the other."""
    with proxy(config(node, "m:waits", "m:computes"), ruled(m=RULES)) as p:
        yield p


@pytest.mark.parametrize("target", ["/sleeps", "/stubborn", "/spins-async"])
def test_an_async_rule_that_takes_too_long(both, target):
    """The request goes on as if it had not run, and others are served all the while."""
    with both.client() as slow:
        slow.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if target != "/spins-async":
            assert both.get("/other").status == 200
        assert slow.response().status == 200
    assert both.get("/after").status == 200


@pytest.mark.parametrize("target", ["/exits-async", "/stops-loop", "/forks-async"])
def test_an_async_rule_against_its_loop(both, target):
    assert both.get(target).status == 200
    assert both.get("/after").status == 200


@pytest.mark.parametrize(
    "target", ["/spins", "/sleeps-inline", "/exits", "/interrupts", "/recurses", "/forks"]
)
def test_a_plain_rule_against_its_worker(both, target):
    pids = both.worker_pids()
    assert both.get(target).status == 200
    assert both.get("/after").status == 200
    assert both.worker_pids() == pids


def test_where_it_blocked_is_in_the_log(both):
    both.get("/spins")
    until(lambda: "rule m:computes holds its worker for" in both.stderr(), "the report")
    lines = both.stderr().splitlines()
    assert any(line.startswith("fastlb: rule m:computes:   File ") for line in lines)
    assert any("rule m:computes failed: TimeoutError: it ran for longer" in line for line in lines)


def test_who_leaves_cancels(node):
    with proxy(config(node, "m:waits", timeout="1h"), ruled(m=RULES)) as p:
        folder = Path(p.folder)
        with p.client() as gone:
            gone.send(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: (folder / "began").exists(), "the rule")
        until(lambda: (folder / "cancelled").exists(), "its cancellation")
        assert p.get("/after").status == 200


class Stuck(Proxy):
    """Its worker cannot get back what a thread holds that does not end."""

    def __init__(self, config, folder):
        (folder / "m.py").write_text(RULES)
        super().__init__(config, folder)

    def _demand_no_leak(self, err, workers):
        assert "rule_calls=1" in err


def test_it_ends_although_a_rule_is_stuck(node):
    with proxy(config(node, "m:waits", timeout="1h"), Stuck) as p:
        with p.client() as gone:
            gone.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: (Path(p.folder) / "stuck").exists(), "the rule")
        (pid,) = p.worker_pids()
        os.kill(pid, signal.SIGQUIT)
        p.wait_worker_replaced(pid)
        assert p.get("/after").status == 200


def test_counts_are_of_all_workers(node):
    with proxy(config(node, "m:computes", workers=2), ruled(m=RULES)) as p:
        counted = [int(p.get("/counts").body) for _ in range(30)]
        assert counted == list(range(1, 31))
        p.kill_worker(0)
        assert int(p.get("/counts").body) == 31
        more = p.config | {"rules": {"shared": 5000, "timeout": "300ms"}}
        assert p.reload(more).returncode == 0
        until(lambda: int(p.get("/counts").body) > 31, "the same count after a reload")


def test_no_thread_without_rules(node):
    with proxy(settings(node)) as p:
        assert p.get("/").status == 200
        (pid,) = p.worker_pids()
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
