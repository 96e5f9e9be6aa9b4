"""PHP sessions by rules: php_session and php_universal in front of three real PHP servers.

A user that reaches another node is logged out there: its PHP has its sessions to itself. Each
request comes from another browser, so that nothing but the session's id can tell who it is.
"""

import itertools
import json

import pytest

from tests.harness import Client, User, changed, proxy
from tests.harness.operator import status_of
from tests.harness.php import Php
from tests.harness.rules import example, taken

COOKIE = "PHPSESSID"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def php():
    trans_sid = {"session.use_only_cookies": "0", "session.use_trans_sid": "1"}
    with Php("a", **trans_sid) as a, Php("b", **trans_sid) as b, Php("c", **trans_sid) as c:
        yield a, b, c


@pytest.fixture(scope="module")
def by_rule(php):
    config = changed(example("php_session", php=[one.address for one in php]), "proxy.workers", 2)
    with proxy(config, taken("php_session")) as p:
        yield p


@pytest.fixture(scope="module")
def classic(php):
    config = example("php_universal", web=[one.address for one in php])
    with proxy(changed(config, "proxy.workers", 2), taken("php_universal")) as p:
        yield p


class Visitor(User):
    """Another browser at each request; `get` answers what PHP says."""

    def ask(self, page: str, query: str = "", *fields: tuple[str, str]) -> dict:
        data = self.request(f"/{page}.php?{query}", *fields)
        data = data.replace(b"browser of", f"browser {next(numbers)} of".encode())
        with Client(self.address) as client:
            client.send(data)
            answer = client.response()
        assert answer.status == 200
        return self.take(answer).json()

    def login(self) -> dict:
        return self.ask("login", f"user={self.name}")


def visitors(p, count: int) -> list[Visitor]:
    return [Visitor(p.address(), f"user{next(numbers)}") for _ in range(count)]


@pytest.mark.parametrize("which", ["by_rule", "classic"])
def test_a_cookie_keeps_its_node(which, request):
    users = visitors(request.getfixturevalue(which), 9)
    homes = [user.login()["node"] for user in users]
    assert set(homes) == {"a", "b", "c"}
    for _ in range(3):
        answers = [user.ask("whoami") for user in users]
        assert [answer["user"] for answer in answers] == [user.name for user in users]
        assert [answer["node"] for answer in answers] == homes


@pytest.mark.parametrize("which", ["by_rule", "classic"])
def test_a_client_without_cookies_keeps_its_node_by_the_query(which, request):
    users = visitors(request.getfixturevalue(which), 9)
    known = {}
    for user in users:
        known[user] = user.login()
        user.cookies.clear()
    assert {answer["node"] for answer in known.values()} == {"a", "b", "c"}
    for _ in range(3):
        for user in users:
            query = f"page=2&{COOKIE}={known[user]['id']}&x"
            answer = user.ask("whoami", query)
            assert answer == known[user]
            user.cookies.clear()


def test_a_renewed_id_is_learned(by_rule):
    (user,) = visitors(by_rule, 1)
    ids = set()
    first = user.login()
    for _ in range(4):
        ids.add(user.login()["id"])
        assert user.ask("whoami")["user"] == user.name
    assert len(ids - {first["id"]}) == 4
    assert len(set(user.nodes)) == 1


def test_the_second_name_in_the_query(by_rule):
    for user in visitors(by_rule, 4):
        answer = user.login()
        user.cookies.clear()
        for _ in range(3):
            assert user.ask("static", f"SID={answer['id']}")["node"] == answer["node"]


def test_the_cookie_goes_before_the_query(by_rule):
    users = visitors(by_rule, 6)
    answers = [user.login() for user in users]
    one, other = next(
        (n, m) for n in range(6) for m in range(6) if answers[n]["node"] != answers[m]["node"]
    )
    answer = users[one].ask("whoami", f"{COOKIE}={answers[other]['id']}")
    assert answer["user"] == users[one].name


@pytest.mark.parametrize(
    "garbage",
    ["%3Cscript%3E", "x", "a" * 300, "%00%ff%fe", "", "..%2f..%2fetc%2fpasswd-long-enough"],
)
def test_what_php_would_not_make_is_no_key(by_rule, garbage):
    def entries():
        return status_of(by_rule)["persistence"]["php"]["entries"]

    before = entries()
    (user,) = visitors(by_rule, 1)
    user.ask("static", f"{COOKIE}={garbage}", ("Cookie", f"{COOKIE}={garbage}"))
    assert entries() == before


def test_the_classic_rule_leaves_other_files_alone(classic):
    with classic.client() as client:
        for name in ("/logo.png", "/style.css"):
            client.ask(f"{name}?{COOKIE}=0123456789abcdef0123456789")
    assert "class" not in classic.log_of(f"/logo.png?{COOKIE}=0123456789abcdef0123456789")
    (user,) = visitors(classic, 1)
    user.login()
    user.ask("whoami", "the-line")
    line = classic.log_of("/whoami.php?the-line")
    assert line["log"] == {"php": True}
    assert json.dumps(line).count(user.cookies[COOKIE]) == 0, "the log tells a session's id"
