"""Client connections between their requests: heads in pieces, buffers that grow and go, what
stays of a pipeline, and how a connection ends after an error."""

import itertools
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import HttpNode, RawNode, reply, request
from tests.harness import settings as configuration
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker

HEAD = (
    b"POST /some/path?with=query HTTP/1.1\r\nHost: shop.test\r\nX-Long: " + b"v" * 60 + b"\r\n"
    b"Cookie: a=1; b=2\r\nContent-Length: 5\r\n\r\nhello"
)
SMALL, LARGE = 16 * 1024, 64 * 1024


@pytest.fixture(scope="module")
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


@pytest.fixture(scope="module")
def w(node: HttpNode) -> Iterator[WorkerProcess]:
    config = configuration(
        node, limits={"headers": "48KiB", "request_line": "8KiB", "field": "56KiB"},
        timeouts={"client_header": "1s", "keep_alive": "1s"},
    )  # fmt: skip
    with worker(config) as running:
        yield running


# --- heads in pieces ---


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_head_in_equal_pieces(w: WorkerProcess, size: int) -> None:
    with w.client() as client:
        client.drip(HEAD, size)
        answer = client.response().json()
    assert (answer["target"], answer["body"]) == ("/some/path?with=query", 5)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(1, 2 * len(HEAD) - 1), max_size=6))
def test_two_requests_in_any_pieces(w: WorkerProcess, cuts: list[int]) -> None:
    data = HEAD + HEAD.replace(b"/some", b"/next")
    at = [0, *sorted(cuts), len(data)]
    with w.client() as client:
        for start, end in itertools.pairwise(at):
            client.send(data[start:end])
        targets = [answer.json()["target"] for answer in client.responses(2)]
    assert targets == ["/some/path?with=query", "/next/path?with=query"]


def test_each_event_of_a_head_in_pieces_is_one_turn(w: WorkerProcess) -> None:
    w.wait_objects(exchanges=0)  # of the test before this one
    with w.client() as client:
        for piece in (HEAD[:10], HEAD[10:50], HEAD[50:120]):
            client.send(piece)
            w.wait_objects(buffers=1)
        assert w.objects["exchanges"] == 0
        client.send(HEAD[120:])
        assert client.response().status == 200


# --- buffers ---


def test_idle_connection_holds_no_buffer(w: WorkerProcess) -> None:
    with w.client() as never, w.client() as once:
        once.ask()
        w.wait_objects(clients=2, exchanges=0, buffers=0)
        never.send(b"G")
        w.wait_objects(buffers=1)


def test_head_larger_than_a_small_buffer(w: WorkerProcess, node: HttpNode) -> None:
    value = "x" * (SMALL + 5000)
    with w.client() as client:
        answer = client.ask("/", ("X-Large", value))
        assert ["X-Large", value] in answer.json()["fields"]
        w.wait_objects(exchanges=0, buffers=0)
        assert client.ask("/after").status == 200


def test_large_head_in_pieces(w: WorkerProcess) -> None:
    data = request("/", ("X-Large", "y" * (2 * SMALL)))
    with w.client() as client:
        client.drip(data, 3001)
        assert client.response().status == 200


def test_head_of_the_limit_and_one_more(w: WorkerProcess) -> None:
    most = 56 * 1024
    frame = len(request("/", ("X", "")))
    with w.client() as client:
        assert client.ask("/", ("X", "z" * (most - frame))).status == 200
    with w.client() as client:
        client.send_if_open(request("/", ("X", "z" * (most - frame + 1))))
        assert client.response().status == 431


def test_endless_head_meets_the_limit_not_the_buffer(w: WorkerProcess) -> None:
    with w.client() as client:
        client.send_if_open(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"z" * (3 * LARGE))
        assert client.response().status == 431


# --- pipelines ---


def test_pipeline_longer_than_a_buffer(w: WorkerProcess) -> None:
    data = [request(f"/{number}", ("X-Fill", "f" * 700)) for number in range(120)]
    assert sum(map(len, data)) > LARGE
    with w.client() as client:
        client.send(*(b"".join(data[at : at + 40]) for at in range(0, 120, 40)))
        targets = [answer.json()["target"] for answer in client.responses(120)]
        assert targets == [f"/{number}" for number in range(120)]
        w.wait_objects(exchanges=0, buffers=0)


def test_request_that_begins_at_a_buffers_end(w: WorkerProcess) -> None:
    # The first fills the small buffer but for some bytes: the second is moved to the front.
    for rest in (1, 2, 30, 200):
        first = request("/first", ("X", "x" * 100))
        first = request("/first", ("X", "x" * (100 + SMALL - rest - len(first))))
        assert len(first) == SMALL - rest
        with w.client() as client:
            client.send(first + request("/second", ("Y", "y" * 3000)))
            targets = [answer.json()["target"] for answer in client.responses(2)]
            assert targets == ["/first", "/second"]


def test_body_with_the_next_head_behind_it(w: WorkerProcess) -> None:
    with w.client() as client:
        body = bytes(5 * SMALL)
        client.send(request("/one", method="POST", body=body) + request("/two"))
        one, two = client.responses(2)
        assert (one.json()["body"], two.json()["target"]) == (len(body), "/two")


# --- ends ---

WRONG = {
    "method": (b"-?\r\n\r\n", 400),
    "version": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "line": (b"GET /" + b"l" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    "host": (b"GET / HTTP/1.1\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_head_is_answered_and_the_connection_closed(w: WorkerProcess, case: str) -> None:
    data, status = WRONG[case]
    with w.client() as client:
        client.send(data)
        answer = client.response()
        assert (answer.status, answer.get("Connection")) == (status, b"close")
        client.expect_closed()


@pytest.mark.parametrize("unread", [100, SMALL, 10 * LARGE])
def test_error_answer_is_read_whole_though_bytes_were_unread(w: WorkerProcess, unread: int) -> None:
    # Without lingering the close would send a reset, which destroys the answer on its way.
    with w.client() as client:
        client.send_if_open(b"-?\r\n\r\n" + bytes(unread))
        answer = client.response()
        assert answer.status == 400
        for _ in range(3):
            client.send_if_open(bytes(1000))
        client.expect_closed()


def test_error_answer_over_a_unix_socket(tmp_path) -> None:
    with HttpNode("a") as a:
        config = configuration(a, server={"listen": [f"unix:{tmp_path}/s"]})
        with worker(config) as w, w.client() as client:
            client.send(b"-?\r\n\r\n" + bytes(100_000))
            assert client.response().status == 400
            assert client.reader.rest() == b""  # an end, and no reset
            client.send(bytes(1000))
            client.sock.close()
            w.wait_objects(clients=0)


def test_lingering_ends_when_the_client_closes(w: WorkerProcess) -> None:
    with w.client() as client:
        client.send(b"-?\r\n\r\n")
        client.response()
        assert w.objects["clients"] == 1
    w.wait_objects(clients=0)


def test_lingering_ends_by_itself(w: WorkerProcess) -> None:
    with w.client() as client:
        client.send(b"-?\r\n\r\n")
        client.response()
        client.expect_closed()
        w.wait_objects(clients=0, buffers=0)


def test_slow_head_is_answered_408(w: WorkerProcess) -> None:
    with w.client() as client:
        client.send(HEAD[:40])
        answer = client.answer_then_closed()
        assert answer is not None
        assert answer.status == 408


def test_silent_connection_is_closed_without_an_answer(w: WorkerProcess) -> None:
    with w.client() as client:
        assert client.answer_then_closed() is None


def test_idle_connection_is_closed_after_keep_alive(w: WorkerProcess) -> None:
    with w.client() as client:
        client.ask()
        client.expect_closed()
    w.wait_objects(clients=0)


def test_half_closed_after_its_request_is_answered(w: WorkerProcess) -> None:
    with w.client() as client:
        client.send(request("/"))
        client.half_close()
        assert client.response().status == 200
        client.expect_closed()


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_end_before_a_whole_head_closes(w: WorkerProcess, sent: bytes) -> None:
    with w.client() as client:
        client.send(sent)
        client.half_close()
        client.expect_closed()
    w.wait_objects(clients=0, buffers=0)


def test_reset_closes(w: WorkerProcess) -> None:
    client = w.client()
    client.send(b"GET / HT")
    w.wait_objects(buffers=1)
    client.reset()
    w.wait_objects(clients=0, buffers=0)


def test_without_a_buffer_the_connection_ends_and_others_go_on() -> None:
    with RawNode(reply(200, b"x")) as a:
        config = configuration(a, limits={"buffers": "16MiB"})
        with worker(config) as w:
            waiting = [w.client() for _ in range(16 * 16 + 1)]
            for client in waiting:
                client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * (SMALL + 1))
            until(lambda: w.stats["buffers_refused"], "the memory used up")
            for client in waiting:
                client.sock.close()
            w.wait_objects(clients=0, buffers=0)
            assert w.ask().status == 200


def test_many_idle_connections_cost_no_buffer(w: WorkerProcess) -> None:
    clients = [socket.create_connection(w.address(), 5) for _ in range(100)]
    for one in clients:
        one.sendall(request("/"))
    for one in clients:
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
    w.wait_objects(clients=100, exchanges=0, buffers=0)
    for one in clients:
        one.close()
