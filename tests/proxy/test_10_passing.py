"""A request goes to the node and its answer comes back, byte for byte where nothing is ours."""

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings


def test_a_request_reaches_the_node_and_its_answer_the_client():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        answer = p.get("/hello?x=1")
        assert (answer.status, answer.node) == (200, "a")
        assert answer.json()["target"] == "/hello?x=1"


def test_everything_but_forwarding_fields_reaches_the_node_byte_for_byte():
    sent = [
        b"hOST: shop.test",
        b"Accept:text/html;q=0.1 , */*",
        b"x-lower: 1",
        b"X-UPPER: 2",
        b"x-lower: 3",
        b"X-Empty:",
        b"X-Eight-Bit: caf\xe9 \xff\x80",
        b'Cookie: a=1;b=2;  c="3"',
        b"X-Spaces:   two  inside   kept",
    ]
    target = b"/a%2Fb/%7e/../c;p=1?q=%41&&=%e9"
    with RawNode() as node, proxy(settings(node)) as p, p.client() as client:
        client.send(b"GET " + target + b" HTTP/1.1\r\n" + b"\r\n".join(sent) + b"\r\n\r\n")
        assert client.response().status == 200
    (got,) = node.requests
    assert got.start == b"GET " + target + b" HTTP/1.1"
    kept = [line for line in got.raw_fields if not line.lower().startswith(b"x-forwarded-")]
    assert kept == sent


def test_a_response_reaches_the_client_byte_for_byte():
    answer = (
        b"HTTP/1.1 299 Odd  reason \xe9\r\nServer: raw\r\nset-cookie: a=1\r\n"
        b"Set-Cookie: b=2; Path=/\r\nx-e: \xff\r\nX-Empty:\r\n"
        b"content-LENGTH: 3\r\nSET-COOKIE: c=3\r\n\r\nxyz"
    )
    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        got = client.response()
    assert got.head + got.body == answer


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "PROPFIND", "M-SEARCH"])
def test_any_method_token_passes(method):
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("/", method=method).json()["method"] == method


def test_the_asterisk_form_passes():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("*", method="OPTIONS").json()["target"] == "*"


def test_the_authority_of_an_absolute_target_is_the_host_that_the_node_sees():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("http://other.test/x", host="shop.test").status == 200
    (got,) = a.requests
    assert got.get("Host") == b"other.test"


def test_a_node_that_listens_on_ipv6_is_reached():
    with HttpNode("six", host="::1") as six, proxy(settings(six)) as p:
        assert p.get().node == "six"


def test_a_client_may_come_over_ipv6_and_over_a_unix_socket(tmp_path):
    path = str(tmp_path / "shop.sock")
    server = {"listen": ["[::1]:0", f"unix:{path}"]}
    with HttpNode("a") as a, proxy(settings(a, server=server)) as p:
        from tests.harness import Client

        for address in (p.address(), path):
            with Client(address) as client:
                assert client.ask().node == "a"


def test_no_node_answers_503_without_a_cookie():
    gone = RawNode()
    with gone:
        address = gone.address
    with proxy(settings(address, persistence={"type": "transparent"})) as p:
        answer = p.get()
        assert answer.status in (502, 503)
        assert answer.all("Set-Cookie") == []


def test_h11_reads_what_is_forwarded_as_it_was_meant():
    with RawNode(reply(200)) as node, proxy(settings(node)) as p, p.client() as client:
        client.ask("/one", ("X-A", "1"), method="POST", body=b"12345")
        client.ask("/two", ("Cookie", "x=y"))
    judged = [(r.method, r.target, body) for r, body in node.recorded_requests()]
    assert judged == [(b"POST", b"/one", b"12345"), (b"GET", b"/two", b"")]
