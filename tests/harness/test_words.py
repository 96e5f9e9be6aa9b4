"""The harness itself: its words must be true before they judge a proxy."""

import threading
import tomllib
from pathlib import Path

import h11
import pytest

from tests.harness import (
    Client,
    HttpNode,
    Malformed,
    RawNode,
    Truncated,
    User,
    changed,
    chunks,
    proxy,
    reply,
    request,
    settings,
    sticky,
    toml,
    until,
)
from tests.harness.node import judge
from tests.harness.proxy import children
from tests.harness.reference import HaproxyReference


def address(node):
    return node.host, node.port


def test_a_node_records_the_exact_bytes():
    sent = request("/x", ("a", "1")) + request("/y", method="POST", body=b"12345")
    with RawNode() as node, Client(address(node)) as client:
        client.drip(sent, 7)
        client.responses(2)
    assert node.connections[0].received == sent
    assert [m.target for m in node.requests] == [b"/x", b"/y"]
    assert [(r.target, body) for r, body in node.recorded_requests()] == [
        (b"/x", b""), (b"/y", b"12345"),
    ]  # fmt: skip


def test_a_chunked_message_is_read_with_its_trailer():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawNode(answer + chunks(b"ab", b"c", trailers=(("T", "1"),))) as node:
        with Client(address(node)) as client:
            got = client.ask()
    assert (got.body, got.trailers, got.framing) == (b"abc", [(b"T", b"1")], "chunked")


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",
    ],
)
def test_a_truncated_answer_is_told_from_a_whole_one(body):
    def cut(exchange):
        exchange.send(body)
        exchange.close()

    with RawNode(cut) as node, Client(address(node)) as client:
        client.send(request())
        with pytest.raises(Truncated) as cut_short:
            client.response()
    assert cut_short.value.got == b"abc"


def test_a_reset_is_a_reset():
    with RawNode(lambda exchange: exchange.reset()) as node, Client(address(node)) as client:
        client.send(request())
        with pytest.raises(ConnectionResetError):
            client.response()


def test_a_node_sees_how_its_peer_ended():
    with RawNode() as node:
        with Client(address(node)) as client:
            client.ask()
        assert node.connections[0].ended.wait(10)
        client = Client(address(node))
        client.ask()
        client.reset()
        assert node.wait_connections(2)[1].ended.wait(10)
    assert [connection.end for connection in node.connections] == ["fin", "reset"]


def test_an_error_in_a_script_fails_the_test():
    def wrong(exchange):
        raise AssertionError("the script's own expectation")

    def story():
        with RawNode(wrong) as node, Client(address(node)) as client:
            client.send(request())
            client.expect_closed()

    with pytest.raises(AssertionError, match="own expectation"):
        story()


def test_an_ambiguous_message_is_refused_by_the_reader():
    two = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawNode(two) as node, Client(address(node)) as client:
        client.send(request())
        with pytest.raises(Malformed):
            client.response()


def test_the_judge_refuses_what_h11_refuses():
    with pytest.raises(h11.RemoteProtocolError):
        judge(b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: 1\r\n\r\n")


def test_a_node_stops_and_comes_back_at_its_port():
    with HttpNode("a") as node:
        port = node.port
        node.stop()
        with pytest.raises(ConnectionRefusedError):
            Client(address(node))
        node.start()
        assert node.port == port
        with Client(address(node)) as client:
            assert client.ask().node == "a"


def test_a_user_keeps_and_drops_cookies():
    scripts = [
        reply(200, b'{"node": "a"}', ("Set-Cookie", "k=v; Path=/"), ("Set-Cookie", "l=w")),
        reply(200, b'{"node": "a"}', ("Set-Cookie", "k=; Max-Age=0")),
    ]
    with RawNode(scripts) as node:
        user = User(address(node), "alice")
        user.get()
        assert user.cookies == {"k": "v", "l": "w"}
        user.get()
    assert user.cookies == {"l": "w"}
    assert node.requests[1].get("Cookie") == b"k=v; l=w"


def test_settings_become_the_same_toml():
    with HttpNode("a") as a:
        config = sticky(a, {"address": a, "weight": 3}, timeout="1h", limits={"body": "1MiB"})
        read = tomllib.loads(toml(config))
        other = changed(config, "pools.web.nodes", [a])
    assert read["pools"]["web"]["nodes"] == [a.address, {"address": a.address, "weight": 3}]
    assert read["persistence"]["shop"] == {"type": "transparent", "timeout": "1h"}
    assert len(config["pools"]["web"]["nodes"]) == 2
    assert len(other["pools"]["web"]["nodes"]) == 1


def test_a_failed_story_leaves_no_process():
    pids = []

    def story():
        with HttpNode("a") as a, proxy(changed(sticky(a), "proxy.workers", 2)) as p:
            pids.extend(p.worker_pids())
            assert sorted(children(p.process.pid)) == sorted(pids)
            raise AssertionError("the story")

    with pytest.raises(AssertionError, match="the story"):
        story()
    until(lambda: not any(map(running, pids)), "the workers' end")


def running(pid):
    """Whether there is such a process; one that only waits to be reaped has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_the_words_hold_with_haproxy_in_between():
    with HttpNode("a") as a, HttpNode("b") as b, proxy(sticky(a, b), HaproxyReference) as p:
        users = [p.user(f"u{n}") for n in range(7)]
        for _ in range(4):
            for user in users:
                user.get()
    assert [len(set(user.nodes)) for user in users] == [1] * 7
    assert {len(a.users), len(b.users)} == {3, 4}


def test_without_persistence_haproxy_fails_the_same_story():
    with HttpNode("a") as a, HttpNode("b") as b, proxy(settings(a, b), HaproxyReference) as p:
        user = p.user("alice")
        for _ in range(4):
            user.get()
    assert set(user.nodes) == {"a", "b"}


def test_a_script_waits_for_the_test_and_not_for_a_clock():
    go = threading.Event()

    def slow(exchange):
        exchange.wait(go)
        exchange.send(reply(200, b"now"))

    with RawNode(slow) as node, Client(address(node)) as client:
        client.send(request())
        node.wait_requests(1)
        go.set()
        assert client.response().body == b"now"
