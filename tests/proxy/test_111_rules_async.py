"""Exchanges that wait for async rules: what comes meanwhile, who leaves, how it goes on, and the
bodies that rules ask for."""

import socket
from pathlib import Path

import pytest

from tests.harness import HttpNode, proxy, settings
from tests.harness.proxy import Proxy
from tests.harness.rules import ruled
from tests.harness.settings import Config, changed
from tests.harness.tcp import Peer, TcpNode
from tests.harness.wait import until
from tests.proxy.test_110_rules_path import IMPORT, rules

GATE = '''import asyncio, pathlib
from fastlb import rule
HERE = pathlib.Path(__file__).parent
async def gate(name):
    """Until the test makes the file of this name; tells that it waits, and that it was ended."""
    with open(HERE / "waiting", "a") as file:
        file.write(name + "\\n")
    try:
        while not (HERE / name).exists():
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        with open(HERE / "cancelled", "a") as file:
            file.write(name + "\\n")
        raise
'''
WAITS = (
    GATE
    + """
@rule.request
async def waits(request):
    await gate(request.headers["X-Gate"])
    request.path = request.path + "-done"
    request.headers["X-Waited"] = "w" * 17000
"""
)


def lines(p: Proxy, name: str) -> list[str]:
    file = p.folder / name
    return file.read_text().split() if file.exists() else []


def waiting(p: Proxy, count: int = 1) -> None:
    until(lambda: len(lines(p, "waiting")) >= count, "rules wait")


def cancelled(p: Proxy, count: int = 1) -> None:
    until(lambda: len(lines(p, "cancelled")) >= count, "rules were cancelled")


def open_gate(p: Proxy, name: str = "go") -> None:
    Path(p.folder / name).touch()


def request(target: str, gate: str = "go", *fields: str, body: bytes = b"") -> bytes:
    more = "".join(f"{field}\r\n" for field in fields)
    method = "POST" if body else "GET"
    head = f"{method} {target} HTTP/1.1\r\nHost: shop.test\r\nX-Gate: {gate}\r\n{more}"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@pytest.fixture
def a():
    with HttpNode("a") as one:
        yield one


def parked(a: HttpNode, *names: str, **more) -> Config:
    return changed(rules(settings(a, **more), *names), "rules.timeout", "20s")


def test_others_are_served_meanwhile_and_order_is_kept(a: HttpNode) -> None:
    """Bodies and pipelined requests behind the waiting one stay what they are."""
    text = WAITS.replace("    await gate(", "    if 'X-Gate' in request.headers: await gate(")
    with proxy(parked(a, "waits"), ruled(my=text)) as p:
        with p.client() as client, p.client() as other:
            client.send(request("/1", body=b"1" * 500) + request("/2") + request("/3"))
            waiting(p)
            assert other.ask("/other").start.split(b" ")[1] == b"200"
            client.send(request("/4", body=b"4" * 30_000))
            assert [one.target for one in a.requests] == [b"/other-done"]
            open_gate(p)
            assert [one.start.split(b" ")[1] for one in client.responses(4)] == [b"200"] * 4
    seen = a.requests[1:]
    assert [one.target for one in seen] == [b"/1-done", b"/2-done", b"/3-done", b"/4-done"]
    assert [len(one.body) for one in seen] == [500, 0, 0, 30_000]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_leaves_cancels(a: HttpNode, how: str) -> None:
    with proxy(parked(a, "waits"), ruled(my=WAITS)) as p:
        with p.client() as client:
            client.send(request("/1"))
            waiting(p)
            if how == "reset":
                client.reset()
        cancelled(p)
        line = p.log_of("/1")
    assert line["cause"] == "client-closed"
    assert a.requests == []


def test_a_chain_of_plain_and_async_rules(a: HttpNode) -> None:
    text = GATE + "import asyncio\n"
    for i, kind in enumerate(["", "async ", "async ", "", "async ", ""]):
        text += (
            f"@rule.request\n{kind}def r{i}(request):\n"
            f"    request.data.setdefault('seen', []).append({i})\n"
            f"    request.headers.add('X-Seen', ''.join(map(str, request.data['seen'])))\n"
            f"    request.log['r{i}'] = {i}\n"
        )
    names = [f"r{i}" for i in range(6)]
    text += "@rule.response\nasync def edit(request, response):\n"
    text += "    await asyncio.sleep(0)\n"
    text += "    response.headers['X-Data'] = str(request.data['seen'])\n"
    with proxy(parked(a, *names, "edit"), ruled(my=text)) as p, p.client() as client:
        for _ in range(5):
            answer = client.ask("/")
            assert answer.get("X-Data") == b"[0, 1, 2, 3, 4, 5]"
        log = p.log(5)[-1]["log"]
    expected = [b"0", b"01", b"012", b"0123", b"01234", b"012345"]
    assert a.requests[-1].all("X-Seen") == expected
    assert log == {f"r{i}": i for i in range(6)}


def test_async_answers_close_and_responses(a: HttpNode) -> None:
    text = GATE + (
        "@rule.request\nasync def waits(request):\n    await asyncio.sleep(0)\n"
        "    if request.path == '/no': request.respond(403, b'n' * 100000)\n"
        "    if request.path == '/close': request.close()\n"
        "@rule.response\nasync def edit(request, response):\n"
        "    await gate(request.headers.get('X-Gate', 'open'))\n"
        "    if request.path == '/gone': request.respond(404, b'gone')\n"
        "    response.headers['X-New'] = 'n' * 20000\n"
    )
    with proxy(parked(a, "waits", "edit"), ruled(my=text)) as p:
        open_gate(p, "open")
        with p.client() as client:
            assert client.ask("/no").body == b"n" * 100000
            assert len(client.ask("/yes").get("X-New") or b"") == 20000
            assert client.ask("/gone").body == b"gone"
            client.send(request("/late") + request("/later"))
            waiting(p, 3)
            open_gate(p)
            assert [len(one.get("X-New") or b"") for one in client.responses(2)] == [20000] * 2
            client.send(request("/close"))
            client.expect_closed()
        with p.client() as client:
            client.send(request("/left", "never"))
            until(lambda: "never" in lines(p, "waiting"), "the response rule waits")
        cancelled(p)


def test_a_rule_that_takes_too_long(a: HttpNode) -> None:
    config = changed(parked(a, "waits"), "rules.timeout", "50ms")
    with proxy(config, ruled(my=WAITS)) as p, p.client() as client:
        client.send(request("/1", "never"))
        assert client.response().start.split(b" ")[1] == b"200"
        assert a.requests[-1].target == b"/1"
        failing = changed(config, "rules.on_error", "500")
        assert p.reload(failing).returncode == 0
        client.send(request("/2", "never"))
        assert client.response().start.split(b" ")[1] == b"500"
        line = p.log_of("/2")
    assert (line["cause"], line["rule"]) == ("rule-failed", "my:waits")


@pytest.mark.parametrize("on_error", ["continue", "500"])
def test_more_than_may_wait(a: HttpNode, on_error: str) -> None:
    config = changed(parked(a, "waits"), "rules.parked", 3)
    config["rules"]["on_error"] = on_error
    with proxy(config, ruled(my=WAITS)) as p:
        clients = [p.client() for _ in range(3)]
        for client in clients:
            client.send(request("/1"))
        waiting(p, 3)
        with p.client() as one:
            answer = one.ask("/2", ("X-Gate", "go"))
            assert answer.start.split(b" ")[1] == (b"200" if on_error == "continue" else b"500")
        open_gate(p)
        for client in clients:
            with client:
                assert client.response().start.split(b" ")[1] == b"200"
        with p.client() as one:
            one.ask("/3", ("X-Gate", "go"))
    targets = sorted(one.target for one in a.requests)
    given = [b"/2"] if on_error == "continue" else []
    assert targets == [b"/1-done"] * 3 + given + [b"/3-done"]


def test_a_reload_while_it_waits(a: HttpNode) -> None:
    """It goes on by the plan and the functions that it began with."""
    config = parked(a, "waits")
    with proxy(config, ruled(my=WAITS)) as p, p.client() as client:
        client.send(request("/1"))
        waiting(p)
        (p.folder / "my.py").write_text(WAITS.replace("-done", "-new"))
        assert p.reload(config).returncode == 0
        with p.client() as other:
            other.send(request("/2"))
            waiting(p, 2)
            open_gate(p)
            assert other.response().start.split(b" ")[1] == b"200"
        assert client.response().start.split(b" ")[1] == b"200"
        assert p.reload(changed(config, "virtual_servers.shop.rules", [])).returncode == 0
        client.ask("/3")
    assert sorted(one.target for one in a.requests) == [b"/1-done", b"/2-new", b"/3"]


def test_a_worker_that_stops_cancels(a: HttpNode) -> None:
    with proxy(parked(a, "waits", timeouts={"drain": "0s"}), ruled(my=WAITS)) as p:
        clients = [p.client() for _ in range(20)]
        for client in clients:
            client.send(request("/1"))
        waiting(p, 20)
        p.stop()
        cancelled(p, 20)
        p.start()
        for client in clients:
            client.__exit__(None, None, None)


def test_hundreds_wait_at_one_time(a: HttpNode) -> None:
    with proxy(parked(a, "waits"), ruled(my=WAITS)) as p:
        clients = [p.client() for _ in range(300)]
        for client in clients:
            client.send(request("/1"))
        waiting(p, 300)
        for client in clients[::3]:
            client.reset()
        cancelled(p, 100)
        open_gate(p)
        for i, client in enumerate(clients):
            with client:
                if i % 3:
                    assert client.response().start.split(b" ")[1] == b"200"
    assert len(a.requests) == 200


def test_a_passage_waits(a: HttpNode) -> None:
    text = GATE + (
        "@rule.connection\nasync def first(connection):\n    await gate('go')\n"
        "    connection.pool = 'other'\n"
    )
    with TcpNode() as node, TcpNode() as other:
        config = rules(settings(node.address, server={"protocol": "tcp"}), "first")
        config["pools"]["other"] = {"nodes": [other.address]}
        config["rules"] = {"timeout": "20s"}
        with proxy(config, ruled(my=text)) as p:
            with Peer.connect(p.address()) as gone:
                waiting(p)
                gone.reset()
                cancelled(p)
            with Peer.connect(p.address()) as client:
                client.send(b"hello")
                waiting(p, 2)
                client.send(b" you")
                open_gate(p)
                there = other.accept()
                assert there.exactly(9) == b"hello you"
                there.send(b"yes")
                assert client.exactly(3) == b"yes"


# --- bodies -------------------------------------------------------------------------------

BODY = (
    "import hashlib\n"
    + IMPORT
    + """
@rule.request
async def waits(request):
    try:
        body = await request.body(limit=request.headers.get("X-Limit", "1MiB"))
    except rule.BodyTooLarge:
        request.headers["X-Seen"] = "too-large"
        return
    request.headers["X-Seen"] = f"{len(body)} {hashlib.md5(body).hexdigest()}"
    if request.headers.get("X-Answer"):
        request.respond(200, body[:10])
"""
)


def seen_of(body: bytes) -> bytes:
    import hashlib

    return f"{len(body)} {hashlib.md5(body).hexdigest()}".encode()


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("count", [0, 1, 5_000, 16_300, 70_000, 900_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_is_seen_whole_and_forwarded(a: HttpNode, count: int, framing: str) -> None:
    body = bytes(range(256)) * (count // 256) + b"x" * (count % 256)
    head = b"POST /1 HTTP/1.1\r\nHost: shop.test\r\n"
    if framing == "length":
        message = head + b"Content-Length: %d\r\n\r\n" % count + body
    else:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 3000)
    with proxy(parked(a, "waits"), ruled(my=BODY)) as p, p.client() as client:
        client.send(message + request("/2"))
        assert [one.start.split(b" ")[1] for one in client.responses(2)] == [b"200"] * 2
        # And once more in pieces, so that none of it is there when the rule asks.
        client.send(message[: len(head)])
        client.drip(message[len(head) :], size=max(1, len(message) // 7))
        assert client.response().start.split(b" ")[1] == b"200"
    first, second, third = a.requests
    assert first.body == third.body == body
    assert first.get("X-Seen") == third.get("X-Seen") == seen_of(body)
    assert (second.target, second.get("X-Seen")) == (b"/2", seen_of(b""))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_too_large_is_forwarded_all_the_same(a: HttpNode, framing: str) -> None:
    body = b"0123456789" * 20_000
    head = b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nX-Limit: 100KiB\r\n"
    if framing == "length":
        message = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 1000)
    with proxy(parked(a, "waits"), ruled(my=BODY)) as p, p.client() as client:
        client.send(message + request("/2"))
        assert [one.start.split(b" ")[1] for one in client.responses(2)] == [b"200"] * 2
    first, second = a.requests
    assert (first.body, first.get("X-Seen")) == (body, b"too-large")
    assert second.target == b"/2"


def test_the_client_is_told_to_go_on_once(a: HttpNode) -> None:
    head = b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\n"
    with proxy(parked(a, "waits"), ruled(my=BODY)) as p, p.client() as client:
        client.send(head + b"Content-Length: 5\r\n\r\n")
        assert client.reader.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abcde")
        answer = client.response()
        assert (answer.start.split(b" ")[1], answer.interim) == (b"200", [])
    (seen,) = a.requests
    assert (seen.body, seen.get("Expect"), seen.get("X-Seen")) == (
        b"abcde", None, seen_of(b"abcde"),
    )  # fmt: skip


def test_a_client_that_stops_in_the_middle(a: HttpNode) -> None:
    config = parked(a, "waits", timeouts={"client_body": "200ms"})
    with proxy(config, ruled(my=BODY)) as p, p.client() as client:
        client.send(b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nab")
        assert client.response().start.split(b" ")[1] == b"408"
        assert p.log_of("/1")["cause"] == "body-timeout"
        with p.client() as other:
            other.send(b"POST /2 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            other.send(b"5\r\nabcde\r\nwrong\r\n")
            assert other.response().start.split(b" ")[1] == b"400"
        assert p.log_of("/2")["cause"] == "bad-request-body"
    assert a.requests == []


def test_the_limit_of_bodies_holds(a: HttpNode) -> None:
    config = parked(a, "waits", limits={"body": "10KiB"})
    with proxy(config, ruled(my=BODY)) as p, p.client() as client:
        client.send(b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send_if_open(chunked(b"x" * 30_000, 500))
        assert client.response().start.split(b" ")[1] == b"413"
        assert p.log_of("/1")["cause"] == "body-too-large"


def test_an_answer_after_the_body_keeps_the_connection(a: HttpNode) -> None:
    with proxy(parked(a, "waits"), ruled(my=BODY)) as p, p.client() as client:
        for _ in range(3):
            client.send(request("/1", "go", "X-Answer: 1", body=b"0123456789" * 9000))
            assert client.response().body == b"0123456789"


def test_many_that_announce_much_take_no_memory(a: HttpNode) -> None:
    config = parked(a, "waits", limits={"buffers": "4MiB"})
    head = b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\n"
    with proxy(config, ruled(my=BODY)) as p:
        clients = [socket.create_connection(p.address()) for _ in range(40)]
        for one in clients:
            one.sendall(head + b"x" * 100)
        with p.client() as client:
            client.send(request("/2", body=b"x" * 50_000))
            assert client.response().start.split(b" ")[1] == b"200"
        for one in clients:
            one.close()
