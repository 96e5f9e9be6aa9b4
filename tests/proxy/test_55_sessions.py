"""`fastlb sessions`: what is in the session caches, for an operator to see and to end."""

import json

import pytest

from tests.core.handshakes import certificate
from tests.harness import HttpNode, changed, proxy, settings, sticky, until
from tests.harness.operator import here, status_of
from tests.harness.tls_client import TlsUser
from tests.harness.tls_node import TlsNode


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def by_ip(*nodes, **keys):
    return settings(*nodes, persistence={"type": "ip", **keys})


def ask(p, action, *arguments, name="shop"):
    """A command that works; its JSON."""
    done = here("sessions", action, "--class", name, *arguments, "--json", "-c", str(p.file))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failed(p, *arguments):
    done = here("sessions", *arguments, "-c", str(p.file))
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def visit(p, count, net=61):
    return {f"127.0.{net}.{n}": p.get(source=f"127.0.{net}.{n}").node for n in range(1, count + 1)}


def test_each_session_is_listed_with_its_node_and_ages(ab):
    a, b = ab
    with proxy(by_ip(a, b, expiry="10m")) as p:
        homes = visit(p, 6)
        answer = ask(p, "list")
        assert (answer["class"], answer["type"], answer["count"]) == ("shop", "ip", 6)
        rows = answer["sessions"]
        assert sorted(row["node"] for row in rows) == sorted([a.address, b.address] * 3)
        for row in rows:
            assert len(bytes.fromhex(row["hash"])) == 16
            assert 0 <= row["idle_seconds"] <= row["age_seconds"] < 60
            assert 540 <= row["remaining_seconds"] <= 600
        for source, home in homes.items():
            (row,) = ask(p, "list", "--key", source)["sessions"]
            assert row["node"] == {"a": a, "b": b}[home].address
            assert ask(p, "list", "--hash", row["hash"])["sessions"][0]["node"] == row["node"]
        assert ask(p, "list", "--key", "192.0.2.1")["sessions"] == []
        shown = here("sessions", "list", "--class", "shop", "--limit", "2", "-c", str(p.file))
        assert "2 of 6 sessions, the most recently used first" in shown.stdout
        assert len(ask(p, "list", "--node", a.host)["sessions"]) == 3


def test_they_are_counted_by_node(ab):
    a, b = ab
    with proxy(by_ip(a, b)) as p:
        visit(p, 5)
        answer = ask(p, "count")
        assert (answer["count"], answer["expired"]) == (5, 0)
        assert answer["nodes"] == [
            {"node": a.address, "count": 3, "expired": 0},
            {"node": b.address, "count": 2, "expired": 0},
        ]
        assert ask(p, "count", "--node", b.address)["count"] == 2
        assert ask(p, "count", "--node", "192.0.2.9")["count"] == 0
        shown = here("sessions", "count", "--class", "shop", "-c", str(p.file)).stdout
        assert shown.splitlines()[-1].split() == ["in", "all", "5", "0"]


def test_one_is_deleted_by_key_or_hash_and_begins_anew(ab):
    with proxy(by_ip(*ab)) as p:
        visit(p, 3)
        assert ask(p, "delete", "--key", "127.0.61.2")["deleted"] == 1
        p.get(source="127.0.61.2")
        p.get(source="127.0.61.3")
        assert p.outcomes(5)[3:] == ["new", "hit"]
        assert "has no session of that key [FLB-S085]" in failed(
            p, "delete", "--class", "shop", "--key", "127.0.61.9"
        )
        (row,) = ask(p, "list", "--key", "127.0.61.3")["sessions"]
        done = here(
            "sessions", "delete", "--class", "shop", "--hash", row["hash"].upper(),
            "-c", str(p.file),
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "1 session deleted\n")
        assert ask(p, "count")["count"] == 2


def test_all_of_a_node_are_deleted_and_all_of_a_class_flushed(ab):
    a, b = ab
    with proxy(by_ip(a, b)) as p:
        visit(p, 8)
        (row,) = ask(p, "list", "--key", "127.0.61.1")["sessions"]
        other = b if row["node"] == a.address else a
        assert "on that node" in failed(
            p, "delete", "--class", "shop", "--key", "127.0.61.1", "--node", other.address
        )
        assert ask(p, "delete", "--key", "127.0.61.1", "--node", row["node"])["deleted"] == 1
        left = ask(p, "count", "--node", a.address)["count"]
        assert ask(p, "delete", "--node", a.address)["deleted"] == left
        assert ask(p, "delete", "--node", a.address)["deleted"] == 0
        assert ask(p, "flush")["deleted"] == 7 - left
        assert ask(p, "flush")["deleted"] == 0
        assert status_of(p)["persistence"]["shop"]["entries"] == 0
        visit(p, 2)
        assert p.outcomes(10)[8:] == ["new", "new"]


def test_a_key_is_cut_to_the_prefix_as_a_client_is(ab):
    with proxy(by_ip(*ab, ipv4_prefix=24)) as p:
        p.get(source="127.0.62.5")
        assert ask(p, "list", "--key", "127.0.62.200")["count"] == 1
        assert ask(p, "list", "--key", "::ffff:127.0.62.1")["count"] == 1
        assert ask(p, "list", "--key", "127.0.63.5")["count"] == 0


def test_every_worker_forgets_at_once(ab):
    with proxy(changed(by_ip(*ab), "proxy.workers", 2)) as p:
        visit(p, 10)
        assert ask(p, "flush")["deleted"] == 10
        visit(p, 10)
        assert p.outcomes(20)[10:] == ["new"] * 10


def test_expired_sessions_are_not_listed(ab):
    with proxy(by_ip(*ab, expiry="1s")) as p:
        visit(p, 3)
        until(lambda: ask(p, "count")["expired"] == 3, "they are too old")
        assert (ask(p, "list")["count"], ask(p, "count")["count"]) == (0, 0)
        done = here("sessions", "list", "--class", "shop", "-c", str(p.file))
        assert done.stdout == "no sessions\n"
        assert ask(p, "flush")["deleted"] == 3


def test_sessions_outlive_a_change_of_the_caches_size(ab):
    config = by_ip(*ab, size=64)
    with proxy(config) as p:
        visit(p, 6)
        p.reload(changed(config, "persistence.shop.size", 4096))
        assert ask(p, "list", "--key", "127.0.61.4")["count"] == 1
        assert ask(p, "count")["count"] == 6


def test_a_class_without_a_cache_says_where_its_sessions_are(ab):
    with proxy(sticky(*ab)) as p:
        line = failed(p, "list", "--class", "shop")
        assert '[persistence.shop] (type "transparent") has no session cache' in line
        assert "in the clients' cookies" in line


def test_what_is_wrong_is_said(ab):
    with proxy(by_ip(*ab)) as p:
        assert '(did you mean "shop"?)' in failed(p, "count", "--class", "shp")
        for key in ("nonsense", "", "10.0.0.1:80", "fe80::1%eth0", "10.0.0.0/8", "\udcff"):
            line = failed(p, "delete", "--class", "shop", "--key", key)
            assert "FLB-S084" in line
        line = failed(p, "list", "--class", "shop", "--key", "10.0.0.1", "--key", "x")
        assert "a key is one value (a client's address), not 2" in line


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("list",),
        ("delete", "--class", "shop"),
        ("list", "--class", "shop", "--hash", "abc"),
        ("list", "--class", "shop", "--hash", "g" * 32),
        ("list", "--class", "shop", "--limit", "0"),
        ("list", "--class", "shop", "--limit", "100001"),
        ("list", "--class", "shop", "--limit", "many"),
        ("count", "--class", "shop", "--node", "nobody"),
        ("flush", "--class", "shop", "--node", "10.0.0.1"),
        ("delete", "--class", "shop", "--key", "a", "--hash", "0" * 32),
    ],
)
def test_wrong_usage_is_2(arguments):
    done = here("sessions", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


SOURCE = "127.0.64.7"
ASP = "ASPSESSIONIDABCDEFGH"


@pytest.mark.parametrize(
    ("persistence", "target", "fields", "keys"),
    [
        ({"type": "ip"}, "/", (), [SOURCE]),
        ({"type": "universal", "key": "header:X-User"}, "/", [("X-User", "alice")], ["alice"]),
        ({"type": "universal", "key": "source"}, "/", (), [SOURCE]),
        (
            {"type": "universal", "key": ["source", "header:User-Agent"]},
            "/",
            [("User-Agent", "a browser/1.0")],
            [SOURCE, "a browser/1.0"],
        ),
        (
            {"type": "universal", "key": ["query:sid", "path:2", "cookie:SID"]},
            "/a/second?sid=x%20y",
            [("Cookie", 'SID="quoted"')],
            ["x%20y", "second", "quoted"],
        ),
        ({"type": "universal", "key": "host"}, "/", [("Host", "Shop.Test:80")], ["SHOP.test"]),
        ({"type": "j2ee"}, "/", [("Cookie", "JSESSIONID=AB12.node1")], ["AB12.node2"]),
        ({"type": "j2ee"}, "/p;jsessionid=AB12!9", (), ["AB12"]),
        ({"type": "asp"}, "/", [("Cookie", f"{ASP}=QRST")], [f"{ASP}=QRST"]),
        ({"type": "asp"}, "/", [("Cookie", "ASP.NET_SessionId=qrst")], ["qrst"]),
    ],
)
def test_a_key_of_each_type_finds_the_session_that_a_request_made(
    ab, persistence, target, fields, keys
):
    with proxy(settings(*ab, persistence=persistence)) as p:
        host = [] if any(name == "Host" for name, _ in fields) else [("Host", "proxy.test")]
        with p.client(SOURCE) as client:
            lines = "".join(f"{name}: {value}\r\n" for name, value in [*host, *fields])
            client.send(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())
            home = client.response().node
        words = [word for key in keys for word in ("--key", key)]
        (row,) = ask(p, "list", *words)["sessions"]
        assert row["node"] == {"a": ab[0], "b": ab[1]}[home].address
        assert ask(p, "delete", *words)["deleted"] == 1
        assert ask(p, "count")["count"] == 0


def test_a_tls_session_is_found_by_the_id_that_its_client_shows():
    pem = certificate()
    with (
        TlsNode("a", pem, version="1.2", tickets=False) as a,
        TlsNode("b", pem, version="1.2", tickets=False) as b,
        proxy(settings(a, b, server={"protocol": "tls"}, persistence={"type": "ssl"})) as p,
    ):
        user, other = (TlsUser(p.address(), "1.2", tickets=False) for _ in range(2))
        homes = [user.visit(), other.visit()]
        assert homes == ["a", "b"]
        shown = user.session.id.hex().upper()
        for key in (shown, shown.lower(), ":".join(shown[i : i + 2] for i in range(0, 64, 2))):
            (row,) = ask(p, "list", "--key", key)["sessions"]
            assert row["node"] == a.address
        assert ask(p, "delete", "--key", shown)["deleted"] == 1
        assert ask(p, "list", "--key", shown)["sessions"] == []
        TlsUser(p.address(), "1.2", tickets=False).visit()  # node a, whose turn it is
        assert [user.visit(), other.visit()] == ["b", "b"]
        assert (user.reused, other.reused) == ([False, False], [False, True])
        assert "[FLB-S084]" in failed(p, "list", "--class", "shop", "--key", "no digits")
