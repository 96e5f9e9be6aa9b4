"""Clients that want what rules do not, and rules of careless authors."""

import pytest

from tests.harness import HttpNode, proxy, settings
from tests.harness.rules import ruled
from tests.harness.settings import Config, changed

IMPORT = "from fastlb import rule\n"


def rules(config: Config, *names: str) -> Config:
    return changed(config, "virtual_servers.shop.rules", [f"my:{name}" for name in names])


def request_rule(*lines: str, name: str = "route", kind: str = "def") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"{IMPORT}@rule.request\n{kind} {name}(request):\n{body}"


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


@pytest.mark.parametrize(
    ("listed", "left"),
    [
        ("X-Role", None),
        ("keep-alive , x-ROLE", None),
        ("close, x-role,x-other", None),
        ("Cookie, X-Role, X-Forwarded-For", None),
        ("Upgrade, X-Role", b"Upgrade"),
    ],
)
def test_a_client_cannot_list_away_what_a_rule_sets(
    a: HttpNode, listed: str, left: bytes | None
) -> None:
    """RFC 9110 7.6.1: what Connection lists is cut; that is about the client's own fields."""
    text = request_rule(
        "request.headers['X-Role'] = 'guest'",
        "request.headers.add('X-Other', 'rule')",
        "request.cookies['own'] = '1'",
        "request.headers['X-Forwarded-For'] = '192.0.2.1'",
    )
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        answer = client.ask(
            "/", ("X-Role", "admin"), ("x-other", "client"), ("Connection", listed),
            ("Upgrade", "h3"), ("X-Gone", "1"), ("Connection", "X-Gone"),
        )  # fmt: skip
        assert answer.status == 200
    (seen,) = a.requests
    assert seen.all("X-Role") == [b"guest"]
    assert seen.all("X-Other")[-1] == b"rule"
    assert (b"client" in seen.all("X-Other")) == ("other" not in listed)
    assert seen.get("Cookie") == b"own=1"
    assert (seen.get("X-Forwarded-For") or b"").startswith(b"192.0.2.1, ")
    assert seen.get("Connection") == left
    assert seen.get("X-Gone") is None


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_rule_says_by_which_protocol_the_client_came(a: HttpNode, kind: str) -> None:
    """fastlb's own word takes the place of an unknown client's, not of a rule's."""
    text = request_rule(
        "how = request.headers['X-How']",
        "if how == 'set': request.headers['X-Forwarded-Proto'] = 'https'",
        "if how == 'add': request.headers.add('X-Forwarded-Proto', 'https')",
        "if how == 'fail': request.headers['X-Forwarded-Proto'] = 'https'; raise ValueError",
        kind=kind,
    ) + request_rule("request.headers['X-Next'] = '1'", name="after").removeprefix(IMPORT)
    with proxy(rules(settings(a), "route", "after"), ruled(my=text)) as p, p.client() as client:
        for how in ("set", "add", "fail", "none", "set"):
            client.ask("/", ("X-How", how), ("X-Forwarded-Proto", "gopher"))
    seen = [(one.get("X-How"), one.all("X-Forwarded-Proto")) for one in a.requests]
    assert seen == [
        (b"set", [b"https"]), (b"add", [b"http"]), (b"fail", [b"http"]), (b"none", [b"http"]),
        (b"set", [b"https"]),
    ]  # fmt: skip
