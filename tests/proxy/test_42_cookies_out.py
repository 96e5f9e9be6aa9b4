"""What a response looks like that carries, or must not carry, the session cookie."""

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, sticky

GONE = "Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def pair_of(answer):
    (line,) = answer.all("Set-Cookie")
    return line.decode().split(";")[0]


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404, 500])
def test_every_status_of_the_node_carries_the_cookie(status):
    with RawNode(reply(status, length=status not in (204, 304))) as node, proxy(sticky(node)) as p:
        assert len(p.get().all("Set-Cookie")) == 1


def test_an_answer_to_head_and_a_chunked_answer_carry_it():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with RawNode([reply(200), chunked]) as node, proxy(sticky(node)) as p, p.client() as client:
        assert len(client.ask(method="HEAD").all("Set-Cookie")) == 1
        answer = client.ask()
        assert (len(answer.all("Set-Cookie")), answer.body) == (1, b"ok")


def test_the_applications_own_cookies_stay_beside_it():
    fields = [("Set-Cookie", "app=1; Path=/"), ("Set-Cookie", "x=2")]
    with RawNode(reply(200, b"", *fields)) as node, proxy(sticky(node)) as p:
        cookies = p.get().all("Set-Cookie")
    assert [c for c in cookies if not c.startswith(b"X-Mapping-")] == [b"app=1; Path=/", b"x=2"]
    assert len(cookies) == 3


def test_an_answer_of_the_proxy_itself_carries_none():
    with HttpNode("a") as a, proxy(sticky(a)) as p, p.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: 1\r\n\r\n")
        answer = client.response()
        assert (answer.status, answer.all("Set-Cookie")) == (400, [])


@pytest.mark.parametrize(
    ("keys", "attributes"),
    [
        ({"http_only": False}, {"Path=/"}),
        ({"path": "/shop"}, {"Path=/shop", "HttpOnly"}),
        ({"domain": "shop.test"}, {"Path=/", "HttpOnly", "Domain=shop.test"}),
        ({"same_site": "lax"}, {"Path=/", "HttpOnly", "SameSite=Lax"}),
        ({"secure": True}, {"Path=/", "HttpOnly", "Secure"}),
        ({"directives": "Secure; Max-Age=3600"}, {"Path=/", "HttpOnly", "Secure", "Max-Age=3600"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_attributes_are_as_configured(keys, attributes):
    with HttpNode("a") as a, proxy(sticky(a, **keys)) as p:
        (line,) = p.get().all("Set-Cookie")
    assert {part.strip() for part in line.decode().split(";")[1:]} == attributes


def test_every_response_carries_the_cookie_if_so_configured():
    with HttpNode("a") as a, HttpNode("b") as b, proxy(sticky(a, b, every_response=True)) as p:
        user = p.user("alice")
        assert [len(user.get().all("Set-Cookie")) for _ in range(5)] == [1] * 5
    assert len(set(user.nodes)) == 1


def test_a_node_cannot_set_our_cookie():
    with RawNode(reply(200)) as node, proxy(sticky(node)) as p:
        pair = pair_of(p.get())
        name = pair.partition("=")[0]
        node.script = reply(200, b"", ("Set-Cookie", f"{name}=forged; Path=/"), ("X-A", "1"))
        answer = p.get("/", ("Cookie", pair))
        assert (answer.all("Set-Cookie"), answer.get("X-A")) == ([], b"1")
        fresh = p.get()
        assert len(fresh.all("Set-Cookie")) == 1
        assert b"forged" not in fresh.all("Set-Cookie")[0]


@pytest.mark.parametrize("how", [GONE, "Max-Age=0", "expires=Sun, 06-Nov-94 08:49:37 GMT; Path=/"])
def test_an_application_ends_the_session_by_expiring_our_cookie(how):
    with RawNode(reply(200)) as node, proxy(sticky(node)) as p:
        pair = pair_of(p.get())
        logout = f"{pair.partition('=')[0]}=; Path=/; {how}"
        node.script = reply(200, b"bye", ("Set-Cookie", logout))
        assert p.get("/", ("Cookie", pair)).all("Set-Cookie") == [logout.encode()]
        assert p.get().all("Set-Cookie") == [logout.encode()]


def test_preserve_passes_the_nodes_own_setting_on_and_adds_nothing():
    with RawNode(reply(200)) as node, proxy(sticky(node, preserve=True)) as p:
        name = pair_of(p.get()).partition("=")[0]
        node.script = reply(200, b"", ("Set-Cookie", f"{name}=its-own; Path=/"))
        assert p.get().all("Set-Cookie") == [f"{name}=its-own; Path=/".encode()]


PROTECTED = [
    ("public with age", [("Cache-Control", "public, max-age=60")]),
    ("shared age", [("Cache-Control", "s-maxage=60")]),
    ("only an age", [("cache-control", "max-age=60")]),
    ("a date of expiry", [("Expires", "Wed, 01 Jan 2098 00:00:00 GMT")]),
    ("an entity tag", [("ETag", '"x"')]),
    ("a modification date", [("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")]),
    ("two fields", [("Cache-Control", "public"), ("Cache-Control", "max-age=5")]),
]
SAFE = [
    ("nothing", []),
    ("no-store", [("Cache-Control", "no-store"), ("ETag", '"x"')]),
    ("private", [("Cache-Control", "private, max-age=60")]),
    ("no-cache", [("Cache-Control", "no-cache"), ("ETag", '"x"')]),
]


def rows(table):
    return [pytest.param(fields, id=name.replace(" ", "-")) for name, fields in table]


@pytest.mark.parametrize("fields", rows(PROTECTED))
def test_what_a_shared_cache_could_store_becomes_private_with_the_cookie(fields):
    with RawNode(reply(200, b"x", *fields)) as node, proxy(sticky(node)) as p:
        first = p.get()
        directives = [d.strip() for d in (first.get("Cache-Control") or b"").split(b",")]
        assert b"private" in directives
        assert b"public" not in directives
        assert not any(d.startswith(b"s-maxage") for d in directives)
        again = p.get("/", ("Cookie", pair_of(first)))
        wanted = [value.encode() for name, value in fields if name.lower() == "cache-control"]
        assert again.all("Cache-Control") == wanted, "protected without a cookie in the response"


@pytest.mark.parametrize("fields", rows(SAFE))
def test_what_no_shared_cache_stores_stays_as_it_is(fields):
    with RawNode(reply(200, b"x", *fields)) as node, proxy(sticky(node)) as p:
        answer = p.get()
    wanted = [value.encode() for name, value in fields if name == "Cache-Control"]
    assert (len(answer.all("Set-Cookie")), answer.all("Cache-Control")) == (1, wanted)


def test_protect_cache_can_be_switched_off():
    fields = [("Cache-Control", "public, max-age=60")]
    with RawNode(reply(200, b"x", *fields)) as node, proxy(sticky(node, protect_cache=False)) as p:
        assert p.get().get("Cache-Control") == b"public, max-age=60"
