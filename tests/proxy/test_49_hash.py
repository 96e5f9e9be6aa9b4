"""Persistence by a consistent hash: nothing is remembered, all proxies agree."""

from collections import Counter

import pytest

from tests.harness import Client, HttpNode, changed, proxy, request, settings, until

USERS = range(48)  # so many that each of three nodes has some, whatever its port is


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


@pytest.fixture
def nodes():
    made = {name: HttpNode(name) for name in "abc"}
    for node in made.values():
        node.start()
    yield made
    for node in made.values():
        node.stop()


def hashed(nodes, on=None, workers=1, server=None, **keys):
    keys |= {"on": on} if on else {}
    return settings(*nodes, persistence={"type": "hash", **keys}, workers=workers, server=server)


def homes(p, **more):
    """Where each user goes; all on one connection."""
    with p.client(**more) as client:
        return {n: client.ask("/", ("X-User", str(n))).node for n in USERS}


def user(n):
    return ("X-User", str(n))


# ---- what is hashed ----


def test_source_is_what_is_hashed_if_nothing_is_said(abc):
    with proxy(hashed(abc, workers=2)) as p:
        first = {}
        for _ in range(3):
            for n in range(1, 41):
                node = p.get(source=f"127.0.41.{n}").node
                assert first.setdefault(n, node) == node
        assert set(p.outcomes(120)) == {"hashed"}
        assert {line["found_in"] for line in p.log_lines()} == {"hash"}
    assert set(first.values()) == {"a", "b", "c"}


def test_the_source_is_the_client_that_a_trusted_proxy_names(abc):
    server = {"trusted_proxies": ["127.0.42.0/24"]}
    with proxy(hashed(abc, "source", server=server)) as p:
        direct = {n: p.get(source=f"127.0.41.{n}").node for n in range(1, 25)}
        for n, home in direct.items():
            forwarded = ("X-Forwarded-For", f"127.0.41.{n}")
            assert p.get("/", forwarded, source="127.0.42.1").node == home


@pytest.mark.parametrize("listen", [["127.0.0.1:0", "127.0.0.2:0"], ["0.0.0.0:0"]])
def test_source_and_destination(abc, listen):
    """The destination is where the client connected to, not what the socket is bound to."""
    config = hashed(abc, "source+destination", server={"listen": listen})
    with proxy(config) as p:
        ports = [p.address(index=i)[1] for i in range(len(listen))] * 2
        places = {"127.0.0.1": ports[0], "127.0.0.2": ports[1]}
        first = {}
        for _ in range(2):
            for n in range(1, 25):
                for place, port in places.items():
                    with Client((place, port), f"127.0.43.{n}") as client:
                        for _ in range(2):
                            node = client.ask().node
                            assert first.setdefault((n, place), node) == node
        assert set(p.outcomes(192)) == {"hashed"}
    two = [{first[n, place] for place in places} for n in range(1, 25)]
    assert any(len(one) == 2 for one in two), "the destination makes no difference"


def test_ipv6(abc):
    config = hashed(abc, "source+destination", server={"listen": ["[::1]:0"]})
    with proxy(config) as p:
        assert len({p.get().node for _ in range(4)}) == 1
        assert p.outcomes(4) == ["hashed"] * 4


@pytest.mark.parametrize("on", ["source", "source+destination"])
def test_a_unix_socket_has_no_addresses(abc, tmp_path, on):
    path = tmp_path / "shop.sock"
    config = hashed(abc, on, server={"listen": [f"unix:{path}"]}, fallback="by-user")
    config["persistence"]["by-user"] = {"type": "hash", "on": "header:X-User"}
    with proxy(config) as p, Client(str(path)) as client:
        assert [client.ask().node for _ in range(4)] == ["a", "b", "c", "a"]
        assert len({client.ask("/", user(1)).node for _ in range(4)}) == 1
        assert p.outcomes(8) == ["no-key"] * 4 + ["hashed"] * 4


def test_a_declared_key(abc):
    with proxy(hashed(abc, "header:X-User", workers=2)) as p:
        first = homes(p)
        assert set(first.values()) == {"a", "b", "c"}
        assert homes(p, source="127.0.44.1") == first
        with p.client() as client:
            client.send(b"".join(request("/", user(n)) for n in USERS))
            assert [answer.node for answer in client.responses(len(USERS))] == list(first.values())


def test_a_list(abc):
    with proxy(hashed(abc, ["host", "cookie:SID"])) as p, p.client() as client:
        seen = {}
        for host in ("one.test", "two.test"):
            for n in USERS:
                client.send(request("/", ("Cookie", f"SID={n}"), host=host))
                seen[host, n] = client.response().node
        assert any(seen["one.test", n] != seen["two.test", n] for n in USERS)
        client.send(request("/", ("Cookie", "x=y; SID=7"), host="ONE.test:80"))
        assert client.response().node == seen["one.test", 7]


def test_without_its_key_a_request_is_balanced(abc):
    with proxy(hashed(abc, "cookie:SID")) as p:
        assert [p.get().node for _ in range(4)] == ["a", "b", "c", "a"]
        assert p.outcomes(4) == ["no-key"] * 4


def test_as_the_fallback_of_a_cookie(abc):
    """A client that keeps no cookies is placed by the hash, one that does by its cookie."""
    config = hashed(abc, "header:X-User")
    config["persistence"]["jar"] = {"type": "transparent", "fallback": "shop"}
    config["pools"]["web"]["persistence"] = "jar"
    with proxy(config) as p:
        first = homes(p)
        alice = p.user("7")
        answers = [alice.get() for _ in range(3)]
        assert [len(answer.all("Set-Cookie")) for answer in answers] == [1, 0, 0]
        assert set(alice.nodes) == {first[7]}
        lines = p.log(len(USERS) + 3)[-3:]
    assert [line["found_in"] for line in lines] == ["hash", "cookie", "cookie"]


# ---- proxies and nodes ----


def test_proxies_that_share_nothing_agree(abc):
    a, b, c = abc
    with proxy(hashed([a, b, c], "header:X-User")) as one:
        with proxy(hashed([c, a, b], "header:X-User")) as other:
            assert homes(one) == homes(other)


def test_drain_moves_the_keys_of_the_node_at_once_and_no_others(abc):
    config = hashed(abc, "header:X-User")
    with proxy(config) as p:
        before = homes(p)
        listed = [{"address": n, "draining": True} if n.name == "b" else n for n in abc]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        during = homes(p)
        assert p.reload(config).returncode == 0
        assert homes(p) == before
        assert set(p.outcomes(3 * len(USERS))) == {"hashed"}
    assert set(before.values()) == {"a", "b", "c"}
    assert "b" not in during.values()
    assert all(during[n] == home for n, home in before.items() if home != "b")


def test_a_new_node_takes_its_share_and_nothing_else_moves(abc):
    a, b, c = abc
    config = hashed([a, b], "header:X-User")
    with proxy(config) as p:
        before = homes(p)
        assert p.reload(changed(config, "pools.web.nodes", [c, b, a])).returncode == 0
        after = homes(p)
        assert p.reload(changed(config, "pools.web.nodes", [b])).returncode == 0
        assert set(homes(p).values()) == {"b"}
    moved = {n for n in USERS if after[n] != before[n]}
    assert 0 < len(moved) < len(USERS)
    assert {after[n] for n in moved} == {"c"}


def test_weights(abc):
    a, b, c = abc
    listed = [a, {"address": b, "weight": 0}, {"address": c, "weight": 20}]
    with proxy(hashed(listed, "header:X-User")) as p:
        counts = Counter(homes(p).values())
    assert "b" not in counts
    assert counts["c"] > counts["a"]


def test_a_node_that_is_back_has_its_users_again(nodes):
    with proxy(hashed(nodes.values(), "header:X-User")) as p:
        before = homes(p)
        assert set(before.values()) == {"a", "b", "c"}
        nodes["b"].stop()
        during = homes(p)
        assert all(during[n] == home for n, home in before.items() if home != "b")
        assert {during[n] for n, home in before.items() if home == "b"} <= {"a", "c"}
        nodes["b"].start()
        until(lambda: homes(p) == before, "the node that is back serves its users")


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("mode", ["new-node", "redirect", "close"])
def test_failure_modes(nodes, mode, delete):
    """There is nothing to forget: when the node is back its users are back, either way."""
    more = {"redirect_url": "/sorry"} if mode == "redirect" else {}
    config = hashed(
        nodes.values(), "header:X-User", failure_mode=mode, delete_on_failure=delete, **more
    )
    with proxy(config) as p:
        before = homes(p)
        n = next(n for n in USERS if before[n] == "b")
        nodes["b"].stop()
        answer = p.get("/failed", user(n))
        line = p.log_of("/failed")
        assert (line["outcome"], line["previous_node"]) == ("connect-failed", nodes["b"].address)
        if mode == "new-node":
            assert answer.node in ("a", "c")
            assert {p.get("/", user(n)).node for _ in range(3)} == {answer.node}
        else:
            assert answer.status == {"redirect": 302, "close": 503}[mode]
        nodes["b"].start()

        def is_back():
            found = p.get("/", user(n))
            return found.status == 200 and found.node == "b"

        until(is_back, "the user is served at home again")


def test_the_last_node_that_drains_serves_or_refuses(abc):
    a = abc[0]
    config = hashed([{"address": a, "draining": True}], "header:X-User")
    with proxy(config) as p:
        assert p.get("/", user(1)).status == 200
        assert p.reload(changed(config, "pools.web.drain_last", "refuse")).returncode == 0
        assert p.get("/", user(1)).status == 503
