"""Sessions of ASP and ASP.NET: every request of one reaches the node that knows it."""

import time
from collections import Counter

import pytest

from tests.harness import HttpNode, changed, proxy, reply, settings, until
from tests.harness.sessions import AspNode

OLD = "lit3py55t21z5v55vlm25s55"
NET = "ASP.NET_SessionId"


@pytest.fixture
def abc():
    nodes = {name: AspNode(name) for name in "abc"}
    for node in nodes.values():
        node.start()
    yield nodes
    for node in nodes.values():
        node.stop()
    assert [error for node in nodes.values() for error in node.errors] == []


def asp(nodes, workers=1, **keys):
    return settings(*nodes.values(), persistence={"type": "asp", **keys}, workers=workers)


def logged_in(p, name, user=None):
    user = user or p.user(name)
    assert user.get(f"/?login={name}").json()["user"] == name
    return user


def entries(p):
    return p.status()["persistence"]["shop"]["entries"]


@pytest.mark.parametrize("name", [NET, "ASPSESSIONIDQQGGQQHC", "SID"])
def test_users_stay_logged_in_on_every_worker(abc, name):
    for node in abc.values():
        node.cookie_name = name
    keys = {"cookie": name} if name == "SID" else {}
    with proxy(asp(abc, workers=2, **keys)) as p:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        for user in users * 3:
            assert user.get("/x").json()["user"] == user.name
        assert Counter(user.nodes[0] for user in users) == dict.fromkeys("abc", 2)
        assert Counter(p.outcomes(24)) == {"no-key": 6, "hit": 18}


@pytest.mark.parametrize("origin", ["", "http://shop.test", "/app"])
def test_cookieless_sessions(abc, origin):
    """The node's first answer redirects to a path with the id; all links carry it from then on."""
    with proxy(asp(abc, workers=2)) as p:
        homes = {}
        for n in range(6):
            answer = p.get(f"/?login=u{n}&url={origin}")
            assert answer.status == 302
            homes[answer.get("Location").decode().removeprefix("http://shop.test")] = (
                f"u{n}", answer.node,
            )  # fmt: skip
        for url, (user, node) in homes.items():
            for form in ("(S({}))", "(A(x1)S({})F(y))", "(s({})X(1))"):
                id = url.partition("(S(")[2].partition("))")[0]
                at = url.replace(f"(S({id}))", form.format(id))
                assert p.get(at).node == node
                assert p.get(url + "?a=/(S(other))/").json()["user"] == user
        assert Counter(p.outcomes(42)) == {"no-key": 6, "hit": 36}
        assert entries(p) == 6


def test_the_form_of_asp_net_1():
    redirect = reply(302, b'{"node": "a"}', ("Location", f"/({OLD})/home"))
    with AspNode("a") as a, HttpNode("b") as b:
        a.script = {"/": redirect, "*": a.script}
        with proxy(settings(a, b, persistence={"type": "asp"})) as p:
            url = p.get("/").get("Location").decode()
            assert [p.get(url).node for _ in range(4)] == ["a"] * 4
            assert p.get(f"/({OLD[1:]})/home").node == "b"


def test_cookie_and_path_are_one_session(abc):
    with proxy(asp(abc)) as p:
        users = [logged_in(p, f"u{n}") for n in range(3)]
        for user in users * 2:
            at = f"/app/(S({user.cookies[NET]}))/x"
            assert p.get(at).json() == user.get("/").json()
        assert entries(p) == 3


def test_an_id_that_nobody_has_seen_is_bound_by_its_first_request(abc):
    with proxy(asp(abc)) as p:
        assert len({p.get("/(S(unseen))/x").node for _ in range(4)}) == 1
        assert len({p.get("/", ("Cookie", f"{NET}=unseen")).node for _ in range(4)}) == 1
        assert p.outcomes(8) == ["new"] + ["hit"] * 7


def test_several_applications_behind_one_host():
    """Each has its own cookie; a browser sends them all, dead ones of earlier processes too."""
    with AspNode("a") as a, AspNode("b") as b, AspNode("c") as c:
        config = asp({"a": a, "b": b, "c": c})
        with proxy(config) as p:
            user = p.user("alice")
            user.cookies = {f"ASPSESSIONID{letter * 8}": "dead" for letter in "XYZ"}
            for name in ("ASPSESSIONIDAAAAAAAA", "ASPSESSIONIDBBBBBBBB", NET):
                for node in (a, b, c):
                    node.cookie_name = name
                logged_in(p, "alice", user)
                assert user.get("/").json()["user"] == "alice"
                p.user("noise").get("/")
            assert len(user.cookies) == 6
            assert len(set(user.nodes)) == 1
            user.get("/?logout")  # of ASP.NET
            assert NET not in user.cookies
            for node in (a, b, c):
                node.cookie_name = "ASPSESSIONIDAAAAAAAA"
            assert user.get("/").json()["user"] == "alice"


def test_the_first_known_of_several_wins(abc):
    name = "ASPSESSIONIDAAAAAAAA"
    for node in abc.values():
        node.cookie_name = name
    with proxy(asp(abc)) as p:
        alice, bob = logged_in(p, "alice"), logged_in(p, "bob")
        assert alice.nodes != bob.nodes
        mine, other = f"{name}={alice.cookies[name]}", f"{name}={bob.cookies[name]}"
        unknown = "; ".join(f"ASPSESSIONID{letter * 8}=x" for letter in "CDE")
        assert p.get("/", ("Cookie", f"{unknown}; {other}")).node == bob.nodes[0]
        assert p.get("/", ("Cookie", unknown)).node == bob.nodes[0]
        assert p.get("/", ("Cookie", f"{mine}; {unknown}")).node == alice.nodes[0]
        p.get("/", ("Cookie", f"{mine.replace('=', '=x')}; {mine}"))
        until(lambda: p.status()["persistence"]["shop"]["duplicates"] == 1, "one is counted")


def test_the_same_value_under_another_name_is_another_session(abc):
    with proxy(asp(abc)) as p:
        names = [f"ASPSESSIONID{letter * 8}" for letter in "ABC"]
        assert {p.get("/", ("Cookie", f"{name}=x")).node for name in names} == set("abc")


def test_a_renewed_id_stays_and_logout_ends_the_session(abc):
    with proxy(asp(abc)) as p:
        user = logged_in(p, "alice")
        before = user.cookies[NET]
        user.get("/?renew")
        assert user.cookies[NET] != before
        p.user("noise").get("/")
        assert user.get("/").json()["user"] == "alice"
        assert user.get("/?logout").json()["user"] == ""
        assert (user.cookies, entries(p)) == ({}, 1)  # the id before the renewal will expire


def test_a_map_expires(abc):
    with proxy(asp(abc, expiry="1s")) as p:
        user = logged_in(p, "alice")
        over = time.monotonic() + 1.3
        until(lambda: time.monotonic() > over, "the map is too old")
        user.get("/late")
        assert p.outcomes(2) == ["no-key", "expired"]


def test_a_full_cache_forgets_the_least_recently_used(abc):
    with proxy(asp(abc, size=16)) as p:
        users = [logged_in(p, f"u{n}") for n in range(17)]
        for n in (1, 16, 0):
            users[n].get(f"/{n}")
        assert [p.log_of(f"/{n}")["outcome"] for n in (1, 16, 0)] == ["hit", "hit", "new"]
        assert (entries(p), p.status()["persistence"]["shop"]["evictions"]) == (16, 2)


def test_a_draining_node_keeps_its_sessions_and_gets_no_others(abc):
    config = asp(abc)
    with proxy(config) as p:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        listed = [{"address": node, "draining": node.name == "b"} for node in abc.values()]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        for user in users:
            assert user.get("/").json()["user"] == user.name
        assert {logged_in(p, f"new{n}").nodes[0] for n in range(6)} == {"a", "c"}


def test_a_failed_node_s_users_log_in_again_elsewhere(abc):
    with proxy(asp(abc)) as p:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        abc["b"].stop()
        for user in users:
            gone = user.nodes[0] == "b"
            assert user.get("/").json()["user"] == ("" if gone else user.name)
            if gone:
                logged_in(p, user.name, user)
        abc["b"].sessions.clear()
        abc["b"].start()
        for user in users * 2:
            assert user.get("/").json()["user"] == user.name


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize(("mode", "status"), [("redirect", 302), ("close", 503)])
def test_failure_modes(abc, mode, status, delete):
    keys = {"failure_mode": mode, "delete_on_failure": delete}
    if mode == "redirect":
        keys["redirect_url"] = "/sorry"
    with proxy(asp(abc, **keys)) as p:
        user = logged_in(p, "alice")
        home = user.nodes[0]
        abc[home].stop()
        assert user.get("/first").status == status
        assert entries(p) == (0 if delete else 1)
        assert (user.get("/second").status == status) is not delete
        abc[home].start()
        until(lambda: user.get("/back").status == 200, "the session is served again")
        assert (user.get("/").json()["user"] == "alice") is not delete


def test_garbage_hurts_nobody(abc):
    with proxy(asp(abc)) as p:
        alice = logged_in(p, "alice")
        for value in ("", '"', "x" * 300, "\xe4" * 20, "a=b=c"):
            pairs = f"{NET}={value}; ASPSESSIONIDAAAAAAAA={value}"
            assert p.get("/", ("Cookie", pairs)).status == 200
        for letters in ("A", "AAAAAAAAA", "aaaaaaaa", "1AAAAAAA"):
            assert p.get("/", ("Cookie", f"ASPSESSIONID{letters}=x")).status == 200
        many = "; ".join(f"ASPSESSIONID{n:08d}={n}".translate(DIGITS) for n in range(500))
        assert p.get("/", ("Cookie", many)).status == 200
        for path in ("/(S(", "/" + "(" * 3000, "/(S())/", "/()/", "/(S(" + "x" * 300 + "))/"):
            assert p.get(path).status == 200
        assert alice.get("/").json()["user"] == "alice"


DIGITS = str.maketrans("0123456789", "ABCDEFGHIJ")
