"""drain, undrain, disable, enable: what an operator does with a node while users are on it."""

import json
import threading

import pytest

from tests.harness import HttpNode, changed, proxy, settings, sticky, until
from tests.harness.operator import here, pool_of, status_of


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def told(p, verb, node, *more):
    """A command that works; what it says on both streams."""
    done = here(verb, getattr(node, "address", node), *more, "-c", str(p.file))
    assert done.returncode == 0, done.stderr
    return done


def failed(p, *arguments):
    """A command that fails, with one line."""
    done = here(*arguments, "-c", str(p.file))
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastlb: error: ")
    return line


def node_of(p, node, pool="web"):
    (found,) = [n for n in pool_of(p, pool) if n["address"] == node.address]
    return found


def states(p, pool="web"):
    return [node["state"] for node in pool_of(p, pool)]


def users_of(p, count, net):
    users = [p.user(f"{net}-{n}", source=f"127.0.{net}.{n + 1}") for n in range(count)]
    for user in users:
        user.get()
    return users


@pytest.mark.parametrize("kind", ["transparent", "ip"])
def test_a_drained_node_keeps_its_users_and_gets_no_new_ones(abc, kind):
    with proxy(settings(*abc, persistence={"type": kind}, workers=2)) as p:
        users = users_of(p, 9, 41)
        with p.client() as one:  # many users on one connection that stays open
            assert (
                told(p, "drain", abc[1]).stdout
                == f"{abc[1].address} of [pools.web]: up -> draining\n"
            )
            for user in users:
                user.get()
                if kind == "transparent":
                    user.get(connection=one)
        assert {len(set(user.nodes)) for user in users} == {1}
        assert "b" in {user.nodes[0] for user in users}
        assert {user.nodes[0] for user in users_of(p, 9, 42)} == {"a", "c"}
        told(p, "undrain", abc[1])
        assert "b" in {user.nodes[0] for user in users_of(p, 9, 43)}
        assert states(p) == ["up"] * 3


def test_requests_on_a_kept_connection_go_elsewhere_from_the_next_one_on(abc):
    a, b, _ = abc
    with proxy(settings(a, b)) as p, p.client() as client:
        assert {client.ask().node for _ in range(4)} == {"a", "b"}
        told(p, "drain", b)
        assert {client.ask().node for _ in range(4)} == {"a"}
        told(p, "undrain", b)
        assert {client.ask().node for _ in range(4)} == {"a", "b"}


def test_two_workers_agree_at_once(abc):
    with proxy(settings(*abc, workers=2)) as p:
        told(p, "drain", abc[1])
        assert "b" not in {p.get().node for _ in range(30)}
        counts = [worker["requests"] for worker in status_of(p)["workers"]]
    assert all(counts), "one worker served everything"


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({}, 200),
        ({"failure_mode": "redirect", "redirect_url": "/sorry"}, 302),
        ({"failure_mode": "close"}, 503),
    ],
)
def test_sessions_of_a_disabled_node_meet_the_failure_mode(abc, keys, status):
    with proxy(sticky(*abc, **keys)) as p:
        user = p.user("alice")
        home = {"a": 0, "b": 1, "c": 2}[user.get().node]
        told(p, "disable", abc[home])
        assert states(p)[home] == "disabled"
        answer = user.get()
        assert answer.status == status
        if status == 200:
            assert answer.node != user.nodes[0]
        assert p.log(2)[1]["outcome"] == "node-disabled"
        told(p, "enable", abc[home])
        assert states(p) == ["up"] * 3


def test_a_session_that_is_kept_is_back_when_the_node_is_enabled(abc):
    config = sticky(*abc, failure_mode="close", delete_on_failure=False)
    with proxy(config) as p:
        user = p.user("alice")
        home = {"a": 0, "b": 1, "c": 2}[user.get().node]
        told(p, "disable", abc[home])
        assert user.get().status == 503
        told(p, "enable", abc[home])
        user.get()
    assert len(set(user.nodes)) == 1
    assert len(user.nodes) == 2


@pytest.mark.parametrize(
    ("policy", "status", "code"), [("serve", 200, "S092"), ("refuse", 503, "S093")]
)
def test_the_last_node_that_takes_new_sessions(abc, policy, status, code):
    a, b, _ = abc
    with proxy(sticky(a, b, pool={"drain_last": policy})) as p:
        user = p.user("alice")
        user.get()
        assert told(p, "drain", a).stderr == ""
        done = told(p, "drain", b)
        assert code in done.stderr
        assert "drain_last" in done.stderr
        assert p.get().status == status
        assert user.get().status == 200
        assert "every node is disabled" not in done.stderr
        told(p, "disable", a)
        assert "every node is disabled" not in told(p, "disable", b).stderr  # it took none before
        told(p, "enable", a)
        told(p, "undrain", a)
        assert "every node is disabled" in told(p, "disable", a).stderr
        assert p.get().status == 503


def test_a_reload_keeps_what_the_operator_said(abc):
    config = sticky(*abc)
    with proxy(config) as p:
        told(p, "drain", abc[0])
        told(p, "disable", abc[1])
        done = p.reload(changed(config, "timeouts.keep_alive", "59s"))
        assert (done.returncode, done.stderr) == (0, "")
        assert states(p) == ["draining", "disabled", "up"]


def test_a_configuration_that_says_otherwise_ends_it(abc):
    a, b, c = abc
    config = sticky(*abc)
    with proxy(config) as p:
        told(p, "disable", b)
        told(p, "drain", c)
        marked = changed(config, "pools.web.nodes", [a, {"address": b, "draining": True}, c])
        done = p.reload(marked)
        assert done.returncode == 0
        assert f"{b.address} of [pools.web] by command is over: draining = true" in done.stderr
        assert "S094" in done.stderr
        assert states(p) == ["up", "draining", "draining"]
        told(p, "undrain", b)
        assert p.reload(changed(marked, "timeouts.keep_alive", "59s")).returncode == 0
        assert states(p) == ["up", "up", "draining"]
        p.reload(config)
        assert states(p) == ["up", "up", "draining"]


def test_a_node_that_was_taken_out_and_put_back_begins_anew(abc):
    a, b, c = abc
    config = sticky(*abc)
    with proxy(config) as p:
        told(p, "disable", b)
        done = p.reload(changed(config, "pools.web.nodes", [a, c]))
        assert "it is not configured any more" in done.stderr
        assert "no node" in failed(p, "enable", b.address)
        assert p.reload(config).stderr == ""
        assert states(p) == ["up"] * 3


def test_it_holds_through_a_stop_and_a_start(abc, tmp_path):
    config = settings(*abc, state_dir=str(tmp_path / "state"))
    a, b, c = abc
    with proxy(config) as p:
        told(p, "disable", b)
        told(p, "drain", c)
        assert (tmp_path / "state" / "nodes.json").stat().st_mode & 0o777 == 0o600
    with proxy(config) as p:
        assert states(p) == ["up", "disabled", "draining"]
        assert (
            f"{b.address} of [pools.web] is disabled by a command before this start" in p.stderr()
        )
        assert {p.get().node for _ in range(4)} == {"a"}
    with proxy(changed(config, "pools.web.nodes", [a, b, {"address": c, "draining": True}])) as p:
        assert states(p) == ["up", "disabled", "draining"]
        assert "S094" in p.stderr()
        told(p, "enable", b)
        assert not (tmp_path / "state" / "nodes.json").exists()


def test_killing_a_worker_changes_nothing(abc):
    with proxy(settings(*abc)) as p:
        told(p, "drain", abc[0])
        told(p, "disable", abc[1])
        p.wait_worker_replaced(p.kill_worker(0))
        assert states(p) == ["draining", "disabled", "up"]
        assert {p.get().node for _ in range(4)} == {"c"}


def test_an_address_alone_and_a_pool(abc):
    a, b, _ = abc
    with HttpNode("a2", host=a.host) as a2:
        config = settings(a, a2, b)
        config["pools"]["other"] = {"nodes": [a, b]}
        config["virtual_servers"]["shop"]["routes"] = [{"path": "/other", "pool": "other"}]
        with proxy(config) as p:
            told(p, "drain", a.address, "--pool", "other")
            assert (states(p), states(p, "other")) == (["up"] * 3, ["draining", "up"])
            told(p, "disable", a.host)
            assert states(p) == ["disabled", "disabled", "up"]
            assert states(p, "other") == ["disabled", "up"]
            told(p, "enable", a)
            assert states(p) == ["up", "disabled", "up"]
            assert states(p, "other") == ["draining", "up"]


def test_what_is_wrong_is_said_with_the_nearest(abc):
    a = abc[0]
    with proxy(settings(*abc)) as p:
        near = a.address[:-1] + str((int(a.address[-1]) + 1) % 10)
        assert f'no node "{near}" in any pool (did you mean "' in failed(p, "drain", near)
        assert '(did you mean "web"?)' in failed(p, "drain", a.address, "--pool", "wep")
        line = failed(p, "drain", "nonsense")
        assert all(node.address in line for node in abc)
        for name in ("[", "", "]:", "127.0.0.1:", "::::", "\x1b[31m", "é" * 300):
            assert "no node" in failed(p, "disable", name)
        for arguments in ((), ("a", "b"), (a.address, "--fly")):
            assert here("drain", *arguments, "-c", str(p.file)).returncode == 2
        assert states(p) == ["up"] * 3


def test_a_node_of_another_pool_is_named_with_its_pool(abc):
    a, b, _ = abc
    config = settings(a)
    config["pools"]["other"] = {"nodes": [b]}
    config["virtual_servers"]["shop"]["routes"] = [{"path": "/other", "pool": "other"}]
    with proxy(config) as p:
        assert "(it is in [pools.other])" in failed(p, "drain", b.address, "--pool", "web")


def test_what_is_so_already_is_said_and_done_again_without_harm(abc):
    with proxy(settings(*abc)) as p:
        told(p, "drain", abc[0])
        assert "is draining already" in told(p, "drain", abc[0]).stderr
        assert "is not disabled already: it is draining" in told(p, "enable", abc[0]).stderr
        told(p, "disable", abc[0])
        assert "stays disabled" in told(p, "undrain", abc[0]).stderr
        assert told(p, "enable", abc[0]).stderr == ""
        assert states(p) == ["up"] * 3
        assert "is not draining already" in told(p, "undrain", abc[0]).stderr


def test_json_says_what_was_done_and_what_surprises(abc):
    with proxy(settings(*abc, pool={"algorithm": "hash"})) as p:
        done = told(p, "drain", abc[1], "--json")
        answer = json.loads(done.stdout)
        assert answer["nodes"] == [
            {
                "pool": "web",
                "address": abc[1].address,
                "before": "up",
                "state": "draining",
                "down": False,
            }
        ]
        (line,) = answer["warnings"]
        assert f"the keys of {abc[1].address} move to other nodes at once" in line
        assert line in done.stderr


def test_the_keys_of_a_hash_class_move_and_that_is_said_first(abc):
    with proxy(settings(*abc, persistence={"type": "hash"})) as p:
        before = {n: p.get(source=f"127.0.50.{n}").node for n in range(1, 13)}
        done = told(p, "drain", abc[1])
        assert "[persistence.shop] is a hash [FLB-S091]" in done.stderr
        after = {n: p.get(source=f"127.0.50.{n}").node for n in range(1, 13)}
        assert "b" in before.values()
        assert "b" not in after.values()
        assert all(after[n] == before[n] for n in before if before[n] != "b")
        assert node_of(p, abc[1])["safe_to_remove"]


def test_a_pool_that_remembers_does_not_move_its_users(abc):
    with proxy(sticky(*abc, pool={"algorithm": "hash"})) as p:
        assert told(p, "drain", abc[1]).stderr == ""


# --- when is it safe? ---


def test_a_drained_node_is_safe_once_no_map_leads_to_it(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip", "expiry": "1h"})) as p:
        users_of(p, 6, 44)
        told(p, "drain", b)
        found = node_of(p, b)
        assert (found["live_sessions"], found["safe_to_remove"]) == (3, False)
        assert "3 sessions, 0 connections" in found["leaving"]["why"]
        assert "not yet, in 3" in found["leaving"]["why"]
        shown = here("status", "-c", str(p.file)).stdout
        assert f"web {b.address} drains: 3 sessions, 0 connections, idle " in shown
        done = here("sessions", "delete", "--class", "shop", "--node", b.address, "-c", str(p.file))
        assert done.stdout == "3 sessions deleted\n"
        found = node_of(p, b)
        assert (found["live_sessions"], found["safe_to_remove"]) == (0, True)
        assert found["leaving"]["why"].endswith(": safe to remove")
        assert not node_of(p, a)["safe_to_remove"]
        assert node_of(p, a)["leaving"] is None


def test_a_drained_node_is_safe_once_its_maps_expire(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip", "expiry": "1s"})) as p:
        users_of(p, 4, 45)
        told(p, "drain", b)
        until(lambda: node_of(p, b)["safe_to_remove"], "the maps are too old")
        assert node_of(p, b)["live_sessions"] == 0


def test_maps_that_never_expire_are_named_as_such(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip", "expiry": "0s"})) as p:
        users_of(p, 4, 46)
        told(p, "drain", b)
        assert node_of(p, b)["leaving"]["why"].endswith("not yet, its sessions never expire")


def test_sessions_in_cookies_need_quiet_for_their_timeout(abc):
    a, b, _ = abc
    with proxy(sticky(a, b, timeout="1s")) as p:
        users = users_of(p, 4, 47)
        told(p, "disable", b)
        assert {user.get().node for user in users} == {"a"}
        until(lambda: node_of(p, b)["safe_to_remove"], "nobody can come back")
        assert node_of(p, b)["idle_seconds"] >= 3
        assert node_of(p, b)["live_sessions"] is None
    with proxy(sticky(a, b)) as p:
        told(p, "drain", b)
        found = node_of(p, b)
        assert not found["safe_to_remove"]
        assert " s of 1800 s: not yet, in 1" in found["leaving"]["why"]


def test_without_persistence_only_running_requests_count(abc):
    a, b, _ = abc
    go = threading.Event()
    answer = b.script

    def hold(exchange):
        exchange.wait(go)
        answer(exchange)

    b.script = hold
    with proxy(settings(a, b)) as p, p.client() as one, p.client() as two:
        for client in (one, two):
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        b.wait_requests(1)
        told(p, "drain", b)
        found = node_of(p, b)
        assert (found["connections"], found["idle_seconds"]) == (1, 0)
        assert not found["safe_to_remove"]
        assert "1 connection, idle 0 s: not yet" in found["leaving"]["why"]
        go.set()
        assert {one.response().node, two.response().node} == {"a", "b"}
        until(lambda: node_of(p, b)["safe_to_remove"], "it is idle")


def test_requests_since_the_drain_began_are_counted_and_idle_time_grows(abc):
    a, b, _ = abc
    with proxy(settings(a, b, persistence={"type": "ip"})) as p:
        users = users_of(p, 4, 48)
        told(p, "drain", b)
        assert node_of(p, b)["leaving"]["requests"] == 0
        for user in users:
            user.get()
        assert node_of(p, b)["leaving"]["requests"] == 2
        until(lambda: node_of(p, b)["idle_seconds"] >= 2, "it is idle for two seconds")
        assert node_of(p, b)["leaving"]["seconds"] >= 1  # by another clock, of whole seconds
        next(user for user in users if user.nodes[0] == "b").get()
        assert node_of(p, b)["idle_seconds"] < 2
        told(p, "undrain", b)
        assert node_of(p, b)["leaving"] is None


def test_the_other_port_of_a_machine_counts_where_a_map_leads_there():
    """A class of two pools: the map names the web port, the api pool has the other one."""
    with HttpNode("web") as web, HttpNode("other") as other:
        with HttpNode("api", host=web.host) as api:
            config = settings(web, other, persistence={"type": "ip"})
            config["pools"]["api"] = {"nodes": [api, other], "persistence": "shop"}
            config["virtual_servers"]["shop"]["routes"] = [{"path": "/api", "pool": "api"}]
            with proxy(config) as p:
                users_of(p, 2, 49)
                told(p, "drain", api)
                assert node_of(p, api, "api")["live_sessions"] == 1
                assert not node_of(p, api, "api")["safe_to_remove"]
