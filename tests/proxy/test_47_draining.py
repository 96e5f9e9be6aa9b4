"""A draining node keeps its sessions and its running requests, and gets nothing new."""

import threading

import pytest

from tests.harness import HttpNode, changed, proxy, request, settings, sticky


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def draining(config, nodes, name):
    listed = [{"address": n, "draining": True} if n.name == name else n for n in nodes]
    return changed(config, "pools.web.nodes", listed)


@pytest.mark.parametrize("kind", ["transparent", "ip"])
def test_its_sessions_stay_and_new_ones_go_elsewhere(abc, kind):
    config = settings(*abc, persistence={"type": kind})
    with proxy(config) as p:
        users = [p.user(f"u{n}", source=f"127.0.11.{n + 1}") for n in range(10)]
        for user in users:
            user.get()
        assert p.reload(draining(config, abc, "b")).returncode == 0
        for _ in range(3):
            for user in users:
                user.get()
        new = [p.user(f"new{n}", source=f"127.0.12.{n + 1}") for n in range(10)]
        for user in new:
            user.get()
        nodes = p.status()["pools"]["web"]["nodes"]
    assert [len(set(user.nodes)) for user in users] == [1] * 10
    assert "b" in {user.nodes[0] for user in users}
    assert {user.nodes[0] for user in new} == {"a", "c"}
    states = {node["address"]: node["state"] for node in nodes}
    assert states == {abc[0].address: "up", abc[1].address: "draining", abc[2].address: "up"}


def test_a_fallback_gives_no_new_session_to_it(abc):
    config = sticky(*abc, fallback="by-ip", classes={"by-ip": {"type": "ip"}})
    with proxy(draining(config, abc, "b")) as p:
        assert "b" not in {p.get(source=f"127.0.13.{n}").node for n in range(1, 10)}


@pytest.mark.parametrize(
    ("fallback", "arrives"),
    [
        ({"type": "ip"}, True),
        ({"type": "universal", "key": "source"}, True),
        ({"type": "universal", "key": ["source", "header:User-Agent"]}, False),
    ],
)
def test_a_newcomer_at_a_known_address_looks_like_a_lost_cookie(abc, fallback, arrives):
    """Many users behind one address: its map leads newcomers to the draining node, too."""
    config = sticky(*abc, fallback="behind", classes={"behind": fallback})
    with proxy(config) as p:
        user = p.user("alice", source="127.0.15.1")
        home = user.get().node
        assert p.reload(draining(config, abc, home)).returncode == 0
        for n in range(3):
            answer = p.get("/", ("User-Agent", f"another {n}"), source="127.0.15.1")
            assert (answer.node == home) is arrives
            assert bool(answer.all("Set-Cookie")) is not arrives
        assert user.get().node == home


def test_hash_moves_the_keys_of_a_draining_node_at_once(abc):
    config = settings(*abc, pool={"algorithm": "hash"})
    with proxy(config) as p:
        before = {n: p.get(source=f"127.0.14.{n}").node for n in range(1, 25)}
        assert p.reload(draining(config, abc, "b")).returncode == 0
        after = {n: p.get(source=f"127.0.14.{n}").node for n in range(1, 25)}
    assert "b" in before.values()
    assert "b" not in after.values()
    assert all(after[n] == before[n] for n in before if before[n] != "b")


def test_a_request_that_runs_on_it_is_not_cut(abc):
    a, b, c = abc
    go = threading.Event()
    answer = b.script

    def hold(exchange):
        exchange.wait(go)
        answer(exchange)

    b.script = hold
    config = settings(b)
    with proxy(config) as p, p.client() as client:
        client.send(request())
        b.wait_requests(1)
        listed = [a, {"address": b, "draining": True}, c]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        assert p.get().node in ("a", "c")
        go.set()
        assert client.response().node == "b"
