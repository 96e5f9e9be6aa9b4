"""Interim responses, Expect: 100-continue, and final answers that come early."""

import threading

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings, sticky

EXPECT = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_the_client_gets_the_nodes_100_before_it_sends_the_body():
    def answer(exchange):
        assert exchange.request.get("Expect") == b"100-continue"
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.send(reply(200, exchange.read_body()))

    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(EXPECT)
        assert client.reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"12345")
        assert client.response().body == b"12345"
        client.send(EXPECT)
        assert client.reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"abcde")
        assert client.response().body == b"abcde"


def test_a_final_answer_instead_of_100_means_the_body_is_not_sent():
    def refuse(exchange):
        exchange.send(reply(417, b"no"))
        exchange.wait_end()

    with RawNode(refuse) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(EXPECT)
        answer = client.response()
        assert (answer.status, answer.body, answer.interim) == (417, b"no", [])
    assert node.connections[0].received.endswith(b"\r\n\r\n")


def test_a_client_that_does_not_wait_for_100_is_served_all_the_same():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        client.send(EXPECT + b"12345" + request("/next"))
        first, second = client.responses(2)
    assert first.json()["body"] == 5
    assert second.json()["target"] == "/next"


def test_every_interim_response_reaches_a_1_1_client():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 X\r\nLink: </b>\r\n\r\n")
        exchange.send(reply(200, b"done"))

    with RawNode(answer) as node, proxy(sticky(node)) as p, p.client() as client:
        client.send(request())
        got = client.response()
    assert [each.status for each in got.interim] == [103, 102, 103]
    assert got.interim[0].get("Link") == b"</a.css>"
    assert got.body == b"done"
    assert all(each.all("Set-Cookie") == [] for each in got.interim)
    assert len(got.all("Set-Cookie")) == 1


def test_interim_and_final_response_in_one_segment():
    both = b"HTTP/1.1 103 H\r\nLink: <x>\r\n\r\n" + reply(200, b"both")
    with RawNode(both) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        got = client.response()
        assert (len(got.interim), got.body) == (1, b"both")
        assert client.ask().body == b"both"


def test_a_1_0_client_gets_no_interim_response():
    both = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\n\r\n" + reply(200, b"only")
    with RawNode(both) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request(version="1.0"))
        got = client.response()
    assert (got.interim, got.body) == ([], b"only")


def test_an_early_final_answer_reaches_a_client_that_is_still_sending():
    def refuse(exchange):
        exchange.read(1000)
        exchange.send(reply(413, b"too much", ("Connection", "close")))
        exchange.wait_end()

    with RawNode(refuse) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request(method="POST", body=b"")[:-4].replace(b": 0", b": 100000000"))
        client.send(b"\r\n\r\n")
        stop = threading.Event()

        def upload():
            while not stop.is_set():
                client.send_if_open(b"x" * 1000)

        sender = threading.Thread(target=upload)
        sender.start()
        answer = client.response()
        stop.set()
        client.sock.shutdown(2)
        sender.join()
    assert (answer.status, answer.body) == (413, b"too much")


def test_an_early_answer_from_a_node_that_reads_on_keeps_the_exchange_in_order():
    def early(exchange):
        exchange.send(reply(200, b"early"))

    with RawNode(early) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request(method="POST", body=b"x" * 500_000))
        assert client.response().body == b"early"
        client.send_if_open(request("/next"))
        assert client.response().body == b"early"
