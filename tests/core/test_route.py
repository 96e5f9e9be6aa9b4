"""Hosts and path prefixes to pools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core import _testing_plan as core
from tests.core.plans import Setting


@pytest.mark.parametrize(("authority", "host"), [
    (b"", b""),
    (b"example.com", b"example.com"),
    (b"example.com:80", b"example.com"),
    (b"example.com:", b"example.com"),
    (b"host1", b"host1"),
    (b"8080", b"8080"),
    (b"192.0.2.1", b"192.0.2.1"),
    (b"192.0.2.1:8080", b"192.0.2.1"),
    (b"[::1]", b"[::1]"),
    (b"[::1]:443", b"[::1]"),
    (b"[2001:db8::80]", b"[2001:db8::80]"),
    (b"[2001:db8::80]:80", b"[2001:db8::80]"),
    (b"example.com.", b"example.com"),
    (b"example.com.:80", b"example.com"),
    (b"example.com..", b"example.com."),
    (b".", b"."),
    (b".:80", b"."),
])  # fmt: skip
def test_port_and_final_dot_are_no_part_of_the_host(authority: bytes, host: bytes) -> None:
    assert core.host_of(authority) == host


def routed(routes: list[tuple[str, str]], host: str, path: str) -> int | None:
    """The number of the route that matches; None: the default pool."""
    image = Setting(routes=[(*one, 10 + i) for i, one in enumerate(routes)]).image()
    pool = image.route(0, host.encode(), path.encode())
    return pool - 10 if pool >= 10 else None


@pytest.mark.parametrize(("pattern", "host", "matches"), [
    ("api.example.com", "api.example.com", True),
    ("api.example.com", "API.Example.COM", True),
    ("api.example.com", "xapi.example.com", False),
    ("api.example.com", "api.example.comx", False),
    ("api.example.com", "", False),
    ("*.example.com", "a.example.com", True),
    ("*.example.com", "A.B.Example.Com", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", ".example.com", False),
    ("*.example.com", "aexample.com", False),
    ("*.example.com", "a.example.com.evil.net", False),
    ("[::1]", "[::1]", True),
    ("api.example.com", "api.example.com.", False),  # route_host takes it off before
    ("", "whatever", True),
    ("", "", True),
])  # fmt: skip
def test_hosts(pattern: str, host: str, matches: bool) -> None:
    assert (routed([(pattern, "")], host, "/") == 0) == matches


@pytest.mark.parametrize(("prefix", "path", "matches"), [
    ("/v1/", "/v1/", True),
    ("/v1/", "/v1/users?x=1", True),
    ("/v1/", "/v1", False),
    ("/v1/", "/V1/", False),
    ("/v1/", "/", False),
    ("/v1/", "", False),
    ("/v1", "/v10", True),
    ("/", "*", False),
    ("/", "", True),
    ("/", "?x", True),
    ("/v1/", "?x", False),
    ("", "*", True),
    ("", "", True),
])  # fmt: skip
def test_paths(prefix: str, path: str, matches: bool) -> None:
    assert (routed([("", prefix)], "x", path) == 0) == matches


def test_first_match_wins() -> None:
    routes = [("a.example.com", "/x/"), ("*.example.com", ""), ("a.example.com", "")]
    assert routed(routes, "a.example.com", "/x/1") == 0
    assert routed(routes, "a.example.com", "/") == 1
    assert routed(routes, "example.org", "/x/") is None


labels = st.text("ab.", max_size=6)


@given(st.lists(st.tuples(labels, st.text("/ab", max_size=3)), max_size=4), labels,
       st.text("/ab", max_size=5))  # fmt: skip
def test_against_a_model(routes: list[tuple[str, str]], host: str, path: str) -> None:
    def matches(pattern: str, prefix: str) -> bool:
        return pattern in ("", host) and (path or "/").startswith(prefix)

    expected = next((i for i, one in enumerate(routes) if matches(*one)), None)
    assert routed(routes, host.upper(), path) == expected


@given(labels, labels)
def test_wildcards_against_a_model(tail: str, host: str) -> None:
    expected = host.endswith("." + tail) and len(host) > len(tail) + 1
    assert (routed([("*." + tail, "")], host, "/") == 0) == expected


# ---- passed-through TLS ----


def tls_routed(routes: list[dict[str, str]], sni: str, *alpn: str) -> int | None:
    """The number of the route that a ClientHello matches; None: the default pool."""
    image = Setting(
        protocol="tls",
        routes=[("", "", 10 + number, one) for number, one in enumerate(routes)],
    ).image()
    pool = image.route_tls(0, sni.encode(), [one.encode() for one in alpn])
    return pool - 10 if pool >= 10 else None


@pytest.mark.parametrize(("pattern", "sni", "matches"), [
    ("api.example.com", "api.example.com", True),
    ("api.example.com", "API.Example.COM", True),
    ("api.example.com", "api.example.com.", True),
    ("api.example.com", "api.example.com..", False),
    ("api.example.com", "xapi.example.com", False),
    ("api.example.com", "", False),
    ("api.example.com", ".", False),
    ("*.example.com", "a.b.example.com", True),
    ("*.example.com", "A.Example.com.", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", ".example.com", False),
    ("*.example.com", "", False),
    ("*.example.com", "a.example.com.evil.net", False),
])  # fmt: skip
def test_server_names(pattern: str, sni: str, matches: bool) -> None:
    assert (tls_routed([{"sni": pattern}], sni) == 0) == matches


@pytest.mark.parametrize(("wanted", "offered", "matches"), [
    ("h2", ["h2"], True),
    ("h2", ["http/1.1", "h2"], True),
    ("h2", ["H2"], False),
    ("h2", ["h2c"], False),
    ("h2", ["h"], False),
    ("h2", [], False),
])  # fmt: skip
def test_protocols(wanted: str, offered: list[str], matches: bool) -> None:
    assert (tls_routed([{"alpn": wanted}], "", *offered) == 0) == matches


def test_both_must_hold_and_the_first_match_wins() -> None:
    routes = [{"sni": "a.example", "alpn": "h2"}, {"sni": "*.example"}, {"alpn": "h2"}]
    assert tls_routed(routes, "a.example", "h2") == 0
    assert tls_routed(routes, "a.example", "http/1.1") == 1
    assert tls_routed(routes, "b.test", "http/1.1", "h2") == 2
    assert tls_routed(routes, "b.test") is None


def test_routes_of_requests_match_no_hello() -> None:
    image = Setting(
        protocol="tls", routes=[("a.example", "", 1), ("", "/", 2), ("a.example", "/", 3)]
    ).image()
    assert image.route_tls(0, b"a.example", [b"h2"]) == 0
