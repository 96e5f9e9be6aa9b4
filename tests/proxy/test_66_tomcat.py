"""Tomcat behind `j2ee`: users stay logged in, with cookies and without, by what it says itself."""

import json
import re

import httpx
import pytest

from tests.harness import TIMEOUT, changed, curl, proxy, settings, until
from tests.harness.tomcat import tomcats


@pytest.fixture(scope="module")
def instances():
    with tomcats("t1", "t2", "t3") as made:
        yield {one.name: one for one in made}


def j2ee(instances, **keys):
    nodes = [one.address for one in instances.values()]
    return settings(*nodes, persistence={"type": "j2ee", **keys}, workers=2)


class Visitor:
    """A client of one context, with a cookie jar, that goes where links and redirects lead."""

    def __init__(self, p, context, name):
        host, port = p.address()
        self.name = name
        self.base = f"http://{host}:{port}{context}/"
        self.link = "page.jsp"
        self.client = httpx.Client(timeout=3 * TIMEOUT, trust_env=False, follow_redirects=True)
        self.last = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.close()

    def ask(self, method="GET", **more):
        answer = self.client.request(method, self.base + self.link, **more)
        assert answer.status_code == 200, answer.text
        self.last = json.loads(answer.text)
        self.link = self.last["link"]
        return self.last

    def log_in(self):
        entered = self.ask(params={"do": "enter"})
        assert (entered["user"], entered["known"]) == ("", True)
        page = self.ask("POST", data={"do": "login", "user": self.name})
        assert (page["user"], page["count"], page["known"]) == (self.name, 1, True)
        assert page["asked"] != entered["asked"]  # renewed
        return self

    def visit(self):
        """Another request of a session that is known."""
        count = self.last["count"]
        page = self.ask()
        assert (page["user"], page["count"], page["known"]) == (self.name, count + 1, True)
        assert page["asked"].endswith(f".{page['node']}")  # made by this very instance
        return page["node"]


@pytest.fixture
def visitors():
    """visitors(p, context, count): that many, logged in."""
    made = []

    def log_in(p, context, count, name="u"):
        new = [Visitor(p, context, f"{name}{n}") for n in range(count)]
        made.extend(new)
        return [one.log_in() for one in new]

    yield log_in
    for one in made:
        one.client.close()


@pytest.mark.parametrize(("context", "keys"), [
    ("/shop", {}), ("/plain", {}), ("/renamed", {"cookie": "SID", "parameter": "SID"}),
])  # fmt: skip
def test_many_users_stay_logged_in(instances, visitors, context, keys):
    with proxy(j2ee(instances, **keys)) as p:
        users = visitors(p, context, 9)
        homes = {user.name: user.last["node"] for user in users}
        assert set(homes.values()) == set(instances)
        for _ in range(5):
            for user in users:
                assert user.visit() == homes[user.name]
        assert all(bool(user.client.cookies) is (context != "/plain") for user in users)
        assert all(("=" in user.link) is (context == "/plain") for user in users)
        outcomes = [line["outcome"] for line in p.log(9 * 9)]
        assert (outcomes.count("no-key"), outcomes.count("hit")) == (9, 72)


def test_cookie_and_url_lead_to_one_session(instances, visitors):
    with proxy(j2ee(instances)) as p:
        for user in visitors(p, "/shop", 3):
            (id,) = user.client.cookies.values()
            url = f"{user.base}page.jsp;jsessionid={id}"
            bare = json.loads(httpx.get(url, trust_env=False, timeout=3 * TIMEOUT).text)
            assert (bare["user"], bare["known"]) == (user.name, True)
            user.last = bare
            user.visit()


def test_through_the_drain_of_a_node(instances, visitors):
    config = j2ee(instances)
    with proxy(config) as p:
        users = visitors(p, "/shop", 3) + visitors(p, "/plain", 3)
        listed = [
            {"address": one.address, "draining": one.name == "t2"} for one in instances.values()
        ]
        assert p.reload(changed(config, "pools.web.nodes", listed)).returncode == 0
        homes = [user.last["node"] for user in users]
        assert homes.count("t2") == 2
        for _ in range(3):
            assert [user.visit() for user in users] == homes
        new = visitors(p, "/shop", 3, "new") + visitors(p, "/plain", 3, "new")
        assert {user.visit() for user in new} == {"t1", "t3"}
        # An id that is renewed on the draining node is not a new session.
        for user, home in zip(users, homes, strict=True):
            again = user.ask("POST", data={"do": "login", "user": user.name})
            assert (again["node"], again["user"]) == (home, user.name)
            assert user.visit() == home


def test_a_failed_node_s_users_log_in_again_and_stay(instances, visitors):
    with proxy(j2ee(instances)) as p:
        users = visitors(p, "/shop", 3) + visitors(p, "/plain", 3)
        homes = {user: user.last["node"] for user in users}
        instances["t3"].stop()
        try:
            for user in users:
                if homes[user] != "t3":
                    assert user.visit() == homes[user]
                    continue
                page = user.ask()
                assert (page["user"], page["known"], page["node"] != "t3") == ("", False, True)
                homes[user] = user.log_in().last["node"]
            assert "t3" not in homes.values()
        finally:
            instances["t3"].start()
            instances["t3"].ready()
        for _ in range(3):
            assert [user.visit() for user in users] == list(homes.values())

        def left():
            return {line["previous_node"] for line in p.log_lines() if line.get("previous_node")}

        until(lambda: left() == {instances["t3"].address}, "the node that was left, in the log")


def test_logout(instances, visitors):
    with proxy(j2ee(instances)) as p:
        (user,) = visitors(p, "/shop", 1)
        before = p.status()["persistence"]["shop"]["entries"]
        gone = user.ask(params={"do": "logout"})
        assert (gone["user"], dict(user.client.cookies)) == ("", {})
        assert p.status()["persistence"]["shop"]["entries"] == before - 1
        user.log_in().visit()


@pytest.mark.parametrize("context", ["/shop", "/plain"])
def test_curl_stays_logged_in(instances, tmp_path, context):
    jar = str(tmp_path / "jar")
    with proxy(j2ee(instances)) as p:
        host, port = p.address()
        base = f"http://{host}:{port}{context}/"

        def page(link, *more):
            done = curl("-L", "-c", jar, "-b", jar, base + link, *more)
            assert (done.returncode, done.stderr) == (0, b"")
            return json.loads(done.stdout)

        entered = page("page.jsp?do=enter")
        at = page(entered["link"], "-d", "do=login&user=carol")
        for count in range(2, 6):
            at = page(at["link"])
            assert (at["user"], at["count"], at["node"]) == ("carol", count, entered["node"])
        assert bool(re.search("JSESSIONID", (tmp_path / "jar").read_text())) is (context == "/shop")
