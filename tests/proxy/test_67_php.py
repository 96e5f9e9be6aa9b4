"""A PHP application behind `cookie = "PHPSESSID"`: who stays logged in is what PHP says.

The sessions of each node are in files of that node alone, so a request that reaches another one
finds its user logged out.
"""

import json
from pathlib import Path

import pytest

from tests.harness import changed, curl, httpx_client, proxy, settings, until
from tests.harness.php import Php

APP = "PHPSESSID"


@pytest.fixture(scope="module")
def php():
    with Php("a") as a, Php("b") as b, Php("c") as c:
        yield a, b, c


@pytest.fixture
def abc(php):
    yield php
    for node in php:
        node.start()
        for file in node.sessions.iterdir():
            file.unlink()


def sticky_php(*nodes, **keys):
    kind = {"type": "cookie", "cookie": APP, **keys}
    return settings(*(node.address for node in nodes), persistence=kind, workers=2)


class Browser:
    """A user with httpx: its cookie jar, its kept connections."""

    def __init__(self, p, name: str):
        self.name = name
        self.client = httpx_client(p.address())
        self.client.headers["User-Agent"] = f"browser of {name}"
        self.nodes: list[str] = []

    def get(self, page: str):
        answer = self.client.get(f"/{page}.php", params={"user": self.name})
        if answer.status_code == 200:
            self.nodes.append(answer.json()["node"])
        return answer

    def user(self, page: str = "whoami") -> str | None:
        return self.get(page).json()["user"]

    def ours(self) -> list[str]:
        return [name for name in self.client.cookies if name.startswith("K-")]


@pytest.fixture
def browsers():
    made: list[Browser] = []

    def make(p, *names: str) -> list[Browser]:
        new = [Browser(p, name) for name in names]
        made.extend(new)
        return new

    yield make
    for browser in made:
        browser.client.close()


def node_of(browser: Browser, nodes) -> Php:
    return next(node for node in nodes if node.name == browser.nodes[-1])


def test_twenty_users_log_in_and_stay_logged_in(abc, browsers):
    names = [f"user{n}" for n in range(20)]
    with proxy(sticky_php(*abc)) as p:
        users = browsers(p, *names)
        before = [user.get("whoami").json()["id"] for user in users]
        after = [user.get("login").json()["id"] for user in users]
        assert not set(before) & set(after), "PHP kept an id at login"
        for _ in range(3):
            assert [user.user() for user in users] == names
    assert [len(set(user.nodes)) for user in users] == [1] * 20
    assert {user.nodes[0] for user in users} == {"a", "b", "c"}
    assert sorted(name for node in abc for name in node.users()) == sorted(names)


def test_a_visitor_without_a_session_gets_no_cookie(abc, browsers):
    with proxy(sticky_php(*abc)) as p:
        (user,) = browsers(p, "alice")
        user.get("static")
        assert list(user.client.cookies) == []


def test_logout_ends_the_session_here_too(abc, browsers):
    with proxy(sticky_php(*abc)) as p:
        (user,) = browsers(p, "alice")
        assert user.user("login") == "alice"
        assert len(user.ours()) == 1
        user.get("logout")
        assert list(user.client.cookies) == []
        assert [name for node in abc for name in node.users()] == []
        assert user.user() is None
        assert user.user("login") == "alice"
        assert user.user() == "alice"


def test_curl_with_its_cookie_jar(abc, tmp_path: Path):
    with proxy(sticky_php(*abc)) as p:
        host, port = p.address()

        def ask(name: str, page: str) -> dict:
            jar = str(tmp_path / name)
            done = curl("-b", jar, "-c", jar, "-A", name,
                        f"http://{host}:{port}/{page}.php?user={name}")  # fmt: skip
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        names = [f"curl{n}" for n in range(5)]
        homes = {name: ask(name, "login")["node"] for name in names}
        assert set(homes.values()) == {"a", "b", "c"}
        for _ in range(2):
            answers = {name: ask(name, "whoami") for name in names}
            assert {name: each["user"] for name, each in answers.items()} == {n: n for n in names}
            assert {name: each["node"] for name, each in answers.items()} == homes
        ask(names[0], "logout")
        assert "K-" not in (tmp_path / names[0]).read_text()
        assert ask(names[0], "whoami")["user"] is None


def test_a_draining_node_keeps_its_users_and_gets_no_new_ones(abc, browsers):
    config = sticky_php(*abc)
    with proxy(config) as p:
        users = browsers(p, *(f"user{n}" for n in range(6)))
        for user in users:
            user.get("login")
        assert "b" in {user.nodes[0] for user in users}
        nodes = [{"address": node.address, "draining": node.name == "b"} for node in abc]
        assert p.reload(changed(config, "pools.web.nodes", nodes)).returncode == 0
        assert [user.user() for user in users] == [user.name for user in users]
        fresh = browsers(p, *(f"new{n}" for n in range(6)))
        assert [user.user("login") for user in fresh] == [user.name for user in fresh]
        assert {user.nodes[0] for user in fresh} == {"a", "c"}
        # Who logs out of it and in again is a new session.
        (leaving, *_) = [user for user in users if user.nodes[0] == "b"]
        leaving.get("logout")
        assert leaving.user("login") == leaving.name
        assert leaving.nodes[-1] in ("a", "c")


@pytest.mark.parametrize("strict", ["0", "1"], ids=["any-id", "own-ids-only"])
@pytest.mark.parametrize("path", ["/", "/whoami.php"])
def test_a_node_that_is_killed_logs_its_users_out_once(browsers, strict, path):
    """With any id PHP goes on with the one that it is sent and sets no cookie: ours must come
    all the same, and in the place of the old one."""
    ini = {"session.use_strict_mode": strict, "session.cookie_path": path}
    with Php("a", **ini) as a, Php("b", **ini) as b, Php("c", **ini) as c:
        nodes = (a, b, c)
        with proxy(sticky_php(*nodes)) as p:
            (user,) = browsers(p, "alice")
            # The session's cookie may be for this one page only.
            user.get("whoami")
            home = node_of(user, nodes)
            assert [user.get("whoami").json()["node"] for _ in range(3)] == [home.name] * 3
            home.stop()
            first = user.get("whoami")
            assert (first.status_code, first.json()["user"]) == (200, None)
            moved = user.nodes[-1]
            assert moved != home.name
            identity = first.json()["id"]
            home.start()
            for _ in range(4):
                assert user.get("whoami").json() == {"node": moved, "user": None, "id": identity}
            if path == "/":
                assert user.user("login") == "alice"
                assert [user.user() for _ in range(4)] == ["alice"] * 4
                assert user.nodes[-1] == moved
            assert len(user.ours()) == 1


def test_close_that_keeps_the_session_finds_it_again_when_the_node_is_back(abc, browsers):
    config = sticky_php(*abc, failure_mode="close", delete_on_failure=False)
    with proxy(config) as p:
        (user,) = browsers(p, "alice")
        user.get("login")
        home = node_of(user, abc)
        home.stop()
        assert [user.get("whoami").status_code for _ in range(2)] == [503, 503]
        assert len(user.ours()) == 1
        home.start()
        until(lambda: user.get("whoami").status_code == 200, "the node that is back serves")
        assert user.user() == "alice"
        assert set(user.nodes) == {home.name}


def test_close_that_deletes_the_session_begins_a_new_one(abc, browsers):
    with proxy(sticky_php(*abc, failure_mode="close")) as p:
        (user,) = browsers(p, "alice")
        user.get("login")
        home = node_of(user, abc)
        home.stop()
        assert user.get("whoami").status_code == 503
        assert user.ours() == []
        assert user.user() is None
        assert user.user("login") == "alice"
        assert user.nodes[-1] != home.name
        assert user.user() == "alice"
