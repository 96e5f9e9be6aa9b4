"""What a proxy must add and must take out: X-Forwarded-*, and the fields of one hop."""

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, settings


def forwarded(answer, name):
    return [v for k, v in answer.json()["fields"] if k.lower() == name.lower()]


def test_the_node_learns_client_address_and_protocol():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        answer = p.get(source="127.0.0.77")
    assert forwarded(answer, "X-Forwarded-For") == ["127.0.0.77"]
    assert forwarded(answer, "X-Forwarded-Proto") == ["http"]


def test_the_true_peer_is_the_last_x_forwarded_for_entry():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        answer = p.get("/", ("X-Forwarded-For", "192.0.2.1, 192.0.2.2"), source="127.0.0.77")
    entries = ", ".join(forwarded(answer, "X-Forwarded-For")).replace(" ", "").split(",")
    assert entries == ["192.0.2.1", "192.0.2.2", "127.0.0.77"]


def test_several_x_forwarded_for_fields_keep_their_order():
    fields = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2")]
    with HttpNode("a") as a, proxy(settings(a)) as p:
        answer = p.get("/", *fields, source="127.0.0.77")
    entries = ", ".join(forwarded(answer, "X-Forwarded-For")).replace(" ", "").split(",")
    assert entries == ["192.0.2.1", "192.0.2.2", "127.0.0.77"]


def test_a_forged_x_forwarded_proto_is_overwritten():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        answer = p.get("/", ("X-Forwarded-Proto", "https"), ("x-forwarded-proto", "https"))
    assert forwarded(answer, "X-Forwarded-Proto") == ["http"]


HOP = [
    ("Connection", "X-One, x-two"),
    ("X-One", "1"),
    ("X-Two", "2"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("TE", "gzip"),
    ("Upgrade", "h2c"),
    ("X-Three", "3"),
]
GONE = {"x-one", "x-two", "keep-alive", "proxy-connection", "te", "upgrade"}


def test_hop_by_hop_fields_of_a_request_stay_here():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        p.get("/", *HOP)
    names = {k.lower().decode() for k, _ in a.requests[0].fields}
    assert not names & GONE
    assert "x-three" in names
    assert b"x-one" not in b",".join(a.requests[0].all("Connection")).lower()


def test_hop_by_hop_fields_of_a_response_stay_here():
    with RawNode(reply(200, b"x", *HOP)) as node, proxy(settings(node)) as p:
        answer = p.get()
    names = {k.lower().decode() for k, _ in answer.fields}
    assert not names & GONE
    assert "x-three" in names


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding", "Cookie"])
def test_a_request_cannot_remove_host_framing_or_cookies_by_listing_them(name):
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        fields = [("Connection", name), ("Cookie", "x=1")]
        answer = client.ask("/", *fields, method="POST", body=b"12345")
        assert answer.json()["body"] == 5
        assert client.ask("/next").json()["target"] == "/next"
    assert a.requests[0].get("Host") == b"shop.test"
    if name != "Cookie":
        assert a.requests[0].get("Cookie") == b"x=1"


def test_a_response_cannot_remove_its_framing_by_listing_it():
    answer = reply(200, b"12345", ("Connection", "Content-Length"))
    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        assert client.ask("/1").body == b"12345"
        assert client.ask("/2").body == b"12345"


def test_set_cookie_lines_of_a_node_stay_separate():
    fields = [("Set-Cookie", f"c{n}=1; Path=/") for n in range(10)]
    with RawNode(reply(200, b"", *fields)) as node, proxy(settings(node)) as p:
        assert p.get().all("Set-Cookie") == [value.encode() for _, value in fields]
