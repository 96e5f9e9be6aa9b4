"""Rules on the way of requests and responses: what they change is what the node, the client and
the log see, and what stands behind a changed head stays what it was."""

import hashlib
import ssl
from pathlib import Path

import pytest

from tests.harness import HttpNode, RawNode, proxy, settings
from tests.harness.certificates import Authority
from tests.harness.https import https
from tests.harness.rules import ruled
from tests.harness.settings import Config, changed
from tests.harness.tls_client import TlsClient, client_context, trusting_context
from tests.harness.wait import until
from tests.harness.wire import reply

IMPORT = "from fastlb import rule\n"


def rules(config: Config, *names: str) -> Config:
    return changed(config, "virtual_servers.shop.rules", [f"my:{name}" for name in names])


def request_rule(*lines: str, name: str = "route") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"{IMPORT}@rule.request\ndef {name}(request):\n{body}"


def response_rule(*lines: str, name: str = "edit") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"{IMPORT}@rule.response\ndef {name}(request, response):\n{body}"


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


@pytest.fixture
def b():
    with HttpNode("b") as one:
        yield one


# --- the changed request ------------------------------------------------------------------


def test_node_and_log_see_one_changed_head(a: HttpNode) -> None:
    text = request_rule("request.path = '/other'", "request.headers['X-New'] = '1'")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        assert client.ask("/asked", ("X-Kept", "yes")).start.split(b" ")[1] == b"200"
        line = p.log_of("/asked")
    (seen,) = a.requests
    assert seen.target == b"/other"
    assert (seen.get("X-New"), seen.get("X-Kept")) == (b"1", b"yes")
    assert line["target_sent"] == "/other"


@pytest.mark.parametrize("count", [0, 10, 900, 14_000, 15_900, 17_000, 24_000])
@pytest.mark.parametrize("gone", [0, 2_000])
def test_what_stands_behind_a_changed_head_stays(a: HttpNode, count: int, gone: int) -> None:
    """Body and pipelined requests in the same segment; the head grows beyond both buffers."""
    text = request_rule(
        "request.headers.add('X-Grown', 'g' * int(request.headers['X-Count']))",
        "del request.headers['X-Gone']",
    )
    head = b"Host: shop.test\r\nX-Gone: %s\r\nX-Count: %d\r\n" % (b"-" * gone, count)
    first = b"POST /1 HTTP/1.1\r\n" + head + b"Content-Length: 700\r\n\r\n" + b"1" * 700
    second = (
        b"POST /2 HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5\r\nabcde\r\n0\r\n\r\n"
    )
    third = b"GET /3 HTTP/1.1\r\n" + head + b"\r\n"
    limits = {"headers": "48KiB"}
    with proxy(rules(settings(a, limits=limits), "route"), ruled(my=text)) as p:
        with p.client() as client:
            client.send(first + second + third)
            assert [one.start[9:12] for one in client.responses(3)] == [b"200"] * 3
    assert [one.target for one in a.requests] == [b"/1", b"/2", b"/3"]
    assert [one.body for one in a.requests] == [b"1" * 700, b"abcde", b""]
    assert [len(one.get("X-Grown") or b"") for one in a.requests] == [count] * 3
    assert [one.get("X-Gone") for one in a.requests] == [None] * 3


def test_a_changed_head_is_sent_again_on_a_retry(a: HttpNode) -> None:
    """The pooled connection was closed by the node meanwhile."""
    text = request_rule("request.headers['X-New'] = 'n' * 20000", "request.path = '/new'")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        assert client.ask("/1").start.split(b" ")[1] == b"200"
        a.stop()
        a.start()
        assert client.ask("/2").start.split(b" ")[1] == b"200"
    assert a.requests[-1].target == b"/new"
    assert len(a.requests[-1].get("X-New") or b"") == 20000


def test_routes_are_asked_again_unless_a_rule_chose(a: HttpNode, b: HttpNode) -> None:
    text = request_rule(
        "if request.path == '/moved': request.path = '/b/'",
        "if request.path == '/chosen': request.path, request.pool = '/b/', 'web'",
        "if request.path == '/hosted': request.headers['Host'] = 'b.test'",
        "if request.path == '/pooled': request.pool = 'other'",
    )
    config = rules(settings(a), "route")
    config["pools"]["other"] = {"nodes": [b]}
    config["virtual_servers"]["shop"]["routes"] = [
        {"path": "/b/", "pool": "other"}, {"host": "b.test", "pool": "other"},
    ]  # fmt: skip
    with proxy(config, ruled(my=text)) as p, p.client() as client:
        for target in ("/", "/moved", "/chosen", "/hosted", "/pooled"):
            client.ask(target)
        lines = {line["target"]: line["pool"] for line in p.log(5)}
    assert lines == {
        "/": "web", "/moved": "other", "/chosen": "web", "/hosted": "other", "/pooled": "other",
    }  # fmt: skip
    assert [one.target for one in b.requests] == [b"/b/", b"/hosted", b"/pooled"]


def test_a_key_that_a_rule_sets_is_the_session(a: HttpNode, b: HttpNode) -> None:
    text = request_rule("request.persistence_key = request.headers['X-User']")
    config = settings(a, b, persistence={"type": "universal"})
    with proxy(rules(config, "route"), ruled(my=text)) as p, p.client() as client:
        for _ in range(3):
            for user in "abcde":
                client.ask("/", ("X-User", user))
        lines = p.log(15)
    nodes = [line["node"] for line in lines]
    assert nodes[5:10] == nodes[:5] == nodes[10:]
    assert len(set(nodes)) == 2
    assert {line["outcome"] for line in lines[5:]} == {"hit"}


def test_a_named_node_serves_also_on_a_retry(a: HttpNode, b: HttpNode) -> None:
    text = request_rule(f"request.persistence_node = '{b.address}'")
    config = settings(a, b, persistence={"type": "named"})
    with proxy(rules(config, "route"), ruled(my=text)) as p, p.client() as client:
        for _ in range(4):
            client.ask("/")
        b.stop()
        client.ask("/gone")
        line = p.log_of("/gone")
    assert len(b.requests) == 4
    assert (line["outcome"], line["node"]) == ("connect-failed", a.address)


# --- own answers --------------------------------------------------------------------------


def test_an_answer_of_a_rule(a: HttpNode) -> None:
    text = request_rule(
        "status = int(request.path[1:])",
        "body = b'' if status in (204, 304) else b'text'",
        "request.respond(status, body, headers={'X-Own': '1'})",
    )
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        for status in (200, 403, 204, 304, 404, 299):
            answer = client.ask(f"/{status}")
            assert answer.start.split(b" ")[1] == b"%d" % status
            assert answer.get("X-Own") == b"1"
            assert answer.get("Date") is not None
            bodiless = status in (204, 304)
            assert answer.body == (b"" if bodiless else b"text")
            assert answer.get("Content-Length") == (None if bodiless else b"4")
        client.send(b"HEAD /200 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        answer = client.response(b"HEAD")
        assert (answer.get("Content-Length"), answer.body) == (b"4", b"")
        line = p.log_of("/403")
    assert (line["cause"], line["rule"]) == ("rule-answered", "my:route")
    assert a.requests == []


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_to_a_client_of_either_version(a: HttpNode, version: bytes) -> None:
    text = request_rule("request.respond(200, b'x')")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        client.send(b"GET / HTTP/%s\r\nHost: shop.test\r\n\r\n" % version)
        answer = client.response()
        assert answer.body == b"x"
        if version == b"1.0":
            assert answer.get("Connection") == b"close"
            client.expect_closed()
        else:
            assert client.ask("/").body == b"x"


@pytest.mark.parametrize("count", [17_000, 70_000, 5_000_000])
def test_a_large_answer_needs_a_buffer_of_its_size(a: HttpNode, count: int) -> None:
    text = request_rule("request.respond(200, b'x' * int(request.headers['X-Count']))")
    config = rules(settings(a, limits={"buffers": "4MiB"}), "route")
    with proxy(config, ruled(my=text)) as p, p.client() as client:
        answer = client.ask("/", ("X-Count", str(count)))
        if count < 4_000_000:
            assert answer.body == b"x" * count
        else:
            assert answer.start.split(b" ")[1] == b"503"
            assert p.log_of("/")["cause"] == "no-buffer"


def test_an_answer_while_the_client_still_sends_its_body(a: HttpNode) -> None:
    text = request_rule("request.respond(403, b'no')")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\nbegin")
        answer = client.response()
        assert (answer.start.split(b" ")[1], answer.body) == (b"403", b"no")
        assert answer.get("Connection") == b"close"
        client.send_if_open(b"x" * 50_000)
        client.expect_closed()


def test_a_whole_request_with_a_body_leaves_the_connection_open(a: HttpNode) -> None:
    text = request_rule("request.respond(403, b'no')")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        for _ in range(2):
            client.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\n12345")
        assert [one.body for one in client.responses(2)] == [b"no", b"no"]


def test_close_ends_the_connection_without_an_answer(a: HttpNode) -> None:
    text = request_rule("if request.path == '/close': request.close()")
    with proxy(rules(settings(a), "route"), ruled(my=text)) as p, p.client() as client:
        assert client.ask("/").start.split(b" ")[1] == b"200"
        client.send(b"GET /close HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        client.expect_closed()
        line = p.log_of("/close")
    assert (line["cause"], line["rule"], line["status"]) == ("rule-closed", "my:route", 0)


# --- connections --------------------------------------------------------------------------


def test_connection_rules_run_once_and_hold_for_all_its_requests(a: HttpNode, b: HttpNode) -> None:
    text = (
        f"{IMPORT}counted = 0\n@rule.connection\ndef first(connection):\n"
        "    global counted\n    counted += 1\n    connection.pool = 'other'\n"
        "    connection.data['n'] = counted\n    connection.log['n'] = counted\n"
        "    connection.client_address = '192.0.2.7'\n"
        "@rule.request\ndef route(request):\n"
        "    request.headers['X-N'] = str(request.data['n'])\n    request.data['n'] = 'own'\n"
        "    if request.path == '/web': request.pool = 'web'\n"
    )
    config = rules(settings(a), "first", "route")
    config["pools"]["other"] = {"nodes": [b]}
    with proxy(config, ruled(my=text)) as p:
        for _ in range(2):
            with p.client() as client:
                for target in ("/", "/web", "/"):
                    client.ask(target)
        lines = p.log(6)
    assert [one.get("X-N") for one in a.requests] == [b"1", b"2"]
    assert [one.get("X-N") for one in b.requests] == [b"1", b"1", b"2", b"2"]
    assert [line["log"]["n"] for line in lines] == [1, 1, 1, 2, 2, 2]
    assert {line["client"] for line in lines} == {"192.0.2.7"}


def test_what_a_connection_chose_is_found_by_name_after_a_reload(a: HttpNode, b: HttpNode) -> None:
    text = f"{IMPORT}@rule.connection\ndef first(connection):\n    connection.pool = 'other'\n"
    config = rules(settings(a), "first")
    config["pools"]["other"] = {"nodes": [b]}
    more = changed(config, "pools", {"aaa": {"nodes": [a]}, **config["pools"]})
    less = changed(config, "pools", {"web": config["pools"]["web"]})
    less["virtual_servers"]["shop"]["rules"] = []
    with proxy(config, ruled(my=text)) as p, p.client() as client:
        seen = [client.ask("/1")]
        for new in (more, less):
            assert p.reload(new).returncode == 0
            seen.append(client.ask("/2"))
        lines = p.log(3)
    assert [line["pool"] for line in lines] == ["other", "other", "web"]


# --- responses ----------------------------------------------------------------------------


def test_response_rules_see_and_change_the_head_as_it_is_sent(a: HttpNode) -> None:
    text = response_rule(
        "response.headers['X-Served-By'] = str(response.node)",
        "response.headers.add('X-Cookies', str(len(response.headers.get_all('Set-Cookie'))))",
        "response.status = 202",
    )
    config = settings(a, persistence={"type": "transparent"})
    with proxy(rules(config, "edit"), ruled(my=text)) as p, p.client() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n" * 2)
            for answer in client.responses(2):
                assert answer.start.split(b" ")[1] == b"202"
                assert answer.get("X-Served-By") == a.address.encode()
                assert answer.get("X-Cookies") == b"1"
                assert b'"node": "a"' in answer.body
        assert {line["status"] for line in p.log(4)} == {202}


def test_an_answer_instead_of_the_nodes(a: HttpNode) -> None:
    text = response_rule("if response.status == 200: request.respond(404, b'gone')")
    node = RawNode(reply(200, b"secret" * 20_000))
    with node, proxy(rules(settings(node), "edit"), ruled(my=text)) as p, p.client() as client:
        for _ in range(3):
            answer = client.ask("/")
            assert (answer.start.split(b" ")[1], answer.body) == (b"404", b"gone")
        line = p.log(3)[0]
    assert (line["cause"], line["rule"], line["node"]) == ("rule-answered", "my:edit", node.address)


def test_rules_of_a_response_to_an_old_client(a: HttpNode) -> None:
    text = response_rule("response.headers['X-New'] = '1'")
    script = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with RawNode(script) as node, proxy(rules(settings(node), "edit"), ruled(my=text)) as p:
        with p.client() as client:
            client.send(b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")
            answer = client.response()
    assert (answer.get("X-New"), answer.body) == (b"1", b"abc")
    assert answer.get("Transfer-Encoding") is None


def test_an_upgrade_with_rules(a: HttpNode) -> None:
    text = request_rule("request.headers['X-New'] = 'n' * 17000") + response_rule(
        "response.headers['X-Status'] = str(response.status)"
    ).removeprefix(IMPORT)

    def script(x) -> None:
        x.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi"
        )
        x.send(x.read(5))
        x.read_rest()

    with RawNode(script) as node:
        with proxy(rules(settings(node), "route", "edit"), ruled(my=text)) as p:
            with p.client() as client:
                client.send(
                    b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\n"
                    b"Upgrade: echo\r\n\r\nab"
                )
                answer = client.response()
                assert answer.start.split(b" ")[1] == b"101"
                assert answer.get("X-Status") == b"101"
                client.send(b"cde")
                assert client.reader.exactly(7) == b"hiabcde"
            until(lambda: p.log_lines(), "the tunnel's line is written")


def test_a_server_without_rules_beside_one_with(a: HttpNode) -> None:
    text = request_rule("request.headers['X-New'] = '1'")
    config = rules(settings(a), "route")
    config["virtual_servers"]["plain"] = {"listen": ["127.0.0.1:0"], "pool": "web"}
    with proxy(config, ruled(my=text)) as p:
        with p.client() as client, p.client(server="plain") as other:
            client.ask("/")
            taken = p.status()["workers"][0]["gil_acquisitions"]
            for _ in range(50):
                other.ask("/plain")
            assert p.status()["workers"][0]["gil_acquisitions"] == taken
    assert [one.get("X-New") for one in a.requests] == [b"1"] + [None] * 50


# --- the log ------------------------------------------------------------------------------


def test_fields_of_the_log_in_both_formats(a: HttpNode) -> None:
    text = (
        request_rule("request.log['user'] = 'an\"na'", "request.log['n'] = 1", name="one")
        + request_rule("request.log['n'] = 2", "request.log['k'] = True", name="two")
        + response_rule("request.log['user'] = 'b, c: d'").removeprefix(IMPORT)
    )
    config = rules(settings(a), "one", "two", "edit")
    with proxy(config, ruled(my=text)) as p, p.client() as client:
        client.ask("/")
        assert p.log_of("/")["log"] == {"n": 2, "k": True, "user": "b, c: d"}
    combined = changed(config, "proxy.access_log_format", "combined")
    with proxy(combined, ruled(my=text)) as p, p.client() as client:
        client.ask("/")
        file = p.folder / "access.log"
        until(lambda: file.read_text().endswith("\n"), "the line is written")
        assert file.read_text().endswith('" "-" n="2" k="true" user="b, c: d"\n')


# --- keys that responses teach ------------------------------------------------------------


def test_a_response_rule_teaches_the_key_of_a_session(a: HttpNode, b: HttpNode) -> None:
    """The classic of universal persistence: nodes name sessions, requests come back with them."""
    text = (
        f"{IMPORT}@rule.request\ndef ask(request):\n"
        "    request.persistence_key = request.cookies.get('SID')\n"
        "@rule.response\ndef learn(request, response):\n"
        "    if 'SID' in response.cookies:\n"
        "        request.persistence_key = response.cookies['SID'].value\n"
    )
    a.extra, b.extra = (("Set-Cookie", "SID=of-a"),), (("Set-Cookie", "SID=of-b"),)
    config = settings(a, b, persistence={"type": "universal"})
    with proxy(rules(config, "ask", "learn"), ruled(my=text)) as p:
        for _ in range(2):
            with p.client() as client:
                client.ask("/first")
        for node in ("a", "b", "b", "a", "a"):
            with p.client() as client:
                answer = client.ask("/again", ("Cookie", f"SID=of-{node}"))
            assert answer.json()["node"] == node
        assert [line["outcome"] for line in p.log(7)[2:]] == ["hit"] * 5


# --- TLS ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "async "])
def test_what_is_known_where_tls_ends_here(a: HttpNode, tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path)
    alice = authority.certificate("alice", client=True)
    text = (
        f"import hashlib\n{IMPORT}@rule.request\n{kind}def route(request):\n"
        "    der = request.client_certificate\n"
        "    request.headers['X-Seen'] = repr((request.sni, request.alpn, request.tls_version,\n"
        "        request.client_subject, der and hashlib.sha256(der).hexdigest()))\n"
    )
    demands = {"client_certificates": "optional", "client_ca": str(authority.file)}
    pairs = {"shop.test": authority.certificate("shop.test")}
    with proxy(rules(https(pairs, a, tls=demands), "route"), ruled(my=text)) as p:
        context = trusting_context("1.3", tickets=False)
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(alice.certificate_path, alice.key_path)
        with TlsClient(p.address(), context, name="shop.test") as client:
            client.ask("/")
        with TlsClient(p.address(), client_context("1.2"), name="shop.test") as client:
            client.ask("/")
    digest = hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(alice.certificate_path.read_text())
    ).hexdigest()
    first, second = (one.get("X-Seen") or b"" for one in a.requests)
    assert first.decode() == repr(("shop.test", ("http/1.1",), "TLSv1.3", "CN=alice", digest))
    assert second.decode() == repr(("shop.test", (), "TLSv1.2", None, None))
