"""A servlet container's sessions: every request of one reaches the node that knows it."""

import time
from collections import Counter

import pytest

from tests.harness import changed, proxy, request, settings, until
from tests.harness.sessions import ServletNode


@pytest.fixture
def abc():
    nodes = {name: ServletNode(name) for name in "abc"}
    for node in nodes.values():
        node.start()
    yield nodes
    for node in nodes.values():
        node.stop()
    assert [error for node in nodes.values() for error in node.errors] == []


def j2ee(nodes, workers=1, **keys):
    return settings(*nodes.values(), persistence={"type": "j2ee", **keys}, workers=workers)


def logged_in(p, name, target="/shop"):
    user = p.user(name)
    answer = user.get(f"{target}?login={name}")
    assert answer.json()["user"] == name
    return user


def who(answer):
    """(the user whom the application knows, at which node)"""
    return answer.json()["user"], answer.node


def entries(p):
    return p.status()["persistence"]["shop"]["entries"]


def test_users_stay_logged_in_on_every_worker(abc):
    with proxy(j2ee(abc, workers=2)) as p:
        users = [logged_in(p, f"u{n}") for n in range(9)]
        for _ in range(4):
            for user in users:
                assert user.get("/cart").json()["user"] == user.name
        assert [len(set(user.nodes)) for user in users] == [1] * 9
        assert {user.nodes[0] for user in users} == set("abc")
        found = Counter((line["outcome"], line["found_in"]) for line in p.log(45))
        assert found == {("no-key", "none"): 9, ("hit", "cache"): 36}
        assert all(worker["requests"] for worker in p.status()["workers"])


def test_many_users_on_one_connection_also_pipelined(abc):
    with proxy(j2ee(abc)) as p, p.client() as client:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        for user in users:
            assert user.get("/x", connection=client).json()["user"] == user.name
        client.send(b"".join(user.request("/y") for user in users))
        answers = client.responses(6)
        assert [answer.json()["user"] for answer in answers] == [user.name for user in users]


@pytest.mark.parametrize("origin", ["", "http://shop.test"])
def test_a_client_without_cookies_is_known_by_its_urls(abc, origin):
    with proxy(j2ee(abc, workers=2)) as p:
        homes = {}
        for n in range(6):
            answer = p.get(f"/shop?login=u{n}&url={origin}")
            assert answer.status == 302
            url = answer.get("Location").decode().removeprefix(origin)
            homes[url] = (f"u{n}", answer.node)
        for tail in ("", "?a=;jsessionid=b", "/cart", ";x=1/cart", "/;jsessionid=other"):
            for url, home in homes.items():
                assert who(p.get(url + tail)) == home
        assert Counter(p.outcomes(36)) == {"no-key": 6, "hit": 30}
        assert entries(p) == 6


def test_cookie_and_url_are_one_session_and_the_cookie_wins(abc):
    with proxy(j2ee(abc)) as p:
        alice, bob = logged_in(p, "alice"), logged_in(p, "bob")
        assert alice.nodes != bob.nodes
        value = alice.cookies["JSESSIONID"]
        assert who(p.get(f"/shop;jsessionid={value}/cart")) == ("alice", alice.nodes[0])
        assert who(bob.get(f"/shop;jsessionid={value}")) == ("bob", bob.nodes[0])
        assert entries(p) == 2


def test_what_is_no_parameter(abc):
    paths = ["/shop%3Bjsessionid={}", "/shop;xjsessionid={}", "/shop;JSESSIONID={}",
             "/shop?;jsessionid={}", "/shop;jsessionid=?{}", "/shop;jsessionid=.a?{}"]  # fmt: skip
    with proxy(j2ee(abc)) as p:
        value = logged_in(p, "alice").cookies["JSESSIONID"]
        for path in paths:
            assert {p.get(path.format(value)).node for _ in range(3)} == set("abc")
        assert Counter(p.outcomes(19)) == {"no-key": 19}


def test_an_id_renewed_at_login_stays_on_its_node(abc):
    with proxy(j2ee(abc)) as p:
        user = logged_in(p, "alice")
        for _ in range(4):
            before = user.cookies["JSESSIONID"]
            user.get("/login?renew")
            assert user.cookies["JSESSIONID"] != before
            p.user("noise").get("/")
            assert user.get("/home").json()["user"] == "alice"
        assert len(set(user.nodes)) == 1


def test_an_id_in_a_link_that_nobody_has_seen_is_bound_by_its_first_request(abc):
    with proxy(j2ee(abc)) as p:
        nodes = {p.get("/from-a-mail;jsessionid=unseen.b").node for _ in range(4)}
        assert len(nodes) == 1
        assert p.outcomes(4) == ["new"] + ["hit"] * 3


def test_the_route_in_the_id_names_nobody(abc):
    """After a failover a container writes its own route behind the same id."""
    with proxy(j2ee(abc)) as p:
        user = logged_in(p, "alice")
        id, _, route = user.cookies["JSESSIONID"].partition(".")
        for other in ("a", "b", "c", "", "x.y.z", f"{route}!1"):
            user.cookies["JSESSIONID"] = f"{id}.{other}"
            assert user.get("/").json()["user"] == "alice"
        user.cookies["JSESSIONID"] = id
        assert user.get("/").json()["user"] == "alice"


def test_a_repeated_cookie_is_counted(abc):
    with proxy(j2ee(abc)) as p:
        alice = logged_in(p, "alice")
        value = alice.cookies["JSESSIONID"]
        pairs = f"JSESSIONID=; a=b; JSESSIONID={value}; JSESSIONID=other"
        assert p.get("/", ("Cookie", pairs)).node == alice.nodes[0]
        split = [("Cookie", "a=b"), ("Cookie", f'JSESSIONID="{value}"')]
        assert p.get("/", *split).node == alice.nodes[0]
        until(lambda: p.status()["persistence"]["shop"]["duplicates"] == 1, "one is counted")


def test_logout_ends_the_session(abc):
    with proxy(j2ee(abc)) as p:
        user = logged_in(p, "alice")
        value = user.cookies["JSESSIONID"]
        assert entries(p) == 1
        assert user.get("/?logout").json()["user"] == ""
        assert (user.cookies, entries(p)) == ({}, 0)
        p.get("/late", ("Cookie", f"JSESSIONID={value}"))
        assert p.log_of("/late")["outcome"] == "new"
        assert logged_in(p, "alice").get("/").json()["user"] == "alice"


def test_other_names(abc):
    """The containers' own, as of Tomcat's sessionCookieName."""
    for node in abc.values():
        node.cookie_name = "SID"
        node.url_of = lambda value: f"/home;sid={value}"
    with proxy(j2ee(abc, cookie="SID", parameter="sid", route_separators="-")) as p:
        user = logged_in(p, "alice")
        assert [user.get("/").json()["user"] for _ in range(4)] == ["alice"] * 4
        url = p.get("/?login=bob&url").get("Location").decode()
        home = p.get(url).node
        assert [p.get(url + "-2").node for _ in range(4)] == [home] * 4


def test_a_map_expires_and_the_next_request_begins_another(abc):
    with proxy(j2ee(abc, expiry="1s")) as p:
        user = logged_in(p, "alice")
        over = time.monotonic() + 1.3
        until(lambda: time.monotonic() > over, "the map is too old")
        user.get("/late")
        assert p.outcomes(2) == ["no-key", "expired"]
        assert (entries(p), p.status()["persistence"]["shop"]["expiries"]) == (1, 1)


def test_a_full_cache_forgets_the_least_recently_used(abc):
    with proxy(j2ee(abc, size=16)) as p:
        users = [logged_in(p, f"u{n}") for n in range(16)]
        users[0].get("/still-here")
        logged_in(p, "one-more")
        for n in (0, 2, 15, 1):
            users[n].get(f"/{n}")
        assert [p.log_of(f"/{n}")["outcome"] for n in (0, 2, 15, 1)] == ["hit"] * 3 + ["new"]
        assert (entries(p), p.status()["persistence"]["shop"]["evictions"]) == (16, 2)


def test_a_draining_node_keeps_its_sessions_and_gets_no_others(abc):
    config = j2ee(abc)
    with proxy(config) as p:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        listed = [{"address": node, "draining": node.name == "b"} for node in abc.values()]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        for user in users:
            assert user.get("/").json()["user"] == user.name
            user.get("/?renew")
            assert user.get("/").json()["user"] == user.name
        assert {logged_in(p, f"new{n}").nodes[0] for n in range(6)} == {"a", "c"}
        assert p.get("/;jsessionid=unseen").node != "b"


def test_a_failed_node_s_users_log_in_again_elsewhere(abc):
    with proxy(j2ee(abc)) as p:
        users = [logged_in(p, f"u{n}") for n in range(6)]
        abc["b"].stop()
        for user in users:
            seen = user.get("/").json()["user"]
            assert seen == ("" if user.nodes[0] == "b" else user.name)
        moved = [user for user in users if user.nodes[0] == "b"]
        for user in moved:
            user.get(f"/?login={user.name}")
        abc["b"].sessions.clear()
        abc["b"].start()
        for user in users * 3:
            assert user.get("/").json()["user"] == user.name
        assert "b" not in {user.nodes[-1] for user in moved}


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize(("mode", "status"), [("redirect", 302), ("close", 503)])
def test_failure_modes(abc, mode, status, delete):
    keys = {"failure_mode": mode, "delete_on_failure": delete}
    if mode == "redirect":
        keys["redirect_url"] = "/sorry"
    with proxy(j2ee(abc, **keys)) as p:
        user = logged_in(p, "alice")
        home = user.nodes[0]
        abc[home].stop()
        answer = user.get("/first")
        assert (answer.status, answer.all("Set-Cookie")) == (status, [])
        assert entries(p) == (0 if delete else 1)
        if not delete:
            assert user.get("/second").status == status
            abc[home].start()
            until(lambda: user.get("/back").status == 200, "the session is served again")
            assert (user.get("/").json()["user"], user.nodes[-1]) == ("alice", home)
        else:
            assert user.get("/second").node != home
            assert p.log_of("/second")["outcome"] == "new"


def test_a_fallback_finds_who_lost_the_cookie(abc):
    config = j2ee(abc, fallback="by-ip")
    config["persistence"]["by-ip"] = {"type": "ip"}
    with proxy(config) as p:
        user = p.user("alice", source="127.0.21.1")
        user.get("/?login=alice")
        lost = p.get("/lost", source="127.0.21.1")
        assert lost.node == user.nodes[0] == user.get("/").node
        assert (p.log_of("/lost")["outcome"], p.log_of("/lost")["found_class"]) == ("hit", "by-ip")


def test_a_fallback_finds_the_session_of_an_id_that_stood_in_a_page_only(abc):
    config = j2ee(abc, fallback="by-ip")
    config["persistence"]["by-ip"] = {"type": "ip"}
    with proxy(config) as p:
        links = {}
        for n in range(6):
            page = p.get(f"/?login=u{n}&page", source=f"127.0.22.{n + 1}")
            assert (page.status, page.all("Set-Cookie")) == (200, [])
            links[n] = page.json()["link"]
        for source in (1, 200):  # the second time from another address: the id is known now
            for n, link in links.items():
                answer = p.get(link, source=f"127.0.22.{n + source}")
                assert answer.json()["user"] == f"u{n}"


def test_two_pools_with_one_class_share_sessions(abc):
    config = j2ee(abc)
    config["pools"]["other"] = {"nodes": list(reversed(abc.values())), "persistence": "shop"}
    config["virtual_servers"]["shop"]["routes"] = [{"path": "/other", "pool": "other"}]
    with proxy(config) as p:
        users = [logged_in(p, f"u{n}") for n in range(4)]
        for user in users:
            assert user.get("/other").json()["user"] == user.name


def test_garbage_hurts_nobody(abc):
    with proxy(j2ee(abc)) as p:
        alice = logged_in(p, "alice")
        for value in ("", '"', '"";', "x" * 300, "." * 300, "\xe4" * 20, "a=b=c", "a,JSESSIONID=b"):
            assert p.get("/", ("Cookie", f"JSESSIONID={value}")).status == 200
        many = "; ".join(f"JSESSIONID={n}." for n in range(800))
        assert p.get("/", ("Cookie", many)).status == 200
        assert p.get("/" + ";jsessionid=" * 500).status == 200
        with p.client() as client:
            client.drip(request("/;jsessionid=slow", ("Cookie", "a=b")))
            assert client.response().status == 200
        assert alice.get("/").json()["user"] == "alice"
