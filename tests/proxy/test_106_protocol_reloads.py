"""A reload that gives a virtual server another protocol while clients are connected: new
connections speak the new one, and none that is open is taken for what it is not."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import HttpNode, Proxy, changed, proxy, settings
from tests.harness.certificates import Authority, Pair
from tests.harness.client import Client
from tests.harness.https import https
from tests.harness.tls_client import TlsClient

CLAIM = ("X-Client-Certificate", "verified")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, Pair]:
    return {"default": authority.certificate("default.test")}


@pytest.fixture
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


def demand_turned_away(p: Proxy, old: Client, target: str, *fields: tuple[str, str]) -> None:
    answer = old.ask(target, *fields)
    assert (answer.status, answer.get("Connection")) == (503, b"close")
    old.expect_closed()
    line = p.log_of(target)
    assert (line["client"], line["cause"]) == ("127.0.0.1", "stopped")


def test_from_http_to_https_and_back(pairs: dict[str, Pair], node: HttpNode) -> None:
    plain, secure = settings(node), https(pairs, node)
    with proxy(plain) as p:
        with p.client() as old:
            assert old.ask("/plain").status == 200
            assert p.reload(secure).returncode == 0
            with TlsClient(p.address()) as new:
                assert new.ask("/secure").status == 200
                demand_turned_away(p, old, "/still-plain")
                assert p.reload(plain).returncode == 0
                assert p.get("/plain-again").status == 200
                demand_turned_away(p, new, "/still-secure")
        told = [request.get("X-Forwarded-Proto") for request in node.requests]
        assert told == [b"http", b"https", b"http"]


def test_who_came_before_certificates_were_asked_for_cannot_say_he_has_one(
    authority: Authority, pairs: dict[str, Pair], node: HttpNode
) -> None:
    asks = {"client_certificates": "required", "client_ca": str(authority.file)}
    with proxy(settings(node)) as p, p.client() as old:
        assert old.ask("/before").status == 200
        assert p.reload(https(pairs, node, tls=asks)).returncode == 0
        demand_turned_away(p, old, "/after", CLAIM)
        assert [request.target for request in node.requests] == [b"/before"]


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_from_http_to_what_is_relayed(node: HttpNode, protocol: str) -> None:
    with proxy(settings(node)) as p, p.client() as old:
        assert old.ask("/before").status == 200
        assert p.reload(settings(node, server={"protocol": protocol})).returncode == 0
        demand_turned_away(p, old, "/after")


def test_a_request_that_runs_is_answered(pairs: dict[str, Pair], node: HttpNode) -> None:
    with proxy(settings(node)) as p, p.client() as old:
        old.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
        node.wait_requests(1)
        assert p.reload(https(pairs, node)).returncode == 0
        old.send(b"2")
        assert old.response().status == 200


def test_a_header_or_hello_in_two_parts_meets_what_is_in_force(
    pairs: dict[str, Pair], node: HttpNode
) -> None:
    trusting: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    before = settings(node, server=trusting)
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n"
    with proxy(before) as p, p.client() as half:
        half.send(header[:10])
        after = https(pairs, node, server=trusting)
        assert p.reload(after).returncode == 0
        half.send(header[10:] + b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
        assert half.response().status == 400
        with TlsClient(p.address(), first=header) as whole:
            assert whole.ask("/secure").status == 200
        assert p.log_of("/secure")["client"] == "192.0.2.7"
        assert p.reload(changed(before, "limits.body", "1KiB")).returncode == 0
        with p.client() as plain:
            plain.send(header)
            assert plain.ask("/last").status == 200
