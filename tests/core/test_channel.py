"""The worker's end of the channel: what it takes, what it refuses, and whose descriptors are
whose. The sender is the test itself."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from fastlb import channel
from fastlb.channel import ENTRY, HEADER, LEAVE, Entry, Kind, Message
from fastlb.plan import seal
from tests.harness import HttpNode, RawNode, reply, request, settings
from tests.harness.client import Client
from tests.harness.settings import ANY_PORT, changed
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, listen, no_descriptors, worker


def two_listeners(*nodes) -> dict:
    return settings(*nodes, server={"listen": [ANY_PORT, ANY_PORT]})


def sent_raw(w: WorkerProcess, data: bytes, *fds: int) -> None:
    socket.send_fds(w.channel, [data], list(fds))


def memory(data: bytes) -> int:
    return seal(data, 0)


# --- plans ---


def test_plan_is_acknowledged_with_its_generation() -> None:
    with HttpNode("a") as a, worker(None) as w:
        w.send_plan(settings(a))
        assert w.hear_any() == (Kind.ACK, 0, 1)
        assert w.hear_any() == (Kind.RELEASED, 0, 1)
        w.send_plan(settings(a))
        assert w.hear_any() == (Kind.ACK, 0, 2)
        assert w.hear_any() == (Kind.RELEASED, 0, 2)
        assert w.ask().node == "a"


def wrong_magic(blob: bytes) -> bytes:
    return b"XXXX" + blob[4:]


def other_layout(blob: bytes) -> bytes:
    return blob[:4] + struct.pack("=I", 999) + blob[8:]


def truncated(blob: bytes) -> bytes:
    return blob[:-1]


def only_a_beginning(blob: bytes) -> bytes:
    return blob[:20]


def other_build(blob: bytes) -> bytes:
    # stats_bytes, after magic, layout, bytes, generation, workers, columns, log_format
    return blob[:36] + struct.pack("=I", 1) + blob[40:]


def no_workers(blob: bytes) -> bytes:
    return blob[:24] + struct.pack("=I", 0) + blob[28:]


def trailing_bytes(blob: bytes) -> bytes:
    return blob + bytes(9000)


WRONG = [wrong_magic, other_layout, truncated, only_a_beginning, other_build, no_workers,
         trailing_bytes]  # fmt: skip


@pytest.fixture(scope="module")
def serving() -> Iterator[WorkerProcess]:
    with HttpNode("a") as a, worker(settings(a)) as w:
        yield w


@pytest.mark.parametrize("spoil", WRONG)
def test_wrong_plan_is_refused_and_the_one_before_stays(serving: WorkerProcess, spoil) -> None:
    with HttpNode("b") as b:
        blob = serving.blob(settings(b))
        serving.send_blob(spoil(blob), [])
        assert serving.hear() == (Kind.REFUSED, 0, serving.generation)
        assert serving.ask().node == "a"
        assert serving.stats["generation"] == 1
        assert serving.plans_mapped() == 1


def test_plan_that_names_no_session_cache_is_refused() -> None:
    ip = settings(persistence={"type": "ip"})
    with HttpNode("a") as a, worker(settings(a)) as w:
        ip["pools"]["web"]["nodes"] = [a]
        blob = w.blob(ip)
        offset = struct.pack("=QQ", *w.shared.stores.caches["shop"].place)
        assert blob.count(offset) == 1
        w.send_blob(blob.replace(offset, struct.pack("=QQ", w.shared.node_table, 4096)), [])
        assert w.hear() == (Kind.REFUSED, 0, 2)
        assert w.ask().node == "a"
        assert w.plans_mapped() == 1


def test_refused_before_any_plan_waits_for_a_better_one() -> None:
    with HttpNode("a") as a, worker(None) as w:
        w.send_blob(b"no plan", [])
        assert w.hear_any() == (Kind.REFUSED, 0, 0)
        w.use(settings(a))
        assert w.ask().node == "a"


def test_plan_without_its_descriptor_is_refused() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        channel.send(w.channel, Message(Kind.PLAN, 0, 7))
        assert w.hear() == (Kind.REFUSED, 0, 7)
        assert w.ask().node == "a"


# --- other messages ---


@pytest.mark.parametrize("data", [b"x", b"\1\0\0\0", HEADER.pack(9999, 0, 1)])
def test_what_is_no_message_is_ignored_and_its_descriptors_closed(data: bytes) -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        w.wait_turn()
        before = w.descriptors()
        fd = memory(b"anything")
        sent_raw(w, data, fd, fd)
        os.close(fd)
        w.use(settings(a))  # the next message: this one has been read
        assert w.ask().node == "a"
        w.wait_objects(clients=0)
        until(lambda: w.descriptors() <= before + 1, "descriptors closed")  # +1: pooled to a


# --- listeners ---


def test_listeners_are_adopted_and_given_up() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        one = w.descriptors()
        w.use(two_listeners(a))
        assert w.descriptors() == one + 1
        with Client(w.address(index=1)) as client:
            assert client.ask().node == "a"
        w.use(settings(a))
        until(lambda: not _holds(w, w.sockets["shop1"]), "the listener given up")
        assert w.ask().node == "a"


def _holds(w: WorkerProcess, one: socket.socket) -> bool:
    inode = f"socket:[{os.fstat(one.fileno()).st_ino}]"
    folder = f"/proc/{w.pid}/fd"
    found = False
    for name in os.listdir(folder):
        try:
            found = found or os.readlink(f"{folder}/{name}") == inode
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def test_connection_to_a_listener_that_was_given_up_is_left_alone() -> None:
    # The control process still has the socket open, so connections still queue there.
    with HttpNode("a") as a, worker(two_listeners(a)) as w:
        w.use(settings(a))
        with Client(w.address(index=1)) as nobody:
            nobody.send(request("/"))
            assert w.ask().node == "a"
            turns = w.stats["turns"]
            assert w.ask().node == "a"
            assert w.stats["turns"] < turns + 50  # does not spin on what is not its own
            connection, _ = w.sockets["shop1"].accept()
            connection.close()


def test_plan_and_connection_in_one_turn() -> None:
    with HttpNode("a") as a, worker(two_listeners(a)) as w:
        with w.frozen():
            w.send_plan(settings(a))
            waiting = [Client(w.address(index=1)) for _ in range(3)]
        assert w.hear() == (Kind.ACK, 0, 2)
        assert w.ask().node == "a"
        for client in waiting:
            client.sock.close()


def test_listener_of_a_known_id_is_not_taken_twice() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        before = w.descriptors()
        with listen() as other:
            w.send_blob(w.blob(settings(a)), [(Entry(0, 0), other.fileno())])
            assert w.hear() == (Kind.ACK, 0, 2)
        assert w.descriptors() == before
        assert w.ask().node == "a"


def test_descriptors_without_an_entry_are_closed() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        before = w.descriptors()
        blob = w.blob(settings(a))
        plan = memory(blob)
        with listen() as other:
            data = HEADER.pack(Kind.PLAN, 1, 2) + ENTRY.pack(0, False)
            sent_raw(w, data, plan, other.fileno(), other.fileno())
        os.close(plan)
        assert w.hear() == (Kind.ACK, 0, 2)
        assert w.descriptors() == before


def test_entries_that_are_not_there_are_not_read() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        before = w.descriptors()
        plan = memory(w.blob(settings(a)))
        with listen() as other:
            sent_raw(w, HEADER.pack(Kind.PLAN, 1000, 2) + ENTRY.pack(5, 1), plan, other.fileno())
        os.close(plan)
        assert w.hear() == (Kind.ACK, 0, 2)
        assert w.descriptors() == before
        assert w.ask().node == "a"


def test_many_listeners_in_one_plan() -> None:
    with HttpNode("a") as a, worker(None) as w:
        w.use(settings(a, server={"listen": [ANY_PORT] * 200}))
        for index in (0, 100, 199):
            with Client(w.address(index=index)) as client:
                assert client.ask().node == "a"


# --- the end ---


def slow_node() -> RawNode:
    def script(exchange) -> None:
        exchange.read_body()
        exchange.wait(exchange.node.go)
        exchange.send(reply(200, b"late"))

    node = RawNode(script)
    node.go = threading.Event()
    return node


def test_stop_without_requests_ends_at_once() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        channel.send(w.channel, Message(Kind.STOP, 0, 60_000))
        assert w.wait_end() == 0


def test_stop_lets_requests_end_and_takes_no_new_connection() -> None:
    with slow_node() as a, worker(settings(a)) as w:
        with w.client() as running:
            running.send(request("/"))
            a.wait_requests(1)
            channel.send(w.channel, Message(Kind.STOP, 0, 60_000))
            until(lambda: not _holds(w, w.sockets["shop0"]), "the listener given up")
            with w.client() as queued:
                queued.send(request("/queued"))
                a.go.set()
                assert running.response().body == b"late"
                running.sock.close()
                assert w.wait_end() == 0
                connection, _ = w.sockets["shop0"].accept()
                connection.close()
        assert [message.target for message in a.requests] == [b"/"]


def test_request_that_came_before_the_stop_is_answered() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        with w.frozen():
            with_request = w.client()
            with_request.send(request("/"))
            channel.send(w.channel, Message(Kind.STOP, 0, 5_000))
        with with_request as client:
            answer = client.response()
            assert (answer.status, answer.node) == (200, "a")
        assert w.wait_end() == 0


def test_request_on_an_idle_connection_that_came_before_the_stop_is_answered() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        client.ask()
        with w.frozen():
            channel.send(w.channel, Message(Kind.STOP, 0, 5_000))
            client.send(request("/"))
        answer = client.response()
        assert (answer.status, answer.node) == (200, "a")
        assert answer.get("Connection") == b"close"
        client.expect_closed()
        client.sock.close()
        assert w.wait_end() == 0


def test_plan_after_the_stop_opens_nothing() -> None:
    with slow_node() as a, worker(settings(a)) as w:
        with w.client() as running:
            running.send(request("/"))
            a.wait_requests(1)
            channel.send(w.channel, Message(Kind.STOP, 0, 60_000))
            w.send_plan(two_listeners(a))
            w.hear()
            assert not _holds(w, w.sockets["shop1"])
            a.go.set()
            assert running.response().body == b"late"
        assert w.wait_end() == 0


def test_control_process_gone_changes_nothing_for_clients() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        client.ask()
        before = w.descriptors()
        w.channel.close()
        until(lambda: w.descriptors() == before - 1, "the channel closed")
        assert client.ask().node == "a"
        for _ in range(20):
            assert w.ask().node == "a"
        assert w.process is not None
        assert w.process.poll() is None


# --- sockets that move between workers ---


def added(w: WorkerProcess, *entries: tuple[Entry, int]) -> None:
    channel.send_sockets(w.channel, entries)
    heeded(w)


def heeded(w: WorkerProcess) -> None:
    """The worker has dealt with what it was sent."""
    channel.send(w.channel, Message(Kind.PING, 0, 99))
    assert w.hear() == (Kind.PONG, 0, 99)


def test_several_sockets_of_one_listener_are_served() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, listen() as more, listen() as last:
        for number, one in ((1, more), (2, last)):
            added(w, (Entry(0, number), one.fileno()))
        for address in (w.address(), more.getsockname(), last.getsockname()):
            with Client(address) as client:
                assert client.ask().node == "a"


def test_what_is_queued_at_a_dropped_socket_waits_for_another() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, listen() as more:
        added(w, (Entry(0, 1), more.fileno()))
        before = w.descriptors()
        with w.frozen():
            channel.send_drop(w.channel, [Entry(0, 1), Entry(0, 7), Entry(9, 0)])
            queued = Client(more.getsockname())
        until(lambda: w.descriptors() == before - 1, "the socket given up")
        assert w.ask().node == "a"
        connection, _ = more.accept()
        connection.close()
        queued.sock.close()


def test_sockets_before_a_plan_and_of_unknown_listeners_are_closed() -> None:
    with HttpNode("a") as a, worker(None) as w, listen() as more:
        heeded(w)
        before = w.descriptors()
        added(w, (Entry(0, 1), more.fileno()))
        w.use(settings(a))
        added(w, (Entry(5, 0), more.fileno()))
        w.use(settings(a))
        assert w.descriptors() == before + 2  # its listener and the plan
        assert w.ask().node == "a"


def test_ping() -> None:
    with worker(None) as w:
        channel.send(w.channel, Message(Kind.PING, 0, 7))
        assert w.hear_any() == (Kind.PONG, 0, 7)


def test_one_that_leaves_serves_idle_clients_once_more_and_takes_plans() -> None:
    with HttpNode("a") as a, HttpNode("b") as b, worker(settings(a)) as w:
        with w.client() as idle, w.client() as fresh:
            idle.ask()
            w.wait_objects(clients=2)
            channel.send(w.channel, Message(Kind.STOP, LEAVE, 60_000))
            until(lambda: not _holds(w, w.sockets["shop0"]), "the listener given up")
            w.use(settings(b))
            assert not _holds(w, w.sockets["shop0"])
            for one in (idle, fresh):
                answer = one.ask()
                assert (answer.node, answer.get("Connection")) == ("b", b"close")
                one.expect_closed()
        assert w.wait_end() == 0


def test_one_that_leaves_can_be_told_to_stop_sooner() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as idle:
        idle.ask()
        channel.send(w.channel, Message(Kind.STOP, LEAVE, 60_000))
        channel.send(w.channel, Message(Kind.STOP, 0, 60_000))
        idle.expect_closed()
        idle.sock.close()
        assert w.wait_end() == 0


# --- a new control process ---


def test_a_new_control_process_is_shown_everything() -> None:
    with HttpNode("a") as a, worker(two_listeners(a)) as w, w.client() as client:
        client.ask()
        w.channel.close()
        w.channel = w.asked_for()
        hello = channel.receive_hello(w.channel)
        assert hello is not None
        assert hello[:5] == (1, 0, False, w.pid, 2)
        assert os.fstat(hello.segment).st_ino == os.fstat(w.shared.fd).st_ino
        assert hello.plan is not None
        assert os.readlink(f"/proc/self/fd/{hello.plan}").startswith("/memfd:fastlb-plan-1")
        held = dict(channel.receive_held(w.channel))
        assert {entry: one.getsockname() for entry, one in held.items()} == {
            Entry(0, 0): w.address(index=0),
            Entry(1, 0): w.address(index=1),
        }
        for one in held.values():
            one.close()
        os.close(hello.segment)
        os.close(hello.plan)
        w.channel.setblocking(False)
        assert w.hear_any() == (Kind.RELEASED, 0, 1)
        w.use(settings(a))
        assert client.ask().node == "a"


def test_nobody_is_heeded_while_there_is_a_control_process() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.asked_for() as other:
        w.use(settings(a))
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.recv(100)
        w.channel.close()
        other.settimeout(5)
        assert channel.receive_hello(other) is not None
        other.close()
        w.channel = w.asked_for()  # who went again was nobody
        hello = channel.receive_hello(w.channel)
        assert hello is not None
        w.channel.setblocking(False)


def test_who_asks_while_there_are_no_descriptors_is_heard_later() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        client.ask()
        w.channel.close()
        client.ask()  # it has noticed
        with no_descriptors(w.pid):
            w.channel = w.asked_for()
            client.ask()
            turns = w.stats["turns"]
            time.sleep(0.2)
            assert w.stats["turns"] < turns + 200  # it does not spin
        hello = channel.receive_hello(w.channel)
        assert hello is not None
        w.channel.setblocking(False)


def test_a_worker_without_a_plan_says_so() -> None:
    with worker(None) as w:
        w.channel.close()
        w.channel = w.asked_for()
        hello = channel.receive_hello(w.channel)
        assert hello is not None
        assert (hello.generation, hello.plan, hello.sockets) == (0, None, 0)
        os.close(hello.segment)
        w.channel.setblocking(False)


def test_more_sockets_than_one_message_carries_are_shown() -> None:
    with HttpNode("a") as a, worker(settings(a, server={"listen": [ANY_PORT] * 240})) as w:
        more = [listen() for _ in range(20)]
        added(w, *((Entry(0, number + 1), one.fileno()) for number, one in enumerate(more)))
        w.use(settings(a, server={"listen": [ANY_PORT] * 240}))
        w.channel.close()
        w.channel = w.asked_for()
        hello = channel.receive_hello(w.channel)
        assert hello is not None
        assert hello.sockets == 260
        shown = 0
        while shown < hello.sockets:
            some = channel.receive_held(w.channel)
            assert some
            shown += len(some)
            for _, one in some:
                one.close()
        for one in more:
            one.close()
        w.channel.setblocking(False)


# --- the access log ---


def test_log_is_written_to_the_new_file(tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    log = os.open(first, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with HttpNode("a") as a, worker(settings(a, access_log=str(first)), log) as w:
        w.ask("/one")
        w.wait_objects(clients=0)
        before = w.descriptors()
        other = os.open(second, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        channel.send(w.channel, Message(Kind.LOG, 0, 0), fds=(other,))
        os.close(other)
        w.use(settings(a, access_log=str(second)))
        w.ask("/two")
        until(second.read_text, "a line in the second log")
        assert "/one" in first.read_text()
        assert "/two" in second.read_text()
        assert "/two" not in first.read_text()
        w.wait_objects(clients=0)
        assert w.descriptors() == before
    os.close(log)


def test_log_is_switched_on_in_a_worker_that_had_none(tmp_path) -> None:
    file = tmp_path / "log"
    with HttpNode("a") as a, worker(settings(a, access_log="off")) as w:
        w.ask("/one")
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        channel.send(w.channel, Message(Kind.LOG, 0, 0), fds=(log,))
        os.close(log)
        w.use(changed(settings(a), "proxy.access_log", str(file)))
        w.ask("/two")
        until(file.read_text, "a line in the log")
        assert "/two" in file.read_text()


def test_log_becomes_a_socket_of_whole_lines(tmp_path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with HttpNode("a") as a, worker(settings(a, access_log=str(tmp_path / "log")), log) as w:
        channel.send(w.channel, Message(Kind.LOG, 1, 0), fds=(theirs.fileno(),))
        theirs.close()
        w.use(settings(a, access_log="syslog"))
        with w.client() as one, w.client() as two:
            w.wait_objects(clients=2)
            with w.frozen():  # both lines are written in one turn
                one.send(b"-\r\n\r\n")
                two.send(b"-\r\n\r\n")
            one.response(), two.response()
        ours.settimeout(5)
        assert [ours.recv(65536).count(b"\n") for _ in range(2)] == [1, 1]
    os.close(log)
    ours.close()


def test_log_message_with_two_descriptors_is_ignored(tmp_path) -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        before = w.descriptors()
        fd = memory(b"")
        channel.send(w.channel, Message(Kind.LOG, 0, 0), fds=(fd, fd))
        os.close(fd)
        w.use(settings(a))
        assert w.descriptors() == before
