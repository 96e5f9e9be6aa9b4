"""Persistence by a declared key (`universal`): found in the request, or learned from a response."""

import itertools
import json
import threading
from collections import Counter

import pytest

from tests.harness import ANY_PORT, HttpNode, changed, proxy, reply, request, settings, until


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


class Application(HttpNode):
    """Has sessions of its own: /login gives a new id, /logout takes it away."""

    ids = itertools.count(1)

    def _answer(self, exchange):
        exchange.read_body()
        path = exchange.request.target
        fields = []
        if path == b"/login":
            number = next(self.ids)
            fields = [("Set-Cookie", f"SID=id-{number}; Path=/; HttpOnly"),
                      ("X-Session", f"id-{number}")]  # fmt: skip
        elif path == b"/logout":
            fields = [("Set-Cookie", "SID=deleted; Path=/; Max-Age=0")]
        exchange.send(reply(200, json.dumps({"node": self.name}).encode(), *fields))


@pytest.fixture
def applications():
    with Application("a") as a, Application("b") as b, Application("c") as c:
        yield a, b, c


def by_key(nodes, key, workers=1, **keys):
    return settings(*nodes, persistence={"type": "universal", "key": key, **keys}, workers=workers)


def asked(target="/", *fields, host="shop.test"):
    return request(target, *fields, host=host)


def cookie(value):
    return ("Cookie", value)


# What is one session, and two others.
KINDS = [
    ("header:X-Session", [asked("/", ("X-Session", "1")), asked("/a?b", ("x-SESSION", " 1 "))],
     asked("/", ("X-Session", "2")), asked("/", ("X-Session", "3"))),
    ("header:User-Agent", [asked("/", ("User-Agent", "one"))] * 2,
     asked("/", ("User-Agent", "two")), asked("/", ("User-Agent", "One"))),
    ("cookie:SID", [asked("/", cookie("SID=1")), asked("/", cookie('x=y; SID="1"')),
                    asked("/", cookie("x=y"), cookie("SID=1; a=b"))],
     asked("/", cookie("SID=2")), asked("/", cookie("SID=%31"))),
    ("query:sid", [asked("/?sid=1"), asked("/a?b=c&sid=1&sid=2")],
     asked("/?sid=2"), asked("/?SID=1&sid=3")),
    ("path:2", [asked("/s/1"), asked("/t/1/x?y"), asked("http://shop.test/s/1")],
     asked("/s/2"), asked("/s/./1")),
    ("host", [asked(host="shop.test"), asked(host="SHOP.test:80"), asked(host="shop.test."),
              asked("http://shop.test:81/", host="else.test")],
     asked(host="two.test"), asked(host="three.test")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "one", "two", "three"), KINDS, ids=[kind[0] for kind in KINDS])
def test_each_kind_of_key(abc, key, one, two, three):
    with proxy(by_key(abc, key)) as p, p.client() as client:
        seen = {}
        for _ in range(3):
            for name, data in [*(("one", data) for data in one), ("two", two), ("three", three)]:
                client.send(data)
                seen.setdefault(name, set()).add(client.response().node)
        assert seen == {"one": {"a"}, "two": {"b"}, "three": {"c"}}
        outcomes = Counter(p.outcomes(3 * len(one) + 6))
    assert outcomes == {"new": 3, "hit": 3 * len(one) + 3}


def test_source_as_the_key(abc):
    with proxy(by_key(abc, "source")) as p:
        for _ in range(3):
            assert [p.get(source=f"127.0.31.{n}").node for n in (1, 2, 3)] == ["a", "b", "c"]


def test_a_list_is_one_key_and_each_part_counts(abc):
    """Many users behind one address, and one browser behind two."""
    with proxy(by_key(abc, ["source", "header:User-Agent"])) as p:
        homes = {}
        for _ in range(3):
            for source, agent in [(1, "x"), (1, "y"), (2, "x")]:
                answer = p.get("/", ("User-Agent", agent), source=f"127.0.32.{source}")
                homes.setdefault((source, agent), set()).add(answer.node)
        assert homes == {(1, "x"): {"a"}, (1, "y"): {"b"}, (2, "x"): {"c"}}


def test_a_missing_part_makes_no_key(abc):
    agent = ("User-Agent", "browser")
    requests = [
        [], [agent], [cookie("SID=1")], [("User-Agent", ""), cookie("SID=1")],
        [agent, cookie("SID=")], [agent, cookie("sid=1; XSID=2; SIDX=3; SID")],
        [agent, cookie('SID=""; x="SID=5"')], [agent, ("X-Cookie", "SID=5")],
        [("X-User-Agent", "browser"), cookie("SID=1")],
    ]  # fmt: skip
    with proxy(by_key(abc, ["header:User-Agent", "cookie:SID"])) as p:
        assert "".join(p.get("/", *fields).node for fields in requests) == "abcabcabc"
        assert p.outcomes(9) == ["no-key"] * 9
        assert p.status()["persistence"]["shop"]["entries"] == 0


def test_a_request_without_its_key_is_found_by_the_fallback(abc):
    config = by_key(abc, "cookie:SID", fallback="by-ip")
    config["persistence"]["by-ip"] = {"type": "ip"}
    with proxy(config) as p:
        homes = {}
        for n in range(1, 5):
            home = p.get("/", cookie(f"SID={n}"), source=f"127.0.33.{n}").node
            homes[n] = home
        for n, home in homes.items():
            assert p.get("/lost", source=f"127.0.33.{n}").node == home
        lines = p.log(8)[4:]
    assert [(line["outcome"], line["found_class"]) for line in lines] == [("hit", "by-ip")] * 4


def test_a_repeated_cookie_is_counted(abc):
    with proxy(by_key(abc, "cookie:SID")) as p:
        p.get("/", cookie("SID=1"))
        assert p.get("/empty", cookie("SID=; SID=1")).node == "a"
        assert p.get("/first", cookie("SID=1"), cookie("SID=2")).node == "a"
        p.log(3)
        assert p.status()["persistence"]["shop"]["duplicates"] == 2


# ---- learning ----


def sid_of(answer):
    (line,) = answer.all("Set-Cookie")
    return line.decode().split(";")[0].removeprefix("SID=")


def test_a_session_begins_where_its_id_was_given(applications):
    config = by_key(applications, "cookie:SID", learn="cookie:SID", workers=2)
    config["virtual_servers"]["admin"] = {
        "listen": [ANY_PORT], "protocol": "http", "pool": "web",
    }  # fmt: skip
    with proxy(config) as p:
        homes = {}
        for _ in range(9):
            answer = p.get("/login")
            homes[sid_of(answer)] = answer.node
        assert set(Counter(homes.values()).values()) == {3}
        # On any worker, at the other virtual server, on one connection of a CDN.
        for server in ("shop", "admin"):
            for sid, home in homes.items():
                assert p.get("/", cookie(f"SID={sid}"), server=server).node == home
            with p.client(server=server) as client:
                for sid, home in homes.items():
                    assert client.ask("/", cookie(f"SID={sid}")).node == home
        workers = p.status()["workers"]
        outcomes = Counter(p.outcomes(45))
    assert all(worker["requests"] for worker in workers), "one worker served everything"
    assert outcomes == {"no-key": 9, "hit": 36}


def test_a_header_can_name_the_session_too(applications):
    config = by_key(applications, "header:X-Session", learn="header:X-Session")
    with proxy(config) as p:
        for _ in range(3):
            answer = p.get("/login")
            session = answer.get("X-Session").decode()
            assert p.get("/", ("X-Session", session)).node == answer.node
        assert p.outcomes(6) == ["no-key", "hit"] * 3


def test_a_new_id_at_login_stays_on_the_node(applications):
    """Against session fixation, applications give a new id at login."""
    with proxy(by_key(applications, "cookie:SID", learn="cookie:SID")) as p:
        p.get()
        before = p.get("/", cookie("SID=anonymous"))
        login = p.get("/login", cookie("SID=anonymous"))
        after = p.get("/", cookie(f"SID={sid_of(login)}"))
        assert (before.node, login.node, after.node) == ("b", "b", "b")


def test_an_id_from_before_is_bound_by_its_first_request(applications):
    """The application knows it (from a shared store, say) and does not set it again."""
    with proxy(by_key(applications, "cookie:SID", learn="cookie:SID")) as p:
        assert [p.get("/", cookie("SID=old")).node for _ in range(4)] == ["a"] * 4


def test_logging_out_ends_the_session(applications):
    with proxy(by_key(applications, "cookie:SID", learn="cookie:SID")) as p:
        sid = sid_of(p.get("/login"))
        assert p.get("/logout", cookie(f"SID={sid}")).node == "a"
        assert p.status()["persistence"]["shop"]["entries"] == 0
        p.get("/after", cookie(f"SID={sid}"))
        assert p.log_of("/after")["outcome"] == "new"


# ---- connections, workers, pools ----


def test_many_users_on_one_connection(abc):
    with proxy(by_key(abc, "header:X-User")) as p, p.client() as client:
        homes = {}
        for _ in range(5):
            for n in range(10):
                node = client.ask("/", ("X-User", str(n))).node
                assert homes.setdefault(n, node) == node
    assert sorted(Counter(homes.values()).values()) == [3, 3, 4]
    users = [set(node.users) for node in abc]
    assert sum(len(one) for one in users) == len(set().union(*users)) == 10


def test_pipelined_requests_are_each_decided(abc):
    with proxy(by_key(abc, "query:u")) as p, p.client() as client:
        order = [0, 1, 2, 1, 0, 2, 2, 3, 0]
        client.send(b"".join(request(f"/?u={n}") for n in order))
        found = [answer.node for answer in client.responses(len(order))]
        assert found == ["abca"[n] for n in order]


def test_first_requests_of_one_user_at_the_same_time_agree(abc):
    with proxy(by_key(abc, "header:X-User", workers=2)) as p:
        for user in range(6):
            nodes = []
            ready = threading.Barrier(8)

            def one(user=user, nodes=nodes, ready=ready):
                with p.client() as client:
                    ready.wait(10)
                    nodes.append(client.ask("/", ("X-User", f"u{user}")).node)

            threads = [threading.Thread(target=one) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(nodes) == 8
            assert len(set(nodes)) == 1, nodes


def test_two_pools_share_a_class_and_a_user_stays_on_his_machine():
    with HttpNode("web-1") as web1, HttpNode("web-2") as web2:
        with HttpNode("api-1", host=web1.host) as api1, HttpNode("api-2", host=web2.host) as api2:
            config = by_key([web1, web2], "header:X-User")
            config["virtual_servers"]["api"] = {
                "listen": [ANY_PORT], "protocol": "http", "pool": "api",
            }  # fmt: skip
            config["pools"]["api"] = {"nodes": [api2, api1], "persistence": "shop"}
            with proxy(config) as p:
                for n in range(8):
                    user = ("X-User", str(n))
                    web, api = p.get("/", user).node, p.get("/", user, server="api").node
                    assert web.removeprefix("web-") == api.removeprefix("api-")


# ---- the cache ----


def test_a_full_cache_forgets_the_least_recently_used(abc):
    with proxy(by_key(abc, "header:X-User", size=16)) as p, p.client() as client:

        def ask(*users):
            for user in users:
                client.ask("/", ("X-User", str(user)))

        ask(*range(16), 0, 16)
        assert p.outcomes(18) == ["new"] * 16 + ["hit", "new"]
        ask(0, 2, 16, 1)
        assert p.outcomes(22)[18:] == ["hit"] * 3 + ["new"]
        status = p.status()["persistence"]["shop"]
    assert (status["entries"], status["entries_max"], status["evictions"]) == (16, 16, 2)


def test_a_flood_of_keys_keeps_those_in_use(abc):
    with proxy(by_key(abc, "cookie:SID", size=64)) as p, p.client() as client:
        home = client.ask("/", cookie("SID=alice")).node
        for n in range(300):
            client.ask("/", cookie(f"SID=flood-{n}"))
            if n % 20 == 0:
                assert client.ask("/", cookie("SID=alice")).node == home
        assert p.status()["persistence"]["shop"]["entries"] == 64


def test_a_map_expires_since_its_last_use(abc):
    with proxy(by_key(abc, "header:X-User", expiry="1s")) as p:
        p.get("/", ("X-User", "alice"))
        assert not threading.Event().wait(1.5)
        p.get("/", ("X-User", "alice"))
        assert p.outcomes(2) == ["new", "expired"]
        assert p.status()["persistence"]["shop"]["expiries"] == 1


def test_maps_survive_a_full_stop_and_start(abc, tmp_path):
    config = by_key(abc, ["source", "header:X-User"])
    config["proxy"]["state_dir"] = str(tmp_path / "state")
    with proxy(config) as p:
        homes = {n: p.get("/", ("X-User", str(n))).node for n in range(6)}
    with proxy(config) as p:
        again = {n: p.get("/", ("X-User", str(n))).node for n in reversed(homes)}
        assert p.outcomes(6) == ["hit"] * 6
    assert again == homes


# ---- nodes ----

ALICE = ("X-User", "alice")


def test_a_draining_node_keeps_its_sessions_and_gets_no_new_ones(abc):
    config = by_key(abc, "header:X-User")
    with proxy(config) as p:
        homes = {n: p.get("/", ("X-User", str(n))).node for n in range(9)}
        listed = [{"address": n, "draining": True} if n.name == "b" else n for n in abc]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        assert {n: p.get("/", ("X-User", str(n))).node for n in homes} == homes
        new = {p.get("/", ("X-User", f"new-{n}")).node for n in range(6)}
        assert Counter(p.outcomes(24)) == {"new": 15, "hit": 6, "draining": 3}
    assert new == {"a", "c"}


def test_a_node_removed_by_reload_moves_its_sessions_only(abc):
    config = by_key(abc, "header:X-User")
    with proxy(config) as p:
        homes = {n: p.get("/", ("X-User", str(n))).node for n in range(9)}
        listed = [n for n in abc if n.name != "b"]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        for _ in range(2):
            after = {n: p.get("/", ("X-User", str(n))).node for n in homes}
            assert "b" not in after.values()
            assert all(after[n] == home for n, home in homes.items() if home != "b")
        assert Counter(p.outcomes(27)) == {"new": 9, "hit": 15, "node-removed": 3}


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("mode", ["new-node", "redirect", "close"])
def test_failure_modes(nodes, mode, delete):
    more = {"redirect_url": "/sorry"} if mode == "redirect" else {}
    config = by_key(
        nodes.values(), "header:X-User", failure_mode=mode, delete_on_failure=delete, **more
    )
    with proxy(config) as p:
        home = p.get("/", ALICE).node
        nodes[home].stop()
        answer = p.get("/failed", ALICE)
        line = p.log_of("/failed")
        assert (line["outcome"], line["previous_node"]) == ("connect-failed", nodes[home].address)
        nodes[home].start()
        if mode == "new-node":
            assert answer.node != home
            assert [p.get("/", ALICE).node for _ in range(3)] == [answer.node] * 3
            return
        assert answer.status == {"redirect": 302, "close": 503}[mode]
        until(lambda: p.get("/again", ALICE).status == 200, "the session is served again")
        p.get("/last", ALICE)
        assert p.log_of("/last")["outcome"] == "hit"
        served = [line for line in p.log_lines() if line["target"] == "/again"]
        assert [line["outcome"] for line in served if line["status"] == 200] == [
            "new" if delete else "hit"
        ]
        if not delete:
            assert p.get("/", ALICE).node == home
