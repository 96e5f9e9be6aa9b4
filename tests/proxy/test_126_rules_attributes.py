"""Every attribute that rules have, read and changed in a running proxy; each has a row here."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fastlb import rule
from tests.core.handshakes import certificate
from tests.harness import HttpNode, Message, next_host, proxy, settings, until
from tests.harness.certificates import Authority
from tests.harness.https import https
from tests.harness.rules import ruled
from tests.harness.tls_client import TlsClient, openssl, trusting_context
from tests.harness.tls_node import TlsNode

OF_CONNECTIONS = [
    "client_address", "client_port", "peer_address", "local_address", "local_port",
    "virtual_server", "protocol", "sni", "alpn", "tls_version", "client_subject",
    "client_certificate", "pool", "persistence", "persistence_key", "persistence_node",
    "log", "data",
]  # fmt: skip
OF_REQUESTS = [
    "method", "target", "path", "raw_path", "query", "raw_query", "http_version", "host",
    "headers", "cookies",
]  # fmt: skip
OF_RESPONSES = ["status", "reason", "headers", "cookies", "node", "timings"]

SEEN = f"""
import json
from fastlb import rule

def shown(value):
    if isinstance(value, bytes):
        return value.hex()
    return list(value.items()) if hasattr(value, "items") else value

def facts(it, names):
    return json.dumps({{name: shown(getattr(it, name)) for name in names}}, default=shown)

@rule.connection
def connection(connection):
    connection.log["virtual"] = connection.virtual_server
    connection.data["connection"] = facts(connection, {OF_CONNECTIONS!r})
    connection.log["facts"] = connection.data["connection"]

@rule.request
def request(request):
    seen = facts(request, {OF_CONNECTIONS + OF_REQUESTS!r})
    request.headers["X-Connection"] = request.data["connection"]
    request.headers["X-Request"] = seen

@rule.response
def response(request, response):
    seen = facts(response, {OF_RESPONSES!r})
    response.headers["X-Response"] = seen
    response.headers["X-Asked"] = facts(request, {OF_CONNECTIONS + OF_REQUESTS!r})
"""
RULES = ["my:connection", "my:request", "my:response"]


def attributes(of: type) -> set[str]:
    return {
        name
        for name in dir(of)
        if not name.startswith("_") and name not in {"respond", "redirect", "close", "body"}
    }


def test_no_attribute_is_missing_here() -> None:
    assert attributes(rule.Connection) == set(OF_CONNECTIONS)
    assert attributes(rule.Request) == set(OF_CONNECTIONS + OF_REQUESTS)
    assert attributes(rule.Response) == set(OF_RESPONSES)


@pytest.fixture
def a():
    with HttpNode("a", ("Set-Cookie", "left=1; Path=/"), ("X-Of", "a")) as one:
        yield one


def fields_of(node: HttpNode, name: str) -> dict[str, Any]:
    (seen,) = node.requests
    value = seen.get(name)
    assert value is not None
    found = json.loads(value)
    assert isinstance(found, dict)
    return found


def test_what_a_plain_connection_shows(a: HttpNode) -> None:
    config = settings(a, persistence={"type": "universal"}, server={"rules": RULES})
    source = next_host()
    with proxy(config, ruled(my=SEEN)) as p, p.client(source) as client:
        port = client.sock.getsockname()[1]
        message = client.ask("/a%20b/?x=1&x=%C3%A9&y", ("X-Two", "1"), ("x-two", "2"),
                             ("Cookie", "id=abc; other=1"))  # fmt: skip
        host, own_port = p.address()
    expected = {
        "client_address": source, "client_port": port, "peer_address": source,
        "local_address": host, "local_port": own_port, "virtual_server": "shop",
        "protocol": "http", "sni": None, "alpn": [], "tls_version": None,
        "client_subject": None, "client_certificate": None, "pool": "web",
        "persistence": "shop", "persistence_key": None, "persistence_node": None,
        "data": [],
    }  # fmt: skip
    seen = fields_of(a, "X-Connection")
    assert seen.pop("log") == [["virtual", "shop"]]
    assert seen == expected
    own = fields_of(a, "X-Request")
    assert own["headers"][1:] == [["X-Two", "1"], ["x-two", "2"], ["Cookie", "id=abc; other=1"]]
    assert {name: own[name] for name in OF_REQUESTS if name != "headers"} == {
        "method": "GET", "target": "/a%20b/?x=1&x=%C3%A9&y", "path": "/a b/",
        "raw_path": "/a%20b/", "query": [["x", "1"], ["x", "é"], ["y", ""]],
        "raw_query": "x=1&x=%C3%A9&y", "http_version": "HTTP/1.1",
        "host": own["headers"][0][1], "cookies": [["id", "abc"], ["other", "1"]],
    }  # fmt: skip
    assert {name: own[name] for name in expected if name != "data"} == {
        name: value for name, value in expected.items() if name != "data"
    }
    answered = json.loads(message.get("X-Response") or b"")
    assert (answered["status"], answered["reason"]) == (200, "Fine")
    assert answered["node"] == a.address
    assert ["X-Of", "a"] in answered["headers"]
    assert answered["cookies"] == [["left", [["Path", "/"]]]]
    connect, first_byte, seconds = answered["timings"]
    assert 0 <= connect <= first_byte <= seconds < 60
    asked = json.loads(message.get("X-Asked") or b"")
    assert asked["target"] == own["target"]
    assert asked["pool"] == "web"


def test_what_a_client_with_a_certificate_shows(a: HttpNode, tmp_path) -> None:
    authority = Authority(tmp_path)
    demands = {"client_certificates": "required", "client_ca": str(authority.file)}
    config = https(
        {"shop.test": authority.certificate("shop.test")}, a, tls=demands,
        server={"rules": RULES},
    )  # fmt: skip
    anna = authority.certificate("anna", client=True)
    context = trusting_context("1.3", True)
    context.load_cert_chain(anna.certificate_path, anna.key_path)
    context.set_alpn_protocols(["http/1.1"])
    with proxy(config, ruled(my=SEEN)) as p:
        with TlsClient(p.address(), context, name="shop.test") as client:
            client.ask("/")
    for seen in (fields_of(a, "X-Connection"), fields_of(a, "X-Request")):
        assert seen["protocol"] == "https"
        assert (seen["sni"], seen["alpn"]) == ("shop.test", ["http/1.1"])
        assert seen["tls_version"] == "TLSv1.3"
        assert seen["client_subject"] == "CN=anna"
        shown = anna.made.public_bytes(Encoding.DER)
        assert bytes.fromhex(seen["client_certificate"]) == shown


def test_what_a_passed_handshake_shows() -> None:
    with TlsNode("a", certificate()) as node:
        config = settings(node, server={"protocol": "tls", "rules": RULES[:1]})
        with proxy(config, ruled(my=SEEN)) as p:
            openssl(p.address(), "-servername", "shop.test", "-alpn", "http/1.1,h2")
            (line,) = p.log(1)
    seen = json.loads(line["log"]["facts"])
    assert (seen["protocol"], seen["tls_version"], seen["pool"]) == ("tls", None, "web")
    assert (seen["sni"], seen["alpn"]) == ("shop.test", ["http/1.1", "h2"])


# ---- changed: what the node gets ----


def at_node(part: str) -> Callable[[HttpNode, Message, dict[str, Any]], object]:
    def found(node: HttpNode, answer: Message, line: dict[str, Any]) -> object:
        seen = answer.json()
        if part == "":
            return f"{seen['method']} {seen['target']} HTTP/1.1"
        return next((value for name, value in seen["fields"] if name == part), "")

    return found


def in_log(name: str) -> Callable[[HttpNode, Message, dict[str, Any]], object]:
    return lambda node, answer, line: line.get(name)


def logged(name: str) -> Callable[[HttpNode, Message, dict[str, Any]], object]:
    return lambda node, answer, line: line["log"][name]


def at_client(part: str) -> Callable[[HttpNode, Message, dict[str, Any]], object]:
    def found(node: HttpNode, answer: Message, line: dict[str, Any]) -> object:
        return answer.start.decode() if part == "" else [v.decode() for v in answer.all(part)]

    return found


REQUEST_CHANGES = {
    "client_address": ("request.client_address = '192.0.2.7'", in_log("client"), "192.0.2.7"),
    "pool": ("request.pool = 'other'", in_log("pool"), "other"),
    "persistence": ("request.persistence = 'named'", in_log("class"), "named"),
    "no persistence": ("request.persistence = None", in_log("class"), None),
    "persistence_key": ("request.persistence_key = 'k'", in_log("found_in"), "cache"),
    "log": ("request.log['user'] = 'anna'", logged("user"), "anna"),
    "method": ("request.method = 'PUT'", at_node(""), "PUT /a%20b?x=1&y HTTP/1.1"),
    "target": ("request.target = '/c?d'", at_node(""), "GET /c?d HTTP/1.1"),
    "path": ("request.path = '/ä ?'", at_node(""), "GET /%C3%A4%20%3F?x=1&y HTTP/1.1"),
    "raw_path": ("request.raw_path = '/%2F'", at_node(""), "GET /%2F?x=1&y HTTP/1.1"),
    "raw_query": ("request.raw_query = 'q=%20'", at_node(""), "GET /a%20b?q=%20 HTTP/1.1"),
    "query set": ("request.query['x'] = 'é&'", at_node(""), "GET /a%20b?x=%C3%A9%26&y HTTP/1.1"),
    "query add": ("request.query.add('z', '2')", at_node(""), "GET /a%20b?x=1&y&z=2 HTTP/1.1"),
    "query del": ("del request.query['x']", at_node(""), "GET /a%20b?y HTTP/1.1"),
    "host": ("request.host = 'new.test'", at_node("Host"), "new.test"),
    "headers set": ("request.headers['X-A'] = '2'", at_node("X-A"), "2"),
    "headers add": ("request.headers.add('X-B', '3')", at_node("X-B"), "3"),
    "headers del": ("del request.headers['x-a']", at_node("X-A"), ""),
    "cookies set": ("request.cookies['id'] = 'new'", at_node("Cookie"), "id=new; other=1"),
    "cookies del": ("del request.cookies['id']", at_node("Cookie"), "other=1"),
    "respond": ("request.respond(423, 'x')", at_client(""), "HTTP/1.1 423 Locked"),
    "redirect": ("request.redirect('/login', 303)", at_client("Location"), ["/login"]),
    "redirect status": ("request.redirect('/l', 303)", at_client(""), "HTTP/1.1 303 See Other"),
}
RESPONSE_CHANGES = {
    "status": ("response.status = 404", at_client(""), "HTTP/1.1 404 Not Found"),
    "reason": ("response.reason = 'Good'", at_client(""), "HTTP/1.1 200 Good"),
    "headers": ("response.headers['X-Of'] = 'b'", at_client("X-Of"), ["b"]),
    "no header": ("del response.headers['X-Of']", at_client("X-Of"), []),
    "value": ("response.cookies['left'].value = '2'", at_client("Set-Cookie"), ["left=2; Path=/"]),
    "attribute": (
        "response.cookies['left']['Secure'] = True", at_client("Set-Cookie"),
        ["left=1; Path=/; Secure"],
    ),
    "set": (
        "response.cookies.set('new', '1')", lambda *a: at_client("Set-Cookie")(*a)[1][:5], "new=1",
    ),
    "del": ("del response.cookies['left']", at_client("Set-Cookie"), []),
    "log": ("request.log['status'] = response.status", logged("status"), 200),
    "respond": ("request.respond(503, 'x')", in_log("cause"), "rule-answered"),
    "redirect": ("request.redirect('/x')", at_client("Location"), ["/x"]),
}  # fmt: skip
CHANGES = [("request", name, *row) for name, row in REQUEST_CHANGES.items()]
CHANGES += [("response", name, *row) for name, row in RESPONSE_CHANGES.items()]


@pytest.fixture(scope="module")
def changing():
    """All changes in one proxy: the field X-Change names the one that is wanted."""
    lines = ["from fastlb import rule"]
    for kind in ("request", "response"):
        arguments = "request" if kind == "request" else "request, response"
        lines += [f"@rule.{kind}", f"def {kind}({arguments}):"]
        lines += ["    wanted = request.headers.get('X-Change')"]
        lines += ["    request.log['mark'] = request.headers['X-Mark']"]
        for of, name, line, *_ in CHANGES:
            if of == kind:
                lines += [f"    if wanted == {f'{kind} {name}'!r}:", f"        {line}"]
    with HttpNode("a", ("Set-Cookie", "left=1; Path=/"), ("X-Of", "a")) as node:
        rules = ["my:request", "my:response"]
        config = settings(
            node, persistence={"type": "universal"}, classes={"named": {"type": "named"}},
            server={"rules": rules},
        )  # fmt: skip
        config["pools"]["other"] = config["pools"]["web"]
        with proxy(config, ruled(my="\n".join(lines) + "\n")) as p:
            yield p, node


@pytest.mark.parametrize(
    ("kind", "name", "change", "where", "expected"),
    CHANGES,
    ids=[f"{row[0]}-{row[1]}" for row in CHANGES],
)
def test_what_can_be_changed(changing, kind, name, change, where, expected) -> None:
    p, node = changing
    fields = [("X-Change", f"{kind} {name}"), ("X-A", "1"), ("Cookie", "id=abc; other=1")]
    fields += [("X-Mark", f"{kind} {name}")]
    with p.client() as client:
        for _ in range(2):  # the second one meets what the first has taught
            before = len(p.log_lines())
            answer = client.ask("/a%20b?x=1&y", *fields)
            line = until(lambda at=before: p.log_lines()[at:], "the line")[0]
    assert where(node, answer, line) == expected
    assert "Traceback" not in p.stderr()


def test_a_named_node_and_a_closed_connection(a: HttpNode) -> None:
    text = (
        "from fastlb import rule\n@rule.request\ndef named(request):\n"
        "    if request.path == '/close': return request.close()\n"
        f"    request.persistence_node = '{a.address}'\n"
        "    request.log['node'] = request.persistence_node.address\n"
    )
    with HttpNode("b") as b:
        config = settings(b, a, persistence={"type": "named"}, server={"rules": ["my:named"]})
        with proxy(config, ruled(my=text)) as p, p.client() as client:
            for _ in range(3):
                client.ask("/")
            client.send(b"GET /close HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            client.expect_closed()
            lines = p.log(4)
    assert [line["node"] for line in lines[:3]] == [a.address] * 3
    assert {line["log"]["node"] for line in lines[:3]} == {a.address.rpartition(":")[0]}
    assert lines[3]["cause"] == "rule-closed"


READ_ONLY = [
    "client_port", "peer_address", "local_address", "local_port", "virtual_server", "protocol",
    "sni", "alpn", "tls_version", "client_subject", "client_certificate", "http_version",
]  # fmt: skip


def test_what_can_only_be_read_says_so(a: HttpNode) -> None:
    text = (
        "from fastlb import rule\n@rule.request\ndef wrong(request):\n"
        f"    for name in {READ_ONLY!r}:\n        try:\n"
        "            setattr(request, name, getattr(request, name))\n"
        "        except AttributeError as error:\n            request.log[name] = str(error)\n"
    )
    config = settings(a, server={"rules": ["my:wrong"]})
    with proxy(config, ruled(my=text)) as p, p.client() as client:
        client.ask("/")
        (line,) = p.log(1)
    assert set(line["log"]) == set(READ_ONLY)
    assert all(name in said for name, said in line["log"].items())
