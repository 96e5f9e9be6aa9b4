"""node add, remove, weight: a pool changes while its users go on; the file if that is wanted."""

import json
import signal
import threading

import pytest

from tests.harness import HttpNode, proxy, request, settings, sticky, until
from tests.harness.operator import here, pool_of, status_of


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def told(p, *arguments):
    """A command that works; nodes may stand for their addresses."""
    words = [str(getattr(one, "address", one)) for one in arguments]
    done = here("node", *words, "-c", str(p.file))
    assert done.returncode == 0, done.stderr
    return done


def refused(p, *arguments, code="FLB-S"):
    words = [str(getattr(one, "address", one)) for one in arguments]
    done = here("node", *words, "-c", str(p.file))
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert f"[{code}" in line
    return line


def weights(p):
    return {node["address"]: node["weight"] for node in pool_of(p)}


def served(p, count=9):
    return {p.get().node for _ in range(count)}


def test_a_node_that_is_added_serves_at_once_and_others_keep_their_users(abc):
    a, b, c = abc
    with proxy(sticky(a, b, workers=2, reserve="0s")) as p:
        users = [p.user(f"u{n}", source=f"127.0.50.{n + 1}") for n in range(6)]
        for user in users:
            user.get()
        requests = sum(node["requests"] for node in pool_of(p))
        with p.client() as kept:
            kept.ask()
            done = told(p, "add", c, "--pool", "web", "--weight", "2")
            assert done.stdout == f"{c.address} of [pools.web]: added\n"
            assert {kept.ask().node for _ in range(8)} == {"a", "b", "c"}
        for user in users:
            user.get()
        assert {len(set(user.nodes)) for user in users} == {1}
        assert weights(p) == {a.address: 1, b.address: 1, c.address: 2}
        assert sum(node["requests"] for node in pool_of(p)) > requests  # counters go on
        edits = [{"pool": "web", "address": c.address, "change": "added"}]
        assert status_of(p)["edits"] == edits
        assert "by command, until the next reload" in here("status", "-c", str(p.file)).stdout


def test_weights_take_effect_at_once(abc):
    a, b, _ = abc
    pool = {"algorithm": "weighted-round-robin"}
    with proxy(settings(a, b, pool=pool)) as p:
        assert told(p, "weight", b, "3").stdout.endswith("weight 1 -> 3\n")
        nodes = [p.get().node for _ in range(8)]
        assert (nodes.count("a"), nodes.count("b")) == (2, 6)
        told(p, "weight", a, "0")
        assert served(p) == {"b"}
        done = told(p, "weight", b, 0)
        assert "FLB-S093" in done.stderr  # nobody takes new sessions now
        assert p.get().status == 503
        assert "already" in told(p, "weight", b, 0).stderr


def test_a_removed_node_ends_what_runs_and_gets_nothing_new(abc):
    a, b, c = abc
    held, go = threading.Event(), threading.Event()

    def hold(exchange):
        if exchange.request.target == b"/held":
            held.set()
            exchange.wait(go)
        HttpNode._answer(b, exchange)

    b.script = hold
    with proxy(settings(a, b, c)) as p, p.client() as slow:
        while not held.is_set():
            slow.send(request("/held"))
            if not held.wait(0.2):
                slow.response()
        line = refused(p, "remove", b, code="FLB-S161")
        assert "1 connection" in line
        done = told(p, "remove", b, "--force")
        assert "FLB-S165" in done.stderr
        assert served(p) == {"a", "c"}
        go.set()
        assert slow.response().node == "b"
        assert list(weights(p)) == [a.address, c.address]


def test_removal_is_refused_while_sessions_may_be_there(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip"})) as p:
        users = [p.user(f"u{n}", source=f"127.0.51.{n + 1}") for n in range(4)]
        for user in users:
            user.get()
        assert "2 sessions" in refused(p, "remove", b, code="FLB-S161")
        assert list(weights(p)) == [a.address, b.address]
        told(p, "remove", b, "--force")
        for user in users:
            user.get()
        assert {user.nodes[-1] for user in users} == {"a"}
        outcomes = p.outcomes(8)
        assert outcomes.count("node-removed") == 2


def test_a_drained_node_without_sessions_is_removed_without_force(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip"})) as p:
        p.get()
        p.get(source="127.0.51.9")
        assert here("drain", b.address, "-c", str(p.file)).returncode == 0
        here("sessions", "flush", "--class", "shop", "-c", str(p.file))
        done = told(p, "remove", b)
        assert "FLB-S094" in done.stderr  # what was said about it is over
        assert list(weights(p)) == [a.address]


def test_what_cannot_be_done_changes_nothing(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        before = status_of(p)["generation"]
        refused(p, "add", a, "--pool", "web", code="FLB-S160")
        refused(p, "add", c, "--pool", "wep", code="FLB-S081")
        refused(p, "add", "127.0.0.1", "--pool", "web", code="FLB-S163")
        refused(p, "add", c, "--pool", "web", "--weight", 257, code="FLB-S163")
        refused(p, "remove", c, code="FLB-S080")
        refused(p, "weight", c, 2, code="FLB-S080")
        refused(p, "weight", a, -1, code="FLB-S163")
        told(p, "remove", b, "--force")
        refused(p, "remove", a, "--force", code="FLB-S162")
        assert status_of(p)["generation"] == before + 1
        assert here("node", "add", c.address, "-c", str(p.file)).returncode == 2
        assert here("node", "weight", a.address, "x", "-c", str(p.file)).returncode == 2


@pytest.mark.parametrize("what", ["add", "remove", "weight"])
def test_a_hash_moves_keys_and_says_so(abc, what):
    a, b, c = abc
    pool = {"algorithm": "hash"}
    persistence = {"type": "hash", "on": "source"}
    with proxy(settings(a, b, pool=pool, persistence=persistence)) as p:
        more = {"add": (c, "--pool", "web"), "remove": (b,), "weight": (b, 5)}[what]
        done = told(p, what, *more)
        assert ("FLB-S091" if what == "remove" else "FLB-S166") in done.stderr


def test_a_reload_says_which_changes_are_over(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        told(p, "add", c, "--pool", "web")
        told(p, "weight", a, 4)
        done = here("reload", "-c", str(p.file))
        assert done.returncode == 0
        over = [line for line in done.stderr.splitlines() if "FLB-S167" in line]
        assert len(over) == 2
        assert any(c.address in line and "added" in line for line in over)
        assert any(a.address in line and "weight 4" in line for line in over)
        assert weights(p) == {a.address: 1, b.address: 1}
        assert status_of(p)["edits"] == []
        assert here("reload", "-c", str(p.file)).stderr == ""


def test_saved_changes_outlive_a_reload_and_a_restart(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        with p.file.open("a") as file:
            file.write("# my shop\n")
        mode = p.file.stat().st_mode
        done = told(p, "add", c, "--pool", "web", "--weight", 2, "--save")
        assert done.stdout.endswith(f"saved in {p.file}\n")
        assert status_of(p)["edits"] == []
        told(p, "weight", a, 3, "--save")
        told(p, "remove", b, "--save", "--force")
        assert p.file.read_text().endswith("# my shop\n")
        assert p.file.stat().st_mode == mode
        wanted = {a.address: 3, c.address: 2}
        assert weights(p) == wanted
        done = here("reload", "-c", str(p.file))
        assert (done.returncode, done.stderr) == (0, "")
        assert weights(p) == wanted
        p.stop()
        p.start()
        assert weights(p) == wanted


def test_a_change_can_be_saved_afterwards(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        before = p.file.read_text()
        told(p, "add", c, "--pool", "web")
        told(p, "weight", c, 5)
        assert p.file.read_text() == before
        told(p, "weight", c, 5, "--save")
        told(p, "remove", b, "--force")
        told(p, "remove", b, "--save")
        assert status_of(p)["edits"] == []
        here("reload", "-c", str(p.file))
        assert weights(p) == {a.address: 1, c.address: 5}


def test_what_cannot_be_saved_is_not_done_either(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        text = p.file.read_text()
        p.file.write_text(text + "[limts]\n")
        line = refused(p, "add", c, "--pool", "web", "--save", code="FLB-S164")
        assert "limts" in line
        assert list(weights(p)) == [a.address, b.address]
        assert p.file.read_text() == text + "[limts]\n"
        p.file.write_text(text)


def test_for_programs(abc):
    a, b, c = abc
    with proxy(sticky(a, b)) as p:
        done = json.loads(told(p, "add", c, "--pool", "web", "--json").stdout)
        row = {"pool": "web", "address": c.address, "change": "added", "weight": 1}
        assert done == {"nodes": [row], "warnings": [], "saved": None}
        help_ = here("node", "add", "--help").stdout
        assert "example: fastlb node add 10.0.0.4:8080 --pool web" in help_


def test_changes_and_reloads_at_the_same_time_lose_no_request(abc):
    a, b, c = abc
    with proxy(sticky(a, b, workers=2)) as p:
        ended, failed, nodes = threading.Event(), [], set()

        def ask():
            with p.client() as client:
                while not ended.is_set():
                    answer = client.ask()
                    nodes.add(answer.node)
                    if answer.status != 200:
                        failed.append(answer)

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for one in askers:
            one.start()
        for turn in range(4):
            p.process.send_signal(signal.SIGHUP)
            done = here("node", "add", c.address, "--pool", "web", "-c", str(p.file))
            here("node", "weight", a.address, str(turn + 2), "-c", str(p.file))
            here("node", "remove", c.address, "--force", "-c", str(p.file))
            assert done.returncode == 0, done.stderr
        told(p, "add", c, "--pool", "web")
        until(lambda: len(nodes) == 3, "the added node to be used")
        ended.set()
        for one in askers:
            one.join(20)
        assert failed == []
