"""What a passage holds in a real worker, what it counts, and how its ends are told apart.

The stories in tests/proxy tell what clients and nodes see."""

import socket
import time

import pytest

from fastlb import channel
from fastlb._core.node import read_slot
from fastlb.channel import Kind, Message
from tests.harness import settings
from tests.harness.settings import Config
from tests.harness.tcp import Peer, TcpNode
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker

NOTHING = {"clients": 0, "exchanges": 0, "node_connections": 0, "buffers": 0, "pipes": 0}


def tcp(*nodes: TcpNode, **more) -> Config:
    more.setdefault("timeouts", {})
    return settings(*[one.address for one in nodes], server={"protocol": "tcp"}, **more)


def load(w: WorkerProcess, slot: int = 0) -> int:
    return read_slot(w.shared.address(w.shared.node_table), slot, 1)["connections"]


def causes(w: WorkerProcess) -> dict[str, int]:
    return w.stats["causes"]


def test_an_open_one_that_is_silent_holds_no_buffer() -> None:
    with TcpNode() as a, worker(tcp(a)) as w, Peer.connect(w.address()) as client:
        there = a.accept()
        for _ in range(3):
            client.send(b"x" * 3000)
            assert len(there.exactly(3000)) == 3000
            there.send(b"y" * 90000)
            assert len(client.exactly(90000)) == 90000
        w.wait_objects(clients=1, exchanges=1, node_connections=1, buffers=0, pipes=0)
        assert load(w) == 1


@pytest.mark.parametrize("first", ["client", "node"])
def test_a_half_closed_one_holds_no_buffer(first: str) -> None:
    with TcpNode() as a, worker(tcp(a)) as w, Peer.connect(w.address()) as client:
        ends = [client, a.accept()]
        if first == "node":
            ends.reverse()
        one, other = ends
        one.send(b"last words")
        one.half_close()
        assert other.rest() == b"last words"
        w.wait_objects(clients=1, exchanges=1, node_connections=1, buffers=0, pipes=0)
        other.send(b"answer")
        other.half_close()
        assert one.rest() == b"answer"
        w.wait_objects(**NOTHING)
        assert load(w) == 0
        assert causes(w) == {}


def test_it_is_connected_before_the_client_says_anything() -> None:
    with TcpNode() as a, worker(tcp(a)) as w, Peer.connect(w.address()) as client:
        a.accept().send(b"220 ready")
        assert client.exactly(9) == b"220 ready"


def test_what_is_counted() -> None:
    with TcpNode() as a, worker(tcp(a, persistence={"type": "ip"})) as w:
        for _ in range(3):
            with Peer.connect(w.address()) as client:
                client.send(b"12345")
                there = a.accept()
                assert there.exactly(5) == b"12345"
                there.send(b"123")
                there.half_close()
                assert client.rest() == b"123"
        w.wait_objects(**NOTHING)
        server, node = w.server_stats(), w.node_stats()
        assert (server["accepted"], server["requests"], server["connections"]) == (3, 3, 0)
        assert (server["bytes_in"], server["bytes_out"]) == (15, 9)
        assert server["statuses"][0] == 3
        assert (node["requests"], node["connects"], node["sessions"]) == (3, 3, 1)
        assert node["reuses"] == node["idle"] == 0


@pytest.mark.parametrize(("who", "cause"), [
    ("client", "client-closed"), ("node", "node-closed"),
])  # fmt: skip
def test_a_reset_reaches_the_other_side(who: str, cause: str) -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        client = Peer.connect(w.address())
        ends = {"client": client, "node": a.accept()}
        client.send(b"x")
        assert ends["node"].exactly(1) == b"x"
        ends.pop(who).reset()
        (other,) = ends.values()
        assert other.end() == "reset"
        w.wait_objects(**NOTHING)
        assert causes(w) == {cause: 1}


def test_a_node_that_gives_up_silent_clients_is_well() -> None:
    """However many of them there are; only a reset at the beginning is a failure."""
    passive = {"failures": 2, "backoff": "1h", "backoff_max": "1h"}
    with TcpNode() as a, worker(tcp(a, pool={"passive": passive})) as w:
        clients = [Peer.connect(w.address()) for _ in range(3)]
        there = [a.accept() for _ in clients]
        w.wait_objects(exchanges=3, node_connections=3)
        time.sleep(1.1)
        for one in there:
            one.reset()
        assert [one.end() for one in clients] == ["reset"] * 3
        w.wait_objects(**NOTHING)
        assert w.node_stats()["ejections"] == 0


def test_a_client_that_resets_while_the_node_takes_nothing() -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        client = Peer.connect(w.address())
        there = a.accept()
        client.flood()
        client.reset()
        w.wait_objects(**NOTHING)
        assert there.end() == "reset"
        assert causes(w) == {"client-closed": 1}


def test_a_node_that_ends_is_heard_by_a_client_that_still_sends() -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        client = Peer.connect(w.address())
        there = a.accept()
        said = bytes(range(256)) * 100
        there.send(said)
        client.flood()
        # A reset overtakes what is on its way, so all of it has arrived before.
        until(lambda: client.unread() == len(said), "the client has what the node said")
        until(there.unread, "bytes that the node does not read: its close becomes a reset")
        there.close()
        assert client.exactly(len(said)) == said
        assert client.end() == "reset"
        w.wait_objects(**NOTHING)
        assert causes(w) == {"node-closed": 1}


def test_back_pressure_reaches_both_senders() -> None:
    with TcpNode() as a, worker(tcp(a)) as w, Peer.connect(w.address()) as client:
        there = a.accept()
        up, down = client.flood(), there.flood()
        assert up < 1 << 28
        assert down < 1 << 28
        held = w.objects["buffers"] + w.objects["pipes"]
        assert held <= 4
        client.half_close()
        there.half_close()
        assert len(there.rest()) == up
        assert len(client.rest()) == down
        w.wait_objects(**NOTHING)


# ---- while the node is being connected to ----


class Full:
    """A node whose queue is full: its connections stay half-open."""

    def __init__(self) -> None:
        self.node = TcpNode(backlog=0)
        self.filling = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((self.node.host, self.node.port))
            self.filling.append(one)

    def open(self) -> None:
        """The queue is emptied; a connection attempt that is repeated gets in."""
        for one in self.filling:
            one.close()

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *exc: object) -> None:
        self.open()
        self.node.stop()
        for peer in self.node.peers:
            peer.close()


def connecting(w: WorkerProcess) -> None:
    w.wait_objects(clients=1, exchanges=1, node_connections=1)


def test_a_client_that_finished_before_the_node_was_there_is_delivered() -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        with w.frozen():
            client = Peer.connect(w.address())
            client.send(b"all I have to say")
            client.half_close()
        there = a.accept()
        assert there.rest() == b"all I have to say"
        there.send(b"heard")
        there.half_close()
        assert client.rest() == b"heard"
        client.close()


def test_a_client_that_is_gone_before_the_node_was_there_is_delivered() -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        with w.frozen():
            client = Peer.connect(w.address())
            client.send(b"fire and forget")
            client.close()
        assert a.accept().rest() == b"fire and forget"
        a.peers[0].close()  # and the node's end ends it all
        w.wait_objects(**NOTHING)


def test_a_client_that_resets_meanwhile_ends_the_attempt() -> None:
    config = {"connect": "1m"}
    with Full() as full, worker(tcp(full.node, timeouts=config)) as w:
        client = Peer.connect(w.address())
        connecting(w)
        client.reset()
        w.wait_objects(**NOTHING)
        assert causes(w) == {"client-closed": 1}
        assert w.node_stats()["connect_failures"] == 0


def test_nothing_is_read_of_the_client_before_the_node_takes_it() -> None:
    with Full() as full, worker(tcp(full.node, timeouts={"connect": "1m"})) as w:
        client = Peer.connect(w.address())
        connecting(w)
        assert client.flood() < 1 << 28
        assert w.objects["buffers"] == 0
        client.reset()
        w.wait_objects(**NOTHING)


def test_connect_time_out() -> None:
    with Full() as full, worker(tcp(full.node, timeouts={"connect": "200ms"})) as w:
        client = Peer.connect(w.address())
        assert client.end() == "reset"
        w.wait_objects(**NOTHING)
        assert causes(w) == {"connect-timeout": 1}
        assert w.node_stats()["connect_failures"] == 1


def test_connect_time_out_leads_to_the_next_node() -> None:
    with Full() as full, TcpNode() as b:
        config = tcp(full.node, b, timeouts={"connect": "200ms"})
        with worker(config) as w, Peer.connect(w.address()) as client:
            client.send(b"hello")
            assert b.accept().exactly(5) == b"hello"
            assert w.stats["retries"] == 1


def test_no_node_at_all() -> None:
    with TcpNode() as a, TcpNode() as b:
        a.stop()
        b.stop()
        with worker(tcp(a, b)) as w:
            assert Peer.turned_away(w.address()) == "reset"
            w.wait_objects(**NOTHING)
            assert causes(w) == {"connect-failed": 1}
            assert [w.node_stats(slot)["connect_failures"] for slot in (0, 1)] == [1, 1]


def test_tunnel_time_out_counts_from_the_last_byte() -> None:
    with TcpNode() as a, worker(tcp(a, timeouts={"tunnel": "1s"})) as w:
        client = Peer.connect(w.address())
        there = a.accept()
        assert client.end() == "reset"
        assert there.end() == "reset"
        w.wait_objects(**NOTHING)
        assert causes(w) == {"tunnel-timeout": 1}


def test_a_stop_cuts_what_runs() -> None:
    with TcpNode() as a, worker(tcp(a)) as w:
        client = Peer.connect(w.address())
        there = a.accept()
        client.send(b"x")
        assert there.exactly(1) == b"x"
        w.stop()
        assert (client.end(), there.end()) == ("reset", "reset")


def test_a_drain_lets_them_finish() -> None:
    with TcpNode() as a, worker(tcp(a)) as w, Peer.connect(w.address()) as client:
        there = a.accept()
        turns = w.stats["turns"]
        channel.send(w.channel, Message(Kind.STOP, 0, 60000))
        until(lambda: w.stats["turns"] > turns, "the worker drains")
        client.send(b"x")
        assert there.exactly(1) == b"x"
        there.close()
        assert client.rest() == b""
        client.close()
        assert w.wait_end() == 0
