"""Answers of a node that are no HTTP, or that have two meanings: a 502, never the raw bytes."""

import pytest

from tests.harness import RawNode, Truncated, proxy, reply, settings

OK = b"HTTP/1.1 200 OK\r\n"
BAD = [
    ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("garbage", b"\x00\x01\x02\x03" * 100 + b"\r\n\r\n"),
    ("HTTP/2", b"HTTP/2 200\r\n\r\n"),
    ("no status", b"HTTP/1.1 OK\r\n\r\n"),
    ("short status", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("long status", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("status below 100", b"HTTP/1.1 099 OK\r\n\r\n"),
    ("length and coding", OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("bad length", OK + b"Content-Length: 3x\r\n\r\nabc"),
    ("unknown coding", OK + b"Transfer-Encoding: gzip\r\n\r\nabc"),
    ("bad field", OK + b"X A: 1\r\nContent-Length: 0\r\n\r\n"),
    ("bare LF", OK + b"X-A: 1\nX-B: 2\r\nContent-Length: 0\r\n\r\n"),
    ("NUL", OK + b"X-A: 1\x00\r\nContent-Length: 0\r\n\r\n"),
    ("folded", OK + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"),
    ("space before colon", OK + b"Content-Length : 0\r\n\r\n"),
    ("endless head", OK + b"X-A: " + b"a" * 300_000 + b"\r\n\r\n"),
    ("too many fields", OK + b"X: 1\r\n" * 5000 + b"\r\n"),
    ("endless interim responses", b"HTTP/1.1 103 H\r\n\r\n" * 100_000),
]


@pytest.mark.parametrize("data", [pytest.param(d, id=n.replace(" ", "-")) for n, d in BAD])
def test_a_bad_head_is_a_502(data):
    def answer(exchange):
        exchange.send(data)
        exchange.wait_end()

    scripts = {"/bad": answer, "*": reply(200, b"good")}
    with RawNode(scripts) as node, proxy(settings(node, timeouts={"response": "2s"})) as p:
        assert p.get("/bad").status == 502
        assert p.get("/good").body == b"good"
        bad, _ = p.log(2)
    assert bad["cause"]
    assert len(node.connections) >= 2, "the connection of a bad answer was used again"


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("rest", [b"x\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"f" * 17 + b"\r\n"])
def test_a_bad_chunk_cuts_the_answer(rest):
    def answer(exchange):
        exchange.send(CHUNKED + b"2\r\nok\r\n" + rest + b"0\r\n\r\n")
        exchange.wait_end()

    with RawNode(answer) as node, proxy(settings(node)) as p:
        with pytest.raises((Truncated, ConnectionResetError)):
            answer_of_cut(p)


def answer_of_cut(p):
    """The answer; one that became a 502 before anything was forwarded is as good as a cut."""
    got = p.get()
    if got.status == 502:
        raise Truncated(b"")
