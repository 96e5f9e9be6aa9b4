"""Rules over reloads: new ones take over, broken ones never do, unchanged ones keep their state."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import HttpNode, changed, proxy, settings
from tests.harness.proxy import Proxy, children
from tests.harness.wait import until

HEAD = "from fastlb import rule\n"
SAY = HEAD + "@rule.request\ndef say(request):\n    request.respond(200, {!r})\n"
COUNT = (
    HEAD + "calls = []\n@rule.request\ndef say(request):\n"
    "    calls.append(1)\n    request.respond(200, str(len(calls)) + {!r})\n"
)


@contextmanager
def ruled(text: str, node: HttpNode, **more) -> Iterator[Proxy]:
    """A proxy whose rule `shop:say` is in shop.py beside its configuration."""

    class Ruled(Proxy):
        def __init__(self, config, folder: Path) -> None:
            (folder / "shop.py").write_text(text)
            super().__init__(config, folder)

    with proxy(settings(node, server={"rules": ["shop:say"]}, **more), Ruled) as p:
        yield p


def say(p: Proxy, text: str) -> None:
    """Another shop.py, of the same date as the one before."""
    file = p.folder / "shop.py"
    about = file.stat()
    file.write_text(text)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


def body(p: Proxy) -> bytes:
    return p.get("/").body


def rule(p: Proxy, name: str = "shop:say") -> dict:
    return p.status()["rules"][name]


def test_a_changed_rule_takes_over() -> None:
    with HttpNode("a") as a, ruled(SAY.format("one"), a, workers=2) as p:
        with p.client() as kept:
            assert kept.ask().body == b"one"
            say(p, SAY.format("two"))
            assert body(p) == b"one"  # until it is told
            assert p.reload(p.config).returncode == 0
            assert kept.ask().body == b"two"
        assert {body(p) for _ in range(8)} == {b"two"}
        calls = rule(p)["calls"]
        assert calls == 11
        assert p.reload(p.config).returncode == 0
        assert rule(p)["calls"] == calls


def test_what_did_not_change_keeps_its_state() -> None:
    with HttpNode("a") as a, ruled(COUNT.format("x"), a) as p:
        assert [body(p), body(p)] == [b"1x", b"2x"]
        assert p.reload(changed(p.config, "pools.web.retries", 1)).returncode == 0
        assert body(p) == b"3x"
        say(p, COUNT.format("y"))
        assert p.reload(p.config).returncode == 0
        assert body(p) == b"1y"


BROKEN = {
    "def f(:\n": "shop.py:1: [virtual_servers.shop] rules[0]: cannot be imported: SyntaxError",
    "\n\n1 / 0\n": "shop.py:3: [virtual_servers.shop] rules[0]: cannot be imported: Zero",
    "import os\nos._exit(3)\n": "ends the process (status 3)",
    "import os\nos.abort()\n": "shop.py:2: [virtual_servers.shop] rules[0]: importing",
    "import nothing_of_that_name\n": "No module named 'nothing_of_that_name'",
    HEAD + "@rule.request\ndef sai(request): ...\n": 'did you mean "sai"?',
}


def test_broken_rules_never_take_over() -> None:
    with HttpNode("a") as a, ruled(COUNT.format("x"), a, workers=2) as p:
        pids = children(p.process.pid)
        before = p.status()["generation"]
        for text, words in BROKEN.items():
            say(p, text)
            done = p.reload(p.config)
            assert done.returncode == 2
            assert words in done.stderr
            assert "the configuration before stays in force" in done.stderr
            assert body(p).endswith(b"x")
        assert p.status()["generation"] == before
        assert children(p.process.pid) == pids
        say(p, COUNT.format("z"))
        assert p.reload(p.config).returncode == 0
        assert body(p) == b"1z"


def test_nobody_waits_while_a_module_does_not_end() -> None:
    with HttpNode("a") as a, ruled(SAY.format("one"), a) as p:
        mark = p.folder / "on"
        say(p, f"open({str(mark)!r}, 'w')\nwhile True: pass\n")
        p.process.send_signal(signal.SIGHUP)
        until(mark.exists, "the import under way")
        assert body(p) == b"one"
        assert p.status()["generation"] == 1  # the control process answers
        p.stop()  # does not wait for it either
        assert "fastlb is stopping" in p.stderr()


def test_a_start_with_broken_rules_says_why_and_ends() -> None:
    with HttpNode("a") as a, pytest.raises(AssertionError, match="cannot be imported"):
        with ruled("1 / 0\n", a):
            pass


def test_rules_come_and_go() -> None:
    with HttpNode("a") as a, ruled(SAY.format("one"), a) as p:
        plain = changed(p.config, "virtual_servers.shop.rules", [])
        with_rules = p.config
        assert body(p) == b"one"
        assert p.reload(plain).returncode == 0
        assert p.get("/").node == "a"
        assert p.status()["rules"] == {}
        assert p.status()["shared"] is None
        assert p.reload(with_rules).returncode == 0
        assert body(p) == b"one"
        assert rule(p)["calls"] == 1  # since it is there again


def test_a_worker_that_is_replaced_has_the_rules() -> None:
    with HttpNode("a") as a, ruled(COUNT.format("x"), a) as p:
        assert [body(p), body(p)] == [b"1x", b"2x"]
        (old,) = children(p.process.pid)
        os.kill(old, signal.SIGKILL)
        until(lambda: p.status()["workers"] and p.status()["workers"][0]["pid"] != old, "a worker")
        assert body(p) == b"1x"
        assert rule(p)["calls"] == 3  # over both workers


ONCE_MORE = (
    HEAD
    + """
import os
from pathlib import Path
claims = Path(__file__).with_name("claims")
if "worker_main" in Path("/proc/self/cmdline").read_text():
    claims.mkdir(exist_ok=True)
    try:
        (claims / {0!r}).mkdir()
    except FileExistsError:
        pass
    else:
        raise RuntimeError("only the first worker fails")
@rule.request
def say(request):
    request.respond(200, {0!r})
"""
)


def test_one_worker_that_cannot_import_them_keeps_the_old_ones() -> None:
    with HttpNode("a") as a, ruled(SAY.format("old"), a, workers=2) as p:
        say(p, ONCE_MORE.format("new"))
        done = p.reload(p.config)
        assert done.returncode == 0
        assert "FLB-S051" in done.stderr
        assert p.stderr().count("FLB-S120") == 1
        assert "RuntimeError: only the first worker fails" in p.stderr()
        until(lambda: {body(p) for _ in range(8)} == {b"old", b"new"}, "both workers asked")
        say(p, ONCE_MORE.format("new") + "# again\n")
        assert p.reload(p.config).returncode == 0
        assert {body(p) for _ in range(8)} == {b"new"}


def test_a_worker_that_cannot_import_them_at_its_start_is_replaced() -> None:
    with HttpNode("a") as a, ruled(ONCE_MORE.format("new"), a, workers=2) as p:
        assert {body(p) for _ in range(8)} == {b"new"}
        until(lambda: len(p.status()["workers"]) == 2, "both workers")
        assert p.stderr().count("FLB-S120") == 1
        assert "could not use the configuration; a new one is started [FLB-S071]" in p.stderr()


def test_each_rule_is_counted() -> None:
    text = SAY.format("x") + "@rule.request\ndef fail(request): 1 / 0\n"
    with HttpNode("a") as a, ruled(text, a) as p:
        both = changed(p.config, "virtual_servers.shop.rules", ["shop:fail", "shop:say"])
        assert p.reload(both).returncode == 0
        assert [body(p) for _ in range(3)] == [b"x"] * 3
        failed, said = rule(p, "shop:fail"), rule(p)
        assert (failed["kind"], failed["async"]) == ("request", False)
        assert (failed["calls"], failed["errors"]) == (3, 3)
        assert (said["calls"], said["errors"]) == (3, 0)
        assert p.status()["shared"] == {"entries": 0, "entries_max": 65536, "evictions": 0}


def test_one_plain_rule_takes_pythons_lock_once_for_a_request() -> None:
    text = HEAD + "@rule.request\ndef say(request): request.cookies.get('a')\n"
    with HttpNode("a") as a, ruled(text, a) as p, p.client() as client:

        def taken() -> int:
            return p.status()["workers"][0]["gil_acquisitions"]

        before = taken()
        for _ in range(50):
            assert client.ask().node == "a"
        assert taken() == before + 50
        assert p.reload(changed(p.config, "virtual_servers.shop.rules", [])).returncode == 0
        before = taken()
        for _ in range(50):
            assert client.ask().node == "a"
        assert taken() == before
