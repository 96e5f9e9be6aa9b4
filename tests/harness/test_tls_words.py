"""The TLS words of the harness: client and node alone, so that a story through a proxy fails for
what the proxy does."""

import random
import ssl

import pytest

from fastlb._core import _testing_tls as core
from tests.core.handshakes import certificate, records
from tests.harness import Client
from tests.harness.chop import ByteNode, Chopper, reframed
from tests.harness.hellos import KINDS as KINDS_OF_HELLO
from tests.harness.hellos import hello_of
from tests.harness.nginx import Nginx
from tests.harness.openssl_server import OpensslServer, page_says_reused
from tests.harness.tls_client import (
    Kept,
    TlsClient,
    TlsUser,
    client_context,
    curl_https,
    gnutls,
    openssl,
)
from tests.harness.tls_node import TlsNode

PEM = certificate()
KINDS = [("1.2", False), ("1.2", True), ("1.3", True)]


def address(node):
    return node.host, node.port


@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_a_user_resumes_at_its_node_and_at_no_other(version, tickets):
    with TlsNode("a", PEM, tickets=tickets) as a, TlsNode("b", PEM, tickets=tickets) as b:
        user = TlsUser(address(a), version)
        assert [user.visit() for _ in range(3)] == ["a"] * 3
        user.address = address(b)
        user.visit()
        assert user.reused == [False, True, True, False]
        assert (a.full, a.reused, b.full, b.reused) == (1, 2, 1, 0)
        assert bool(user.session.has_ticket) == tickets


def test_a_node_that_forgot_refuses_a_resumption():
    with TlsNode("a", PEM, version="1.2") as a:
        user = TlsUser(address(a))
        user.visit()
        a.forget()
        user.visit()
    assert user.reused == [False, False]


def test_a_node_says_what_it_saw_of_the_handshake():
    with TlsNode("a", PEM, alpn=("h2", "http/1.1"), version="1.2") as a:
        context = client_context(alpn="http/1.1")
        with TlsClient(address(a), context, name="other.example.com") as client:
            answer = client.ask().json()
    assert (answer["sni"], answer["alpn"]) == ("other.example.com", "http/1.1")
    assert (answer["version"], answer["reused"]) == ("TLSv1.2", False)


def test_a_failed_handshake_is_counted_and_no_error_of_the_node():
    with TlsNode("a", PEM, version="1.3") as a:
        with pytest.raises(ssl.SSLError):
            TlsClient(address(a), client_context("1.2"))
    assert len(a.failed) == 1
    assert a.handshakes == []


@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_openssl_resumes_six_times_with_reconnect(version, tickets):
    options = ["-tls" + version.replace(".", "_"), *([] if tickets else ["-no_ticket"])]
    with TlsNode("a", PEM, one_by_one=True) as a:
        said = openssl(address(a), *options, "-reconnect")
    # With TLS 1.3 no ticket comes before the first data, for which -reconnect does not wait.
    assert said.reused == [False, *[version == "1.2"] * 5]
    assert [answer["reused"] for answer in said.answers] == [version == "1.2"]


@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_openssl_keeps_a_session_in_a_file(version, tickets, tmp_path):
    kept = Kept(tmp_path)
    options = ["-tls" + version.replace(".", "_"), *([] if tickets else ["-no_ticket"])]
    with TlsNode("a", PEM) as a:
        said = [openssl(address(a), *options, *kept.options()) for _ in range(3)]
    assert [each.reused for each in said] == [[False], [True], [True]]
    assert (a.full, a.reused) == (1, 2)


@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_gnutls_resumes(version, tickets):
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}{'' if tickets else ':%NO_TICKETS'}"
    with TlsNode("a", PEM, one_by_one=True) as a:
        said = gnutls(address(a), "--resume", "--priority", priority, "--waitresumption")
    assert said.reused == [False, True], said.text
    assert (a.full, a.reused) == (1, 1)


@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_curl_resumes(version, tickets):
    with TlsNode("a", PEM, tickets=tickets) as a:
        said = curl_https(address(a), 3, "--tls-max", version)
    assert said.reused == [False, True, True], said.text
    assert (a.full, a.reused) == (1, 2)


@pytest.mark.parametrize("options", [["-no_ticket"], []])
def test_an_openssl_server_tells_a_resumption(options, tmp_path):
    kept = Kept(tmp_path)
    with OpensslServer(PEM, "-tls1_2", *options) as server:
        said = [openssl(address(server), *kept.options()) for _ in range(2)]
    assert [page_says_reused(each.text) for each in said] == [False, True]
    assert [each.reused[0] for each in said] == [False, True]


@pytest.mark.parametrize("tickets", ["on", "off"])
def test_nginx_tells_a_resumption(tickets, tmp_path):
    with nginx(tickets) as server:
        said = curl_https(address(server), 3, "--tls-max", "1.2")
    assert said.reused == [False, True, True], said.text


def nginx(tickets):
    locations = f"""
    ssl_certificate both.pem; ssl_certificate_key both.pem;
    ssl_session_cache shared:one:1m; ssl_session_tickets {tickets};
    set $reused false;
    if ($ssl_session_reused = r) {{ set $reused true; }}
    location / {{ return 200 '{{"node": "$server_addr", "reused": $reused}}'; }}
    """
    return Nginx(locations, {"both.pem": PEM}, listen="ssl")


@pytest.mark.parametrize(("pieces", "framed"), [(1, 0), (0, 1), (7, 30)])
@pytest.mark.parametrize(("version", "tickets"), KINDS)
def test_chopped_and_reframed_handshakes_are_the_same_to_both_sides(
    version, tickets, pieces, framed
):
    with TlsNode("a", PEM, tickets=tickets) as a, Chopper(address(a), pieces, framed) as way:
        user = TlsUser(way.address, version, tickets)
        for _ in range(3):
            user.visit()
    assert user.reused == [False, True, True]


def test_reframed_records_carry_the_same():
    pick = random.Random(1)
    data = records(bytes(range(100))) + b"\x17\x03\x03\0\2ab"
    again = reframed(data, 3, pick)
    assert len(again) > len(data) + 33 * 4
    payload, at = b"", 0
    while again[at] == 22:
        count = again[at + 4]
        payload += again[at + 5 : at + 5 + count]
        at += 5 + count
    assert payload == bytes(range(100))
    assert again[at:] == b"\x17\x03\x03\0\2ab"


@pytest.mark.parametrize("kind", KINDS_OF_HELLO)
def test_a_recorded_hello_is_one(kind):
    assert core.client_hello(hello_of(kind))["records"] == len(hello_of(kind))


def test_a_byte_node_records_and_answers():
    with ByteNode("a", b"answer", 5) as node, Client(address(node)) as client:
        client.send(b"abc", b"de")
        assert client.reader.exactly(6) == b"answer"
        client.half_close()
        assert node.received() == b"abcde"
