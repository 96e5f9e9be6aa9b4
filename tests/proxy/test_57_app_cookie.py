"""Sessions by the application's own cookie: fastlb's cookie stands beside it and shares its life.

The application's nodes keep their sessions to themselves: who reaches another node is logged out.
"""

import re
import threading

import pytest

from tests.harness import HttpNode, changed, proxy, reply, settings, until

APP = "PHPSESSID"
NAME = re.compile(rf"K-{APP}-[0-9a-f]{{8}}")


class AppNode(HttpNode):
    """/login begins a session, /rotate gives it a new id, /logout ends it; whoami elsewhere."""

    def __init__(self, name: str, attributes: str = "; Path=/"):
        super().__init__(name)
        self.attributes = attributes
        self.sessions: set[str] = set()
        self.script = self._app

    def _app(self, exchange) -> None:
        path = exchange.request.target.decode().rpartition("/")[2]
        mine = self._session_of(exchange.request)
        fields = []
        with self._lock:
            if path in ("login", "rotate"):
                if path == "login" or mine:
                    self.sessions.discard(mine)
                    mine = f"{self.name}{len(self.sessions)}x{self._served}"
                    self.sessions.add(mine)
                    fields = [("Set-Cookie", f"{APP}={mine}{self.attributes}")]
            elif path == "logout":
                self.sessions.discard(mine)
                gone = "expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0"
                fields = [("Set-Cookie", f"{APP}=deleted; {gone}{self.attributes}")]
        exchange.read_body()
        known = "in" if mine in self.sessions else "out"
        body = f'{{"node": "{self.name}", "user": "{known}"}}'.encode()
        exchange.send(reply(200, body, *fields))

    def _session_of(self, message) -> str:
        cookies = "; ".join(value.decode("latin-1") for value in message.all("Cookie"))
        found = re.search(rf"(?:^|; ){APP}=([^;]*)", cookies)
        return found[1] if found else ""


@pytest.fixture
def abc():
    with AppNode("a") as a, AppNode("b") as b, AppNode("c") as c:
        yield a, b, c


def app(*nodes, classes=None, pool=None, workers=1, **keys):
    """The configuration; each client's first requests are decided one by one."""
    kind = {"type": "cookie", "cookie": APP, "reserve": "0s", **keys}
    return settings(*nodes, persistence=kind, classes=classes, pool=pool, workers=workers)


def ours(user):
    return {name: value for name, value in user.cookies.items() if name.startswith("K-")}


def line_of(answer):
    (line,) = [each.decode() for each in answer.all("Set-Cookie") if each.startswith(b"K-")]
    return line


def state_of(user, target="/"):
    return user.get(target).json()["user"]


def test_a_session_from_login_to_logout(abc):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        for _ in range(4):
            assert user.get().all("Set-Cookie") == [], "a visitor without a session got a cookie"
        assert set(user.nodes) == {"a", "b", "c"}
        answer = user.get("/login")
        name, _, rest = line_of(answer).partition("=")
        assert NAME.fullmatch(name)
        assert {part.strip() for part in rest.split(";")[1:]} == {"Path=/", "HttpOnly"}
        home = answer.node
        for _ in range(4):
            assert state_of(user) == "in"
        assert user.get("/rotate").node == home
        assert len(ours(user)) == 1
        assert [len(user.get().all("Set-Cookie")) for _ in range(3)] == [0, 0, 0]
        answer = user.get("/logout")
        assert "Max-Age=0" in line_of(answer)
        assert answer.node == home
        assert user.cookies == {}
        user.nodes.clear()
        for _ in range(4):
            user.get()
        assert set(user.nodes) == {"a", "b", "c"}
        assert p.status()["persistence"]["shop"]["type"] == "cookie"


def test_many_users_stay_and_are_spread(abc):
    with proxy(app(*abc, workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(20)]
        for user in users:
            user.get("/login")
        for _ in range(3):
            assert [state_of(user) for user in users] == ["in"] * 20
    assert [len(set(user.nodes)) for user in users] == [1] * 20
    assert {user.nodes[0] for user in users} == {"a", "b", "c"}


def test_a_changed_id_keeps_our_cookie_and_the_node(abc):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        user.get("/login")
        before = dict(user.cookies)
        for _ in range(3):
            answer = user.get("/rotate")
            assert [line.split(b"=")[0] for line in answer.all("Set-Cookie")] == [APP.encode()]
            assert state_of(user) == "in"
        assert user.cookies[APP] != before[APP]
        assert ours(user).items() <= before.items()
    assert len(set(user.nodes)) == 1


def test_the_node_sees_its_own_cookie_and_not_ours():
    with HttpNode("a", ("Set-Cookie", f"{APP}=1")) as a, proxy(app(a)) as p:
        user = p.user("alice")
        user.get()
        assert len(ours(user)) == 1
        pair = "; ".join(f"{name}={value}" for name, value in ours(user).items())
        for sent, kept in ((f"a=b; {pair}; {APP}=1", f"a=b; {APP}=1"), (pair, None)):
            seen = p.get("/", ("Cookie", sent)).json()["fields"]
            assert [value for name, value in seen if name == "Cookie"] == ([kept] if kept else [])


def test_hide_cookie_false_lets_the_node_see_it():
    with HttpNode("a", ("Set-Cookie", f"{APP}=1")) as a, proxy(app(a, hide_cookie=False)) as p:
        user = p.user("alice")
        user.get()
        (name,) = ours(user)
        assert any(name in value for _, value in user.get().json()["fields"])


def test_our_cookie_without_the_applications_is_no_session(abc):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        user.get("/login")
        del user.cookies[APP]
        assert {user.get(f"/{n}").node for n in range(6)} == {"a", "b", "c"}
        assert [p.log_of(f"/{n}")["outcome"] for n in range(6)] == ["no-key"] * 6
        user.cookies[APP] = ""
        assert {user.get().node for _ in range(6)} == {"a", "b", "c"}


@pytest.mark.parametrize("damage", ["lost", "tampered", "empty", "garbage", "overlong"])
def test_a_session_without_a_good_cookie_of_ours_is_bound_anew(abc, damage):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        user.get("/login")
        ((name, value),) = ours(user).items()
        del user.cookies[name]
        user.cookies |= {
            "lost": {},
            "tampered": {name: value[:-1] + ("A" if value[-1] != "A" else "B")},
            "empty": {name: ""},
            "garbage": {name: '"\\x";,=='},
            "overlong": {name: "A" * 5000},
        }[damage]
        user.nodes.clear()
        answer = user.get("/broken")
        # The application does not set its cookie again; ours comes all the same.
        assert line_of(answer)
        for _ in range(4):
            assert user.get().all("Set-Cookie") == []
        assert len(set(user.nodes)) == 1
        outcome = "new" if damage == "lost" else "tampered"
        assert p.log_of("/broken")["outcome"] == outcome


def test_a_cookie_of_another_class_or_installation(abc):
    with proxy(app(*abc)) as p, proxy(app(*abc)) as other:
        stranger = other.user("alice")
        stranger.get("/login")
        stranger.address = p.address()
        assert len(stranger.get("/stranger").all("Set-Cookie")) == 1
        assert p.log_of("/stranger")["outcome"] == "tampered"
    kinds = {"other": {"type": "cookie", "cookie": APP}}
    with proxy(app(*abc, classes=kinds)) as p:
        user = p.user("bob")
        user.get("/login")
        config = changed(p.config, "pools.web.persistence", "other")
        config["persistence"]["other"]["name"] = next(iter(ours(user)))
        config["persistence"]["shop"]["name"] = "K-before"
        assert p.reload(config).returncode == 0
        user.get("/other")
        assert p.log_of("/other")["outcome"] == "other-class"


def test_the_same_secret_reads_the_same_cookies(abc, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(bytes(range(32)).hex() + "\n")
    secret.chmod(0o600)
    config = app(*abc)
    config["proxy"]["secret_file"] = str(secret)
    with proxy(config) as one, proxy(config) as two:
        user = one.user("alice")
        user.get("/login")
        user.address = two.address()
        assert [state_of(user) for _ in range(4)] == ["in"] * 4


def test_two_of_ours_are_counted_and_the_first_valid_one_counts(abc):
    with proxy(app(*abc)) as p:
        users = [p.user("alice"), p.user("bob")]
        for user in users:
            user.get("/login")
        ((name, first),) = ours(users[0]).items()
        second = ours(users[1])[name]
        cookie = f"{APP}=x; {name}=x; {name}={first}; {name}={second}"
        assert p.get("/twice", ("Cookie", cookie)).node == users[0].nodes[0]
        assert p.log_of("/twice")["duplicate_cookie"] is True
        split = [("Cookie", f'{name}="{second}"'), ("Cookie", f"{name}={first}; {APP}=x")]
        assert p.get("/split", *split).node == users[1].nodes[0]


def test_many_users_on_one_connection_pipelined_too(abc):
    with proxy(app(*abc)) as p, p.client() as shared:
        users = [p.user(f"u{n}") for n in range(7)]
        for user in users:
            user.get("/login", connection=shared)
        for _ in range(3):
            shared.send(b"".join(user.request() for user in users))
            for user in users:
                assert user.take(shared.response()).json()["user"] == "in"
    assert [len(set(user.nodes)) for user in users] == [1] * 7


def test_concurrent_users_on_all_workers(abc):
    with proxy(app(*abc, workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(12)]
        states = []

        def live(user):
            user.get("/login")
            states.extend(state_of(user) for _ in range(5))

        threads = [threading.Thread(target=live, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert states == ["in"] * 60


# --- attributes ---


@pytest.mark.parametrize(
    ("theirs", "keys", "wanted"),
    [
        ("", {}, {"Path=/", "HttpOnly"}),
        ("; Path=/shop; HttpOnly", {}, {"Path=/shop", "HttpOnly"}),
        ("; Path=/; Domain=.shop.test", {}, {"Path=/", "Domain=shop.test", "HttpOnly"}),
        ("; Path=/; Secure; SameSite=None", {},
         {"Path=/", "Secure", "SameSite=None", "HttpOnly"}),
        ("; Path=/; Max-Age=3600", {}, {"Path=/", "Max-Age=3600", "HttpOnly"}),
        ("; Path=/; Max-Age=3600", {"timeout": "1h", "http_only": False},
         {"Path=/", "Max-Age=3600"}),
        ("; Path=/shop; Domain=a.test; SameSite=None; Secure",
         {"path": "/", "domain": "shop.test", "same_site": "lax", "secure": False},
         {"Path=/", "Domain=shop.test", "SameSite=Lax", "HttpOnly"}),
        ("; Path=/shop; SameSite=None", {"directives": "SameSite=Strict; Path=/"},
         {"SameSite=Strict", "Path=/", "HttpOnly"}),
    ],
)  # fmt: skip
def test_attributes_are_the_applications_unless_the_class_sets_them(theirs, keys, wanted):
    with AppNode("a", theirs) as a, proxy(app(a, **keys)) as p:
        line = line_of(p.user("alice").get("/login"))
        assert {part.strip() for part in line.split(";")[1:]} == wanted


def test_a_cookie_with_a_path_is_replaced_where_it_was_when_its_node_fails():
    """Were it written anew with Path=/, the old one would be sent before it, again and again."""
    nodes = [AppNode(name, "; Path=/shop; Secure") for name in "abc"]
    for node in nodes:
        node.start()
    try:
        with proxy(app(*nodes)) as p:
            user = p.user("alice")
            home = user.get("/shop/login").node
            next(node for node in nodes if node.name == home).stop()
            line = line_of(user.get("/shop/"))
            assert {"Path=/shop", "Secure"} <= {part.strip() for part in line.split(";")}
            moved = user.nodes[-1]
            assert [user.get("/shop/").node for _ in range(4)] == [moved] * 4
    finally:
        for node in nodes:
            node.stop()


def test_every_response_but_only_for_a_session(abc):
    with proxy(app(*abc, every_response=True)) as p:
        user = p.user("alice")
        assert user.get().all("Set-Cookie") == []
        user.get("/login")
        assert [len(user.get().all("Set-Cookie")) for _ in range(3)] == [1] * 3


def test_shared_caches_do_not_store_it():
    fields = [("Set-Cookie", f"{APP}=1"), ("Cache-Control", "public, max-age=60")]
    with HttpNode("a", *fields) as a, proxy(app(a)) as p:
        user = p.user("alice")
        assert user.get().get("Cache-Control") == b"private"
        assert user.get().get("Cache-Control") == b"public, max-age=60"
    with HttpNode("a", *fields) as a, proxy(app(a, protect_cache=False)) as p:
        assert p.get().get("Cache-Control") == b"public, max-age=60"


def test_a_node_cannot_set_our_cookie_but_may_end_it(abc):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        user.get("/login")
        ((name, value),) = ours(user).items()
        cookie = ("Cookie", f"{APP}=1; {name}={value}")
        for node in abc:
            node.script = reply(200, b"{}", ("Set-Cookie", f"{name}=forged"))
        assert p.get("/", cookie).all("Set-Cookie") == []
        for node in abc:
            node.script = reply(200, b"{}", ("Set-Cookie", f"{name}=; Max-Age=0"))
        assert p.get("/", cookie).all("Set-Cookie") == [f"{name}=; Max-Age=0".encode()]


def test_idle_time_is_enforced_and_renewed(abc):
    with proxy(app(*abc, timeout="1s")) as p:
        user = p.user("alice")
        user.get("/login")
        kept = dict(user.cookies)
        cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
        numbers = iter(range(10_000))

        def expired():
            assert state_of(user) == "in"
            target = f"/old{next(numbers)}"
            answer = p.get(target, ("Cookie", cookie))
            return answer if p.log_of(target)["outcome"] == "expired" else None

        answer = until(expired, "the kept cookie is too old, the renewed one is not")
        assert "Max-Age=1" in line_of(answer)
        assert ours(user) != {name: kept[name] for name in ours(user)}


# --- nodes that fail, drain, go ---


def test_a_failed_node_logs_out_once_and_the_new_one_stays(abc):
    with proxy(app(*abc)) as p:
        user = p.user("alice")
        home = user.get("/login").node
        next(node for node in abc if node.name == home).stop()
        assert state_of(user, "/failed") == "out"
        assert p.log_of("/failed")["outcome"] == "connect-failed"
        moved = user.nodes[-1]
        assert user.get("/login").node == moved
        next(node for node in abc if node.name == home).start()
        assert [state_of(user) for _ in range(4)] == ["in"] * 4
        assert set(user.nodes[1:]) == {moved}


@pytest.mark.parametrize("mode", ["close", "redirect"])
@pytest.mark.parametrize("delete", [True, False])
def test_failure_modes_end_the_session_or_keep_it(mode, delete):
    nodes = [AppNode(name, "; Path=/shop") for name in "ab"]
    for node in nodes:
        node.start()
    keys = {"redirect_url": "/sorry"} if mode == "redirect" else {}
    try:
        with proxy(app(*nodes, failure_mode=mode, delete_on_failure=delete, **keys)) as p:
            user = p.user("alice")
            home = user.get("/shop/login").node
            failing = next(node for node in nodes if node.name == home)
            failing.stop()
            answer = user.get("/shop/")
            assert answer.status == (302 if mode == "redirect" else 503)
            if delete:
                assert "Path=/shop" in line_of(answer)
            assert bool(ours(user)) is not delete
            assert APP in user.cookies
            failing.start()
            if delete:
                assert user.get("/shop/").status == 200
                assert len(ours(user)) == 1
            else:
                until(lambda: user.get("/shop/").status == 200, "the node that is back serves")
                assert state_of(user, "/shop/") == "in"
                assert user.nodes[-1] == home
    finally:
        for node in nodes:
            node.stop()


def test_a_draining_node_keeps_its_sessions(abc):
    config = app(*abc)
    with proxy(config) as p:
        users = [p.user(f"u{n}") for n in range(9)]
        for user in users:
            user.get("/login")
        listed = [{"address": n, "draining": n.name == "b"} for n in abc]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        assert [state_of(user) for user in users] == ["in"] * 9
        fresh = [p.user(f"new{n}") for n in range(6)]
        assert {user.get("/login").node for user in fresh} == {"a", "c"}


def test_a_node_removed_by_reload_moves_its_sessions_only(abc):
    config = app(*abc)
    with proxy(config) as p:
        users = [p.user(f"u{n}") for n in range(9)]
        for user in users:
            user.get("/login")
        left = [node for node in abc if node.name != "b"]
        assert p.reload(changed(config, "pools.web.nodes", left)).returncode == 0
        moved = [user for user in users if state_of(user) == "out"]
        assert {user.nodes[0] for user in moved} == {"b"}
        for user in users:
            user.get("/login")
            assert state_of(user) == "in"
        assert all(len(set(user.nodes)) == (2 if user in moved else 1) for user in users)


def test_a_fallback_finds_the_session_that_has_lost_our_cookie(abc):
    config = app(*abc, fallback="by-ip", classes={"by-ip": {"type": "ip"}})
    with proxy(config) as p:
        user = p.user("alice", source="127.0.21.1")
        home = user.get("/login").node
        kept = ours(user)
        for name in kept:
            del user.cookies[name]
        answer = user.get("/lost")
        assert (answer.node, answer.all("Set-Cookie")) == (home, [])
        user.get("/logout")
        # Neither does the map in the fallback bring the session back.
        assert p.status()["persistence"]["by-ip"]["entries"] == 0


def test_two_pools_with_one_class_share_the_session(abc):
    a, b, c = abc
    config = app(a, b, c)
    config["pools"]["api"] = {**config["pools"]["web"], "nodes": [c, b, a]}
    config["virtual_servers"]["shop"]["routes"] = [{"path": "/api/", "pool": "api"}]
    with proxy(config) as p:
        users = [p.user(f"u{n}") for n in range(7)]
        for user in users:
            user.get("/login")
            assert state_of(user, "/api/") == "in"
    assert [len(set(user.nodes)) for user in users] == [1] * 7


def test_a_prefixed_name(abc):
    config = app(*abc, cookie="__Host-SID")
    with proxy(config) as p:
        for node in abc:
            node.script = reply(200, b"{}", ("Set-Cookie", "__Host-SID=1; Path=/; Secure"))
        line = line_of(p.get())
        assert re.match(r"K-__Host-SID-[0-9a-f]{8}=", line)
        assert {"Path=/", "Secure"} <= {part.strip() for part in line.split(";")}
