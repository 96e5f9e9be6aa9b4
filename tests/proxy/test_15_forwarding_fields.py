"""What a proxy must add and must take out: X-Forwarded-*, and the fields of one hop."""

import pytest

from tests.harness import Client, HttpNode, RawNode, proxy, reply, settings
from tests.harness.rules import ruled


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


EVERYTHING = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"]
FORGED = [
    ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"),
    ("Forwarded", "for=192.0.2.1;proto=https"), ("Via", "1.1 cache"),
]  # fmt: skip


@pytest.mark.parametrize("listed", ["", "close, X-Forwarded-For, X-Forwarded-Proto, "
                                        "X-Forwarded-Host, Forwarded, Via"])  # fmt: skip
@pytest.mark.parametrize("trusted", [False, True])
def test_all_fields_that_can_be_asked_for(trusted, listed):
    server = {"forwarded_fields": EVERYTHING}
    if trusted:
        server["trusted_proxies"] = ["127.0.0.77/32"]
    forged = [("Connection", listed)] if listed else []
    with HttpNode("a") as a, proxy(settings(a, server=server)) as p:
        answer = p.get("/", *forged, *FORGED, source="127.0.0.77")
    seen = [forwarded(answer, name) for name in EVERYTHING]
    ours = "for=127.0.0.77;proto=http;host=shop.test"
    if listed:
        assert seen == [["127.0.0.77"], ["http"], ["shop.test"], [ours], ["1.1 fastlb"]]
    elif trusted:
        assert seen == [
            ["192.0.2.1, 127.0.0.77"],
            ["https"],
            ["evil"],
            [f"for=192.0.2.1;proto=https, {ours}"],
            ["1.1 cache, 1.1 fastlb"],
        ]
    else:
        assert seen == [
            ["192.0.2.1, 127.0.0.77"],
            ["http"],
            ["shop.test"],
            [ours],
            ["1.1 cache, 1.1 fastlb"],
        ]
    assert answer.all("Via") == [b"1.1 fastlb"]


def test_none_of_them_where_none_is_asked_for():
    with HttpNode("a") as a, proxy(settings(a, server={"forwarded_fields": []})) as p:
        answer = p.get("/", *FORGED)
    assert answer.json()["fields"][1:] == [list(one) for one in FORGED]
    assert answer.all("Via") == []


def test_forwarded_over_ipv6_and_a_unix_socket(tmp_path):
    path = str(tmp_path / "shop.sock")
    server = {"listen": ["[::1]:0", f"unix:{path}"], "forwarded_fields": EVERYTHING}
    with HttpNode("a") as a, proxy(settings(a, server=server)) as p:
        answers = []
        for address in (p.address(), path):
            with Client(address) as client:
                answers.append(client.ask("/", host="[::1]:8080"))
    told = [forwarded(one, "Forwarded") for one in answers]
    assert told == [['for="[::1]";proto=http;host="[::1]:8080"'],
                    ['for=unknown;proto=http;host="[::1]:8080"']]  # fmt: skip
    assert [forwarded(one, "X-Forwarded-For") for one in answers] == [["::1"], []]


RULES = """
from fastlb import rule


@rule.request
def say(request):
    request.headers["X-Forwarded-Host"] = "rule.test"
    request.headers["Forwarded"] = "for=rule"
"""


def test_what_a_rule_says_of_the_way_is_kept():
    server = {"forwarded_fields": EVERYTHING, "rules": ["rules:say"]}
    with HttpNode("a") as a, proxy(settings(a, server=server), ruled(rules=RULES)) as p:
        answer = p.get("/", *FORGED, source="127.0.0.77")
    assert forwarded(answer, "X-Forwarded-Host") == ["rule.test"]
    assert forwarded(answer, "Forwarded") == ["for=rule, for=127.0.0.77;proto=http;host=shop.test"]


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
