"""Protocol tcp: any bytes, either way, and whose node a client has."""

import hashlib
import json
import os
import signal
import socket
import threading

import pytest

from tests.harness import changed, proxy, settings
from tests.harness.settings import Config
from tests.harness.tcp import Peer, TcpNode, nodes, served_by
from tests.harness.wait import until


def tcp(*among: TcpNode, **more) -> Config:
    server = {"protocol": "tcp", **more.pop("server", {})}
    return settings(*[one.address for one in among], server=server, **more)


def test_bytes_go_through_whatever_they_are() -> None:
    up, down = os.urandom(3_000_000), os.urandom(5_000_000)
    with TcpNode() as a, proxy(tcp(a)) as p, Peer.connect(p.address()) as client:
        there = a.accept()
        sender = threading.Thread(target=lambda: (client.send(up), client.half_close()))
        answer = threading.Thread(target=lambda: (there.send(down), there.half_close()))
        sender.start()
        answer.start()
        heard = []
        reader = threading.Thread(target=lambda: heard.append(there.rest()))
        reader.start()
        assert hashlib.sha256(client.rest()).digest() == hashlib.sha256(down).digest()
        for one in (sender, answer, reader):
            one.join()
        assert hashlib.sha256(heard[0]).digest() == hashlib.sha256(up).digest()
        (line,) = p.log(1)
        assert (line["bytes_in"], line["bytes_out"]) == (len(up), len(down))
        assert "cause" not in line


@pytest.mark.parametrize("size", [1, 100, 16383, 16384, 16385, 65536, 1 << 20])
def test_sizes_around_those_of_the_buffers(size: int) -> None:
    data = os.urandom(size)
    with TcpNode() as a, proxy(tcp(a)) as p, Peer.connect(p.address()) as client:
        there = a.accept()
        for _ in range(3):
            writer = threading.Thread(target=client.send, args=(data,))
            writer.start()
            assert there.exactly(size) == data
            writer.join()
            writer = threading.Thread(target=there.send, args=(data,))
            writer.start()
            assert client.exactly(size) == data
            writer.join()


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_urgent_data_holds_nothing_up(size: int) -> None:
    # The urgent byte itself is lost: it is outside of the stream.
    before, behind = os.urandom(size), os.urandom(size)
    with TcpNode() as a, proxy(tcp(a)) as p, Peer.connect(p.address()) as client:
        there = a.accept()
        heard = []
        reader = threading.Thread(target=lambda: heard.append(there.exactly(2 * size)))
        reader.start()
        client.send(before)
        client.sock.send(b"!", socket.MSG_OOB)
        client.send(behind)
        reader.join()
        assert heard == [before + behind]
        client.sock.send(b"!", socket.MSG_OOB)
        client.send(b"last")
        client.half_close()
        assert there.rest() == b"last"


def test_a_slow_reader_slows_the_sender_and_loses_nothing() -> None:
    with TcpNode() as a, proxy(tcp(a)) as p, Peer.connect(p.address()) as client:
        there = a.accept()
        before = p.resident_kib()
        sent = there.flood()
        assert p.resident_kib() < before + 8192
        there.half_close()
        assert len(client.rest()) == sent


def test_a_line_in_the_log() -> None:
    with TcpNode() as a, proxy(tcp(a, persistence={"type": "ip"})) as p:
        with Peer.connect(p.address()) as client:
            client.send(b"hello")
            there = a.accept()
            there.exactly(5)
            there.send(b"hi")
            there.half_close()
            assert client.rest() == b"hi"
        (line,) = p.log(1)
        about = {key: line[key] for key in ("client", "virtual_server", "pool", "node", "class",
                                            "outcome", "bytes_in", "bytes_out", "status",
                                            "retries")}  # fmt: skip
        assert about == {
            "client": "127.0.0.1", "virtual_server": "shop", "pool": "web", "node": a.address,
            "class": "shop", "outcome": "new", "bytes_in": 5, "bytes_out": 2, "status": 0,
            "retries": 0,
        }  # fmt: skip
        assert not {"method", "host", "target", "sni", "tls", "cause"} & line.keys()


def test_the_combined_format() -> None:
    with TcpNode() as a:
        config = changed(tcp(a), "proxy.access_log_format", "combined")
        with proxy(config) as p:
            with Peer.connect(p.address()) as client:
                a.accept().close()
                assert client.rest() == b""
            text = until(p.log_file.read_text, "a line")
            client_part, _, rest = text.partition(" - - [")
            assert client_part == "127.0.0.1"
            assert rest.partition("] ")[2] == '"-" 0 0 "-" "-"\n'


# ---- whose node ----


def who(among: list[TcpNode], p, source: str) -> TcpNode:
    with Peer.connect(p.address(), source) as client:
        node, there = served_by(among, client)
        there.close()
        assert client.rest() == b""
        return node


def test_ip_persistence() -> None:
    with nodes(3) as among, proxy(tcp(*among, persistence={"type": "ip"}, workers=2)) as p:
        sources = [f"127.0.9.{number}" for number in range(1, 7)]
        first = {source: who(among, p, source) for source in sources}
        assert len(set(map(id, first.values()))) == 3
        for source in sources:
            assert who(among, p, source) is first[source]


@pytest.mark.parametrize("on", ["source", "source+destination"])
def test_hash_needs_no_memory(on: str) -> None:
    sources = [f"127.0.9.{number}" for number in range(1, 13)]
    with nodes(3) as among:
        config = tcp(*among, persistence={"type": "hash", "on": on})
        with proxy(config) as p:
            first = {source: who(among, p, source) for source in sources}
            assert len(set(map(id, first.values()))) > 1
            p.stop()
            p.start()
            assert {source: who(among, p, source) for source in sources} == first


def test_universal_by_source() -> None:
    with nodes(2) as among:
        config = tcp(*among, persistence={"type": "universal", "key": "source"})
        with proxy(config) as p:
            mine = who(among, p, "127.0.9.1")
            assert all(who(among, p, "127.0.9.1") is mine for _ in range(3))


# ---- failures ----


def test_failure_mode_new_node() -> None:
    with nodes(2) as among, proxy(tcp(*among, persistence={"type": "ip"})) as p:
        gone = who(among, p, "127.0.9.1")
        gone.stop()
        (other,) = [one for one in among if one is not gone]
        for _ in range(2):
            assert who([other], p, "127.0.9.1") is other
        outcomes = p.outcomes(3)
        assert outcomes == ["new", "connect-failed", "hit"]


@pytest.mark.parametrize("mode", ["close", "redirect"])
@pytest.mark.parametrize("forget", [True, False])
def test_failure_mode_close(mode: str, forget: bool) -> None:
    persistence = {"type": "ip", "failure_mode": mode, "delete_on_failure": forget}
    if mode == "redirect":
        persistence["redirect_url"] = "/sorry"
    with nodes(2) as among, proxy(tcp(*among, persistence=persistence)) as p:
        gone = who(among, p, "127.0.9.1")
        gone.stop()
        assert Peer.turned_away(p.address(), "127.0.9.1") == "reset"
        lines = until(lambda: [one for one in p.log_lines() if one["client"] == "127.0.9.1"][1:],
                      "the line of the closed one")  # fmt: skip
        assert lines[0]["cause"] == "session-closed"
        entries = p.status()["persistence"]["shop"]["entries"]
        assert entries == (0 if forget else 1)


def test_a_draining_node_keeps_its_clients() -> None:
    with nodes(2) as among, proxy(tcp(*among, persistence={"type": "ip"})) as p:
        mine = who(among, p, "127.0.9.1")
        draining = [
            {"address": one.address, "draining": True} if one is mine else one.address
            for one in among
        ]
        assert p.reload(changed(p.config, "pools.web.nodes", draining)).returncode == 0
        assert who(among, p, "127.0.9.1") is mine
        assert who(among, p, "127.0.9.2") is not mine


# ---- processes ----


def test_tunnels_outlive_a_reload_that_removes_all_of_theirs() -> None:
    with nodes(2) as (a, b), proxy(tcp(a, persistence={"type": "ip"})) as p:
        client = Peer.connect(p.address())
        there = a.accept()
        client.send(b"before")
        assert there.exactly(6) == b"before"
        config = changed(p.config, "pools", {"others": {"nodes": [b.address]}})
        config = changed(config, "persistence", {})
        config["virtual_servers"]["shop"]["pool"] = "others"
        assert p.reload(config).returncode == 0
        with Peer.connect(p.address()) as second:
            second.send(b"to the new one")
            assert b.accept().exactly(14) == b"to the new one"
        client.send(b"after")
        assert there.exactly(5) == b"after"
        there.send(b"answer")
        there.close()
        assert client.rest() == b"answer"
        client.close()
        line = until(lambda: [one for one in p.log_lines() if one["pool"] == "web"], "its line")
        assert (line[0]["node"], line[0]["class"]) == (a.address, "shop")


def test_a_killed_worker_takes_its_tunnels_and_no_map() -> None:
    with nodes(3) as among, proxy(tcp(*among, persistence={"type": "ip"})) as p:
        first = {source: who(among, p, source) for source in ("127.0.9.1", "127.0.9.2")}
        client = Peer.connect(p.address(), "127.0.9.1")
        _, there = served_by(among, client)
        gone = p.kill_worker(0)
        assert client.end() in ("reset", "fin")
        assert there.end() in ("reset", "fin")
        p.wait_worker_replaced(gone)
        for source, node in first.items():
            assert who(among, p, source) is node


def test_a_stop_waits_for_tunnels_until_the_drain_ends() -> None:
    with TcpNode() as a, proxy(tcp(a, timeouts={"drain": "1m"})) as p:
        client = Peer.connect(p.address())
        there = a.accept()
        client.send(b"x")
        there.exactly(1)
        assert p.process is not None
        p.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in p.stderr(), "the stop")
        client.send(b"still here")
        assert there.exactly(10) == b"still here"
        there.close()
        assert client.rest() == b""
        client.close()
        assert p.process.wait(10) == 0
        assert json.loads(p.log_file.read_text())["bytes_in"] == 11


def test_unix_sockets_have_no_address(tmp_path) -> None:
    place = f"unix:{tmp_path}/s.sock"
    with TcpNode() as a, proxy(tcp(a, server={"listen": [place]})) as p:
        one = socket.socket(socket.AF_UNIX)
        one.connect(f"{tmp_path}/s.sock")
        with Peer(one) as client:
            client.send(b"hello")
            there = a.accept()
            assert there.exactly(5) == b"hello"
            there.close()
            assert client.rest() == b""
        assert p.log(1)[0]["client"] == "unix"
