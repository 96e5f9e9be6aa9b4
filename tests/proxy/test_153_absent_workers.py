"""A worker that does not come back: others serve its listening sockets until it does."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness import ANY_PORT, HttpNode, Proxy, changed, proxy, settings, until

RULES = """
import os
from pathlib import Path
from fastlb import rule

if Path(__file__).with_name("dies").exists() and b"worker_main" in Path(
        "/proc/self/cmdline").read_bytes():
    os.kill(os.getpid(), 9)

@rule.request
def nothing(request):
    pass
"""
CONNECTIONS = 24  # the kernel spreads them by their ports: 2 ** -24 that one worker gets all


class WithRules(Proxy):
    def start(self) -> None:
        (self.folder / "shop_rules.py").write_text(RULES)
        super().start()

    @property
    def dies(self) -> Path:
        return self.folder / "dies"


@pytest.fixture
def one_of_two():
    with HttpNode("a") as a:
        config = settings(a, workers=2, server={"rules": ["shop_rules:nothing"]})
        with proxy(config, WithRules) as p:
            p.dies.touch()
            os.kill(p.worker_pids()[0], signal.SIGKILL)
            until(lambda: "FLB-S072" in p.stderr(), "the pause before the next start")
            yield p
            p.workers = len(p.worker_pids())  # that tell what they have left


def answers(p, server="shop"):
    return [p.get(server=server).status for _ in range(CONNECTIONS)]


def test_others_serve_its_connections(one_of_two):
    p = one_of_two
    assert answers(p) == [200] * CONNECTIONS


def test_those_of_listening_addresses_too_that_a_reload_adds(one_of_two):
    p = one_of_two
    more = {**p.config["virtual_servers"]["shop"], "listen": [ANY_PORT]}
    assert p.reload(changed(p.config, "virtual_servers.more", more)).returncode == 0
    assert answers(p, "more") == [200] * CONNECTIONS


def test_when_it_is_back_each_has_its_own_again(one_of_two):
    p = one_of_two
    p.dies.unlink()
    (stays,) = p.worker_pids()
    (back,) = until(lambda: set(p.worker_pids()) - {stays}, "the worker")
    until(lambda: answers(p) and _accepts(p, back), "connections at the worker that is back")
    until(lambda: _sockets(stays) == _sockets(back) == 1, "one listening socket each")


def _accepts(p, pid):
    (found,) = [one for one in p.status()["workers"] if one["pid"] == pid]
    return found["requests"] > 0


def _sockets(pid):
    """Listening TCP sockets of a process."""
    listening = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    links = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link[8:-1] in listening for link in links if link.startswith("socket:["))
