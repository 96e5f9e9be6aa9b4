"""The examples' rules over messages that fastlb.testing makes: as their users would test them."""

import sqlite3
import time

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from fastlb import testing

ID = "nof6du4t4t2r76m3lcpf6gl1f6"
OTHER = "0123456789abcdefghijklmnop"


# ---- php_session, php_universal ----


@pytest.mark.parametrize(
    ("target", "cookies", "key"),
    [
        ("/", {"PHPSESSID": ID}, ID),
        (f"/?PHPSESSID={ID}", {}, ID),
        (f"/?x=1&SID={ID}&y", {}, ID),
        (f"/?PHPSESSID={OTHER}", {"PHPSESSID": ID}, ID),
        (f"/?PHPSESSID={ID}", {"PHPSESSID": ""}, ID),
        (f"/?PHPSESSID={ID}", {"PHPSESSID": "garbage"}, None),  # PHP goes by the cookie, too
        (f"/?SID={OTHER}&PHPSESSID=", {}, OTHER),
        (f"/?PHPSESSID=..%2F..%2F{ID}", {}, None),
        (f"/?phpsessid={ID}", {"phpsessid": ID}, None),
        ("/?PHPSESSID", {}, None),
        ("/", {"PHPSESSID": "a" * 257}, None),
        ("/", {"PHPSESSID": "ä" * 30}, None),
        ("/", {}, None),
    ],
)
def test_the_id_of_a_php_session(load, target, cookies, key):
    decision = testing.run(
        load("php_session").session, testing.request("GET", target, cookies=cookies)
    )
    assert decision.persistence_key == key


@pytest.mark.parametrize(
    ("target", "php"),
    [
        ("/index.php", True),
        ("/INDEX.PHP", True),
        ("/index.php/news/5?x", True),
        ("/", True),
        ("/shop/", True),
        ("/logo.png", False),
        ("/x.phps", False),
        ("/a.png?x=.php", False),
        ("/a%2Ephp", True),
    ],
)
def test_the_classic_rule_is_for_php_pages(load, target, php):
    request = testing.request(
        "GET", target, cookies={"PHPSESSID": ID}, persistence=["other", "PHP"]
    )
    decision = testing.run(load("php_universal").persist, request)
    assert decision.persistence == ("PHP" if php else "other")
    assert decision.persistence_key == (ID if php else None)
    assert decision.log == ({"php": True} if php else {})


# ---- node_sqlite, node_postgres ----


@pytest.fixture
def homes(tmp_path, monkeypatch):
    file = tmp_path / "nodes.sqlite"
    monkeypatch.setenv("NODES_DB", str(file))
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE homes (user TEXT PRIMARY KEY, node TEXT NOT NULL)")
        base.execute("INSERT INTO homes VALUES ('anna', '10.0.0.2:80'), ('bert', 'nonsense')")
    base.close()
    return file


def as_user(name: str) -> testing.Facts:
    return testing.request(cookies={"user": name})


def test_the_table_names_the_node(load, homes):
    home = load("node_sqlite").home
    decision = testing.run(home, as_user("anna"))
    assert (decision.persistence_node, decision.log) == ("10.0.0.2:80", {"user": "anna"})
    assert testing.run(home, as_user("nobody")).persistence_node is None
    assert testing.run(home, testing.request()).log == {}


def test_a_row_that_is_no_node_is_an_error_that_says_so(load, homes):
    with pytest.raises(ValueError, match=r"persistence_node.*nonsense"):
        testing.run(load("node_sqlite").home, as_user("bert"))


def test_a_data_base_that_is_away_is_an_error_of_the_rule(load, homes):
    homes.unlink()
    decision = testing.run(load("node_sqlite").home, as_user("anna"), raises=False)
    assert decision.persistence_node is None
    assert [type(each) for each in decision.failures] == [sqlite3.OperationalError]


def test_postgresql_is_asked_again_after_a_lost_connection(load, monkeypatch):
    module = load("node_postgres")
    answers = [psycopg.OperationalError("terminating connection"), "10.0.0.1:80"]
    checked = []

    async def read_home(user: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Pool:
        async def check(self) -> None:
            checked.append(True)

    monkeypatch.setattr(module, "read_home", read_home)
    monkeypatch.setattr(module, "pool", Pool())
    assert testing.run(module.home, as_user("anna")).persistence_node == "10.0.0.1:80"
    assert checked == [True]


def test_postgresql_that_does_not_answer_is_asked_once(load, monkeypatch):
    module = load("node_postgres")
    asked = []

    async def read_home(user: str) -> str:
        asked.append(user)
        raise PoolTimeout("no connection in 1 s")

    monkeypatch.setattr(module, "read_home", read_home)
    with pytest.raises(PoolTimeout):
        testing.run(module.home, as_user("anna"))
    assert asked == ["anna"]


# ---- canary ----

POOLS = {"stable": ["10.0.0.1:80"], "canary": ["10.0.1.1:80"]}


def test_a_user_is_always_in_the_same_place(load):
    canary = load("canary")
    canary.SHARES = {"canary": 50.0}
    found = set()
    for number in range(30):
        request = testing.request(
            cookies={"visitor": f"user{number}"}, headers={"x-variant": "mine"}, pools=POOLS
        )
        one, other = (testing.run(canary.choose, request) for _ in range(2))
        assert one.pool == other.pool
        assert one.request.headers.get_all("X-Variant") == [one.pool]
        assert one.log == {"variant": one.pool}
        assert one.data == {}
        found.add(one.pool)
    assert found == {"stable", "canary"}


@pytest.mark.parametrize("tls", [None, testing.Tls()])
def test_a_newcomer_gets_a_cookie(load, tls):
    canary = load("canary")
    request = testing.request(pools=POOLS, tls=tls)
    chosen = testing.run(canary.choose, request)
    again = testing.request(pools=POOLS, tls=tls, data=chosen.data)
    answered = testing.run(canary.remember, again, testing.response())
    cookie = answered.response.cookies["visitor"]
    assert canary.variant(cookie.value) == chosen.pool
    assert cookie["Max-Age"] == str(canary.YEAR)
    assert ("Secure" in cookie) == (tls is not None)
    known = testing.run(canary.remember, testing.request(pools=POOLS), testing.response())
    assert "visitor" not in known.response.cookies


# ---- maintenance ----


@pytest.fixture
def closed(load, tmp_path, monkeypatch):
    module = load("maintenance")
    monkeypatch.setattr(module, "SWITCH", tmp_path / "maintenance.on")
    monkeypatch.setattr(module, "PAGE", tmp_path / "maintenance.html")
    module.SWITCH.write_text("60")
    return module


def test_everybody_gets_the_page(closed):
    decision = testing.run(closed.maintenance, testing.request("POST", "/order", body=b"x"))
    assert decision.answer.status == 503
    assert decision.answer.headers["Retry-After"] == "60"
    assert decision.answer.body == closed.PLAIN
    closed.SWITCH.unlink()
    assert testing.run(closed.maintenance, testing.request()).answer is None


def test_the_office_is_let_through(closed):
    decision = testing.run(closed.maintenance, testing.request(client="10.9.9.9:1"))
    assert (decision.answer, decision.log) == (None, {"maintenance": "let through"})


# ---- rate_limit ----


@pytest.fixture
def limited(load):
    module = load("rate_limit")
    module.PER_USER, module.PER_ADDRESS = 3, 5
    # A window that does not end while the test runs.
    module.WINDOW = next(s for s in range(3000, 3600) if time.time() % s < s / 2)
    return module.limit


def refused(limit, key: str | None, client: str = "192.0.2.1:1") -> bool:
    headers = {"X-API-Key": key} if key else {}
    decision = testing.run(limit, testing.request(headers=headers, client=client))
    if decision.answer:
        assert decision.answer.status == 429
        assert int(decision.answer.headers["Retry-After"]) > 0
    return decision.answer is not None


def test_so_many_for_a_user_and_no_more(limited):
    assert [refused(limited, "anna") for _ in range(4)] == [False, False, False, True]
    assert refused(limited, "anna", "192.0.2.9:1")
    assert not refused(limited, "bert", "192.0.2.9:1")


def test_so_many_for_an_address_and_no_more(limited):
    assert [refused(limited, f"key{n}") for n in range(6)] == [False] * 5 + [True]
    assert not refused(limited, None, "192.0.2.2:1")
    assert [refused(limited, None, f"[2001:db8::{n}]:1") for n in range(6)] == [False] * 5 + [True]


def test_the_next_minute_begins_anew(limited, monkeypatch):
    assert [refused(limited, "anna") for _ in range(4)][-1]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert not refused(limited, "anna")


def test_what_is_counted_is_forgotten(load, limited):
    assert [refused(limited, "anna") for _ in range(4)][-1]
    testing.advance(3600)
    assert not refused(limited, "anna")


def test_a_key_of_any_bytes_is_a_key(limited):
    for key in ("user x", "address local", "\udcff\udcfe", "ä" * 1000):
        assert not refused(limited, key)


# ---- hardening ----


def test_fields_are_added_and_taken_away(load):
    response = testing.response(
        headers=[("Server", "x"), ("server", "y"), ("x-frame-options", "DENY")]
    )
    harden = load("hardening").harden
    plain = testing.run(harden, testing.request(), response).response.headers
    assert "Server" not in plain
    assert plain.get_all("X-Frame-Options") == ["DENY"]
    assert plain["X-Content-Type-Options"] == "nosniff"
    assert "Strict-Transport-Security" not in plain
    secure = testing.run(harden, testing.request(tls=testing.Tls()), response).response.headers
    assert secure["Strict-Transport-Security"].startswith("max-age=31536000")


# ---- sni_routing ----

PLACES = {"shop": ["10.0.0.1:443"], "api": ["10.0.1.1:443"], "acme": ["10.0.2.1:443"]}


@pytest.mark.parametrize(
    ("tls", "pool", "closed"),
    [
        (testing.Tls(sni="shop.example.com"), "shop", False),
        (testing.Tls(sni="V1.Api.Example.com."), "api", False),
        (testing.Tls(sni="shop.example.com", alpn=("acme-tls/1",)), "acme", False),
        (testing.Tls(sni="example.org"), "shop", True),
        (testing.Tls(), "shop", True),
        (None, "shop", True),
    ],
)
def test_names_choose_pools(load, tls, pool, closed):
    decision = testing.run(
        load("sni_routing").by_name, testing.connection(tls=tls, pools=PLACES, protocol="tls")
    )
    assert (decision.pool, decision.closed) == (pool, closed)


# ---- partitioned ----


def test_only_the_inserted_cookie_is_changed(load):
    ours = "X-Mapping-0a1b2c3d=token; Path=/; HttpOnly; SameSite=Lax"
    response = testing.response(headers=[("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", ours)])
    decision = testing.run(load("partitioned").partitioned, testing.request(), response)
    theirs, line = decision.response.headers.get_all("Set-Cookie")
    assert theirs == "sid=1; Path=/"
    pair, *attributes = line.split("; ")
    assert pair == "X-Mapping-0a1b2c3d=token"
    assert sorted(attributes) == ["HttpOnly", "Partitioned", "Path=/", "SameSite=None", "Secure"]
