"""What the examples compute, apart from messages."""

import math
import sqlite3

import pytest


def test_users_are_spread_evenly_and_stay_where_they_are(load):
    canary = load("canary")
    places = [canary.place(f"user{n}") for n in range(4000)]
    assert all(0 <= place < 100 for place in places)
    for low in range(0, 100, 10):
        share = sum(low <= place < low + 10 for place in places) / len(places)
        assert math.isclose(share, 0.1, abs_tol=0.02)
    assert canary.place("anna") == canary.place("anna")
    before = places[0]
    canary.EXPERIMENT = "checkout-3"
    assert canary.place("user0") != before


def test_a_share_that_grows_takes_nobody_away(load):
    canary = load("canary")
    users = [f"user{n}" for n in range(2000)]
    before: set[str] = set()
    for share in (0, 1, 5, 20, 50, 100):
        canary.SHARES = {"canary": share}
        now = {user for user in users if canary.variant(user) == "canary"}
        assert before <= now
        assert math.isclose(len(now) / len(users), share / 100, abs_tol=0.03)
        before = now


def test_several_variants_share_the_scale(load):
    canary = load("canary")
    canary.SHARES = {"blue": 30.0, "green": 30.0}
    found = [canary.variant(f"user{n}") for n in range(2000)]
    for pool, share in (("blue", 0.3), ("green", 0.3), ("stable", 0.4)):
        assert math.isclose(found.count(pool) / len(found), share, abs_tol=0.04)


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("shop.example.com", "shop"),
        ("www.shop.example.com", None),
        ("v1.api.example.com", "api"),
        ("a.b.api.example.com", "api"),
        ("api.example.com", None),
        ("evilapi.example.com", None),
        ("", None),
        (".", None),
        ("com", None),
        ("x." * 200 + "api.example.com", "api"),
    ],
)
def test_names_and_wildcards(load, name, pool):
    assert load("sni_routing").pool_of(name) == pool


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8::1", False),
        (None, None, True),
    ],
)
def test_what_is_counted_as_one_client(load, one, other, same):
    network = load("rate_limit").network
    assert (network(one) == network(other)) is same


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", "600"), ("1800\n", "1800"), ("soon", "600"), ("-5", "600"), ("1\r\nX: y", "600"),
     ("٣", "3"), ("²", "600"), (" 60 ", "60")],
)  # fmt: skip
def test_what_the_switch_says(load, text, seconds):
    assert load("maintenance").retry_after(text) == seconds


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("127.0.0.1", True), ("10.1.2.3", True), ("192.0.2.1", False), ("::1", True),
     ("2001:db8::1", False), (None, True)],
)  # fmt: skip
def test_who_is_let_through(load, address, allowed):
    assert load("maintenance").is_allowed(address) is allowed


def test_a_table_is_read(load, tmp_path, monkeypatch):
    file = tmp_path / "a name with ? and #.sqlite"
    monkeypatch.setenv("NODES_DB", str(file))
    read_home = load("node_sqlite").read_home
    with pytest.raises(sqlite3.OperationalError):
        read_home("anna")
    assert not file.exists(), "it is opened for reading only"
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE homes (user TEXT PRIMARY KEY, node TEXT NOT NULL)")
        base.execute("INSERT INTO homes VALUES ('anna', '10.0.0.2:8080')")
    base.close()
    assert read_home("anna") == "10.0.0.2:8080"
    assert read_home("' OR 1=1 --") is None
    assert read_home("\x00") is None
