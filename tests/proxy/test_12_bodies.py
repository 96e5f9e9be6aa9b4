"""Bodies of any size in both directions and codings, streamed with bounded memory."""

import hashlib
import threading

import pytest

from tests.harness import HttpNode, RawNode, chunks, proxy, reply, request, settings, until

MIB = 1 << 20


def pattern(count: int) -> bytes:
    """Bytes without a short period, so that a lost or doubled piece shows."""
    blocks = (hashlib.sha256(str(n).encode()).digest() for n in range(count // 32 + 1))
    return b"".join(blocks)[:count]


@pytest.mark.parametrize("count", [0, 1, 100, 16383, 16384, 16385, 65536, 200_001, 3 * MIB])
def test_content_length_both_ways(count):
    body = pattern(count)

    def echo(exchange):
        exchange.send(reply(200, exchange.read_body()))

    with RawNode(echo) as node, proxy(settings(node)) as p, p.client() as client:
        sender = threading.Thread(target=client.send, args=(request(method="POST", body=body),))
        sender.start()
        assert client.response().body == body
        sender.join()


@pytest.mark.parametrize("piece", [1, 10, 4096, 70_000])
def test_chunked_both_ways(piece):
    body = pattern(min(140_000, piece * 300))
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]

    def echo(exchange):
        assert exchange.read_body() == body
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks(*pieces))

    scripts = {"/": echo, "/next": reply(200, b"next")}
    with RawNode(scripts) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        sender = threading.Thread(target=client.send, args=(chunks(*pieces),))
        sender.start()
        answer = client.response()
        sender.join()
        assert (answer.framing, answer.body) == ("chunked", body)
        assert client.ask("/next").body == b"next"


def test_trailers_pass_both_ways():
    def answer(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(chunks(b"abc", trailers=(("X-Sum", "42"), ("X-More", "1"))))

    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(chunks(b"xyz", trailers=(("X-Up", "7"),)))
        got = client.response()
    assert got.trailers == [(b"X-Sum", b"42"), (b"X-More", b"1")]
    assert node.requests[0].trailers == [(b"X-Up", b"7")]


def test_chunk_extensions_do_not_disturb_the_body():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b'3;name=value\r\nabc\r\n2;q="a b"\r\nde\r\n0;last\r\n\r\n')
        assert client.response().json()["body"] == 5


def test_a_body_until_close_arrives_whole_and_ends_the_connection_or_is_chunked():
    body = pattern(300_000)

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\n", body)
        exchange.close()

    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        got = client.response()
    assert got.body == body
    assert got.framing in ("close", "chunked")


def test_a_slow_reader_stops_the_node_and_not_the_proxys_memory():
    total = 64 * MIB
    piece = pattern(MIB)
    sent = []

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // MIB):
            exchange.send(piece)
            sent.append(len(piece))

    with RawNode({"/big": answer, "*": reply(200)}) as node, proxy(settings(node)) as p:
        p.get()
        before = p.resident_kib()
        with p.client(receive_buffer=65536) as client:
            client.send(request("/big"))
            head = client.reader.until(b"\r\n\r\n")
            assert b" 200 " in head
            until(lambda: stalled(sent), "the node's sending stops")
            assert sum(sent) < total // 2
            assert p.resident_kib() - before < 8 * 1024
            digest = hashlib.sha256(client.reader.exactly(total)).digest()
        assert digest == hashlib.sha256(piece * (total // MIB)).digest()


def stalled(sent: list[int]) -> bool:
    """Nothing more was sent for a while: a look at the same number several times."""
    stalled.same = stalled.same + 1 if stalled.last == len(sent) else 0
    stalled.last = len(sent)
    return bool(sent) and stalled.same > 30


stalled.same = 0
stalled.last = -1


def test_a_slow_node_stops_the_client_and_not_the_proxys_memory():
    total = 128 * MIB  # the sockets on the way may hold 40 MiB
    body = pattern(MIB) * 128
    go = threading.Event()

    def answer(exchange):
        if exchange.request.method == b"POST":
            exchange.wait(go)
            assert exchange.read_body() == body
        exchange.send(reply(200))

    with RawNode(answer) as node, proxy(settings(node)) as p:
        p.get()
        before = p.resident_kib()
        with p.client() as client:
            client.send(request(method="POST", body=b"")[:-4].replace(b": 0", b": %d" % total))
            client.send(b"\r\n\r\n")
            sent = []

            def upload():
                for at in range(0, total, 65536):
                    client.send(body[at : at + 65536])
                    sent.append(at)

            sender = threading.Thread(target=upload)
            sender.start()
            until(lambda: stalled(sent), "the client's sending stops")
            assert len(sent) * 65536 < total // 2
            assert p.resident_kib() - before < 8 * 1024
            go.set()
            assert client.response().status == 200
            sender.join()


def test_twenty_uploads_at_once_are_not_mixed_up():
    def echo(exchange):
        exchange.send(reply(200, exchange.read_body()))

    results = {}

    def one(number, p):
        body = b"%03d" % number * 50_000
        with p.client() as client:
            client.send(request(method="PUT", body=body))
            results[number] = client.response().body == body

    with RawNode(echo) as node, proxy(settings(node)) as p:
        threads = [threading.Thread(target=one, args=(n, p)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == dict.fromkeys(range(20), True)
