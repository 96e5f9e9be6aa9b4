"""Requests that wait for a node with max_connections: in what order they go on, and how else they
end."""

import os
import signal
import threading
from contextlib import ExitStack, contextmanager

import pytest

from tests.core.handshakes import certificate
from tests.harness import Closed, CountingNode, changed, proxy, request, settings, sticky, until
from tests.harness.operator import here, status_of
from tests.harness.rules import ruled
from tests.harness.tcp import Peer, TcpNode
from tests.harness.tls_client import TlsClient, TlsUser
from tests.harness.tls_node import TlsNode

BY_USER = {"type": "universal", "key": "header:X-User"}


def limited(*nodes, most=1, of=settings, **more):
    """Each of the nodes takes `most` connections."""
    return of(*({"address": node, "max_connections": most} for node in nodes), **more)


def pool_of(p):
    return status_of(p)["pools"]["web"]


def waiting(p, count):
    until(lambda: pool_of(p)["waiting"] == count, f"{count} requests in the queue")


def ask(p, stack, target, *fields):
    client = stack.enter_context(p.client())
    client.send(request(target, *fields))
    return client


def busy(p, stack, *nodes):
    """Held requests, until each node has its one."""
    for node in nodes:
        node.hold()
    before = [len(node.order) for node in nodes]
    for count, _ in enumerate(nodes, sum(before) + 1):
        ask(p, stack, "/busy", ("User-Agent", f"busy {count}"))
        until(lambda c=count: sum(len(node.order) for node in nodes) == c, "a busy node")
    assert [len(node.order) for node in nodes] == [count + 1 for count in before]


def line_up(p, stack, *targets, fields=(), first=0):
    """One client after the other asks, and waits."""
    clients = []
    for number, target in enumerate(targets):
        agent = ("User-Agent", f"browser {target}")
        clients.append(ask(p, stack, target, agent, *fields))
        waiting(p, first + number + 1)
    return clients


@contextmanager
def full(**more):
    """A proxy before one node with room for one, which is taken; (proxy, node, stack)."""
    with CountingNode() as node, proxy(limited(node, **more)) as p, ExitStack() as stack:
        busy(p, stack, node)
        yield p, node, stack
        node.let_all()


@contextmanager
def two(**more):
    """Two nodes with room for one each, and a stack for what is open before them."""
    with CountingNode("a") as a, CountingNode("b") as b:
        with proxy(limited(a, b, **more)) as p, ExitStack() as stack:
            yield p, a, b, stack
            a.let_all()
            b.let_all()


# --- in turn ------------------------------------------------------------------------------


def test_who_came_first_is_served_first():
    # Over several workers: test_queue.py, where clocks stand still.
    targets = [f"/{n}" for n in range(6)]
    with full() as (p, node, stack):
        clients = line_up(p, stack, *targets)
        for served in range(1, 7):
            node.let()
            node.wait(1 + served)
        node.let()
        assert [client.response().status for client in clients] == [200] * 6
        assert node.order == ["/busy", *targets]
        assert p.log_of("/3")["queued_ms"] > 0
        assert "queued_ms" not in p.log_of("/busy")
    assert node.most_open == 1


def test_sessions_come_before_newcomers():
    with full(of=sticky) as (p, node, stack):
        node.let_all()
        user = p.user("anna")
        user.get("/login")
        busy(p, stack, node)
        new = line_up(p, stack, "/new/1", "/new/2")
        theirs = stack.enter_context(p.client())
        theirs.send(user.request("/session"))
        waiting(p, 3)
        assert [one["waiting"] for one in pool_of(p)["nodes"]] == [1]
        node.let_all()
        assert {client.response().status for client in (*new, theirs)} == {200}
        assert node.order[3:] == ["/session", "/new/1", "/new/2"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_session_does_not_move_because_its_node_is_full(workers):
    with two(of=sticky, workers=workers) as (p, a, b, stack):
        user = p.user("anna")
        home = {"a": a, "b": b}[user.get().node]
        home.hold()
        there = stack.enter_context(p.client())
        there.send(user.request("/first"))
        home.wait(2)
        again = stack.enter_context(p.client())
        again.send(user.request("/second"))
        waiting(p, 1)
        assert p.get("/other").node != home.name  # there is room, but not the session
        home.let_all()
        assert {there.response().node, again.response().node} == {home.name}


def test_who_waits_for_any_node_gets_the_first_that_has_room():
    with two() as (p, a, b, stack):
        busy(p, stack, a, b)
        first, second = line_up(p, stack, "/1", "/2")
        b.let()
        b.wait(2)
        a.let()
        a.wait(2)
        assert (b.order[-1], a.order[-1]) == ("/1", "/2")
        b.let_all()
        a.let_all()
        assert (first.response().node, second.response().node) == ("b", "a")


def test_parallel_first_requests_that_waited_become_one_session():
    with two(persistence=BY_USER, workers=2) as (p, a, b, stack):
        busy(p, stack, a, b)
        fields = [("X-User", "anna")]
        clients = line_up(p, stack, *(f"/{n}" for n in range(5)), fields=fields)
        a.let_all()
        b.let_all()
        assert len({client.response().node for client in clients}) == 1


def test_pipelined_requests_stay_in_order():
    with full() as (p, node, stack):
        client = stack.enter_context(p.client())
        client.send(*(request(f"/{n}") for n in range(4)))
        waiting(p, 1)
        node.let_all()
        assert [answer.status for answer in client.responses(4)] == [200] * 4
        assert node.order == ["/busy", "/0", "/1", "/2", "/3"]


def test_a_body_waits_at_the_client_and_arrives_whole():
    body = os.urandom(1 << 25)
    with full() as (p, node, stack):
        client = stack.enter_context(p.client())
        head = request("/post", ("Content-Length", str(len(body))), method="POST")
        client.send(head)
        waiting(p, 1)
        taken = threading.Thread(target=client.send, args=(body,))
        taken.start()
        taken.join(0.3)
        assert taken.is_alive(), "32 MiB were read for a request that waits"
        node.let_all()
        taken.join(30)
        assert client.response().status == 200
        (message,) = [one for one in node.requests if one.target == b"/post"]
    assert message.body == body


def test_a_retry_waits_for_the_node_that_is_left():
    with two() as (p, a, b, stack):
        busy(p, stack, a, b)
        a.let()
        p.log(1)
        a.stop()
        clients = line_up(p, stack, "/1", "/2")
        b.let()
        b.wait(2)
        b.let_all()
        assert {client.response().node for client in clients} == {"b"}
        a.start()


# --- how else it ends ---------------------------------------------------------------------


def test_a_full_queue_is_told_at_once():
    with full(pool={"queue": 2}) as (p, node, stack):
        clients = line_up(p, stack, "/1", "/2")
        with p.client() as client:
            answer = client.ask("/3")
            assert (answer.status, p.log_of("/3")["cause"]) == (503, "queue-full")
            assert answer.get("Retry-After")
            assert pool_of(p)["queue_full"] == 1
            node.let_all()
            assert {one.response().status for one in clients} == {200}
            assert client.ask("/4").status == 200  # on the same connection


def test_without_a_queue_nobody_waits():
    with full(pool={"queue": 0}) as (p, _, _):
        assert p.get("/1").status == 503


def test_who_waits_too_long_is_told():
    with full(pool={"queue_timeout": "100ms"}) as (p, node, stack):
        client = ask(p, stack, "/1")
        answer = client.response()
        line = p.log_of("/1")
        assert (answer.status, line["cause"]) == (503, "queue-timeout")
        assert answer.get("Retry-After")
        assert line["queued_ms"] >= 100
        pool = pool_of(p)
        assert (pool["waiting"], pool["waited"], pool["queue_timeouts"]) == (0, 1, 1)
        assert pool["waited_seconds"] >= 0.1
        node.let_all()
        assert client.ask("/2").status == 200


def test_a_client_that_leaves_is_not_waited_for():
    with full() as (p, node, stack):
        gone, stays = line_up(p, stack, "/gone", "/stays")
        gone.reset()
        waiting(p, 1)
        assert p.log_of("/gone")["cause"] == "client-closed"
        stays.half_close()  # it has asked, and waits for the answer
        node.let_all()
        assert stays.response().status == 200
        assert node.order == ["/busy", "/stays"]


def test_nor_is_one_that_closes_its_connection():
    with full() as (p, node, stack):
        gone, stays = line_up(p, stack, "/gone", "/stays")
        gone.sock.close()
        waiting(p, 1)
        assert p.log_of("/gone")["cause"] == "client-closed"
        node.let_all()
        assert stays.response().status == 200
        assert node.order == ["/busy", "/stays"]


def test_one_that_has_only_finished_sending_is_served():
    with full() as (p, node, stack):
        clients = [stack.enter_context(p.client()) for _ in range(2)]
        for client, version in zip(clients, ("1.1", "1.0"), strict=True):
            client.send(request("/" + version, version=version))
            client.half_close()
        waiting(p, 2)
        node.let_all()
        answers = [client.reader.rest() for client in clients]
        assert answers[0].startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
        assert answers[1].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_client_that_ends_in_the_middle_of_its_request_leaves(when):
    with full() as (p, node, stack):
        client = stack.enter_context(p.client())
        client.send(request("/half", ("Content-Length", "9"), method="POST") + b"123")
        if when == "while":
            waiting(p, 1)
        client.half_close()
        assert client.response().status == 400
        assert p.log_of("/half")["cause"] == "client-closed"
        waiting(p, 0)
        assert node.order == ["/busy"]


@pytest.mark.parametrize(
    ("mode", "status", "cause"),
    [("new-node", 200, None), ("close", 503, "session-closed"), ("redirect", 302, None)],
)
def test_a_session_whose_node_is_disabled_meanwhile_meets_the_failure_mode(mode, status, cause):
    more = {"failure_mode": mode} | ({"redirect_url": "/sorry"} if mode == "redirect" else {})
    with two(of=sticky, **more) as (p, a, b, stack):
        user = p.user("anna")
        home, other = (a, b) if user.get().node == "a" else (b, a)
        home.hold()
        for target in ("/holds", "/waits"):
            client = stack.enter_context(p.client())
            client.send(user.request(target))
            home.wait(2)
        waiting(p, 1)
        assert here("disable", home.address, "-c", str(p.file)).returncode == 0
        answer = client.response()
        assert answer.status == status
        assert mode != "new-node" or answer.node == other.name
        assert cause is None or p.log_of("/waits")["cause"] == cause


def test_a_node_that_dies_while_requests_wait():
    with two(persistence=BY_USER) as (p, a, b, stack):
        fields = [("X-User", "anna")]
        home, other = (a, b) if p.get("/", *fields).node == "a" else (b, a)
        home.hold()
        dies = ask(p, stack, "/dies", *fields)
        home.wait(2)
        (waits,) = line_up(p, stack, "/waits", fields=fields)
        home.stop()
        assert waits.response().node == other.name
        assert dies.response().status in (200, 502)
        home.start()


def test_nobody_waits_for_nodes_that_are_all_gone():
    with full() as (p, node, stack):
        (client,) = line_up(p, stack, "/1")
        assert here("disable", node.address, "-c", str(p.file)).returncode == 0
        assert client.response().status == 503
        assert p.log_of("/1")["cause"] == "no-node"


# --- reloads, ends of workers, stops ------------------------------------------------------


@pytest.mark.parametrize("most", [4, 0])
def test_a_reload_that_raises_the_limit_lets_them_go_on(most):
    with full(workers=2) as (p, node, stack):
        clients = line_up(p, stack, "/1", "/2", "/3")
        config = limited(node, most=most, workers=2)
        assert p.reload(config).returncode == 0
        node.wait(4)
        assert node.most_requests == 4
        node.let_all()
        assert {client.response().status for client in clients} == {200}


def test_a_reload_that_lowers_the_limit_holds_at_once():
    with CountingNode(held=True) as node, ExitStack() as stack:
        p = stack.enter_context(proxy(limited(node, most=0)))
        for n in range(3):
            ask(p, stack, f"/{n}")
        node.wait(3)
        assert p.reload(limited(node, most=2)).returncode == 0
        line_up(p, stack, "/waits")
        node.let()
        until(lambda: node.open_now() == 2, "the first one is over")
        assert node.order[3:] == []
        node.let()
        node.wait(4)
        node.let_all()


def test_a_reload_that_takes_the_node_out_sends_who_waits_to_those_there_are():
    with CountingNode("b") as other, full(workers=2) as (p, node, stack):
        clients = line_up(p, stack, "/1", "/2", "/3")
        assert p.reload(limited(other, workers=2)).returncode == 0
        assert {client.response().node for client in clients} == {"b"}
        assert node.order == ["/busy"]
        assert other.most_open == 1


def test_a_reload_that_takes_the_node_out_serves_sessions_that_wait_for_it():
    with two(persistence=BY_USER) as (p, a, b, stack):
        fields = [("X-User", "anna")]
        home, other = (a, b) if p.get("/", *fields).node == "a" else (b, a)
        home.hold()
        ask(p, stack, "/busy", *fields)
        home.wait(2)
        (client,) = line_up(p, stack, "/1", fields=fields)
        assert p.reload(limited(other, persistence=BY_USER)).returncode == 0
        home.let_all()
        assert client.response().node == home.name


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["reload", "command"])
def test_who_waits_gets_a_node_that_is_added(how, workers):
    with CountingNode("b") as other, full(workers=workers) as (p, node, stack):
        clients = line_up(p, stack, "/1", "/2", "/3")
        if how == "reload":
            assert p.reload(limited(node, other, workers=workers)).returncode == 0
        else:
            done = here("node", "add", other.address, "--pool", "web", "-c", str(p.file))
            assert done.returncode == 0
        assert [client.response().status for client in clients] == [200] * 3
        assert sorted(other.order) == ["/1", "/2", "/3"]
        if how == "reload" and workers == 1:  # one after the other, by one plan
            assert other.order == ["/1", "/2", "/3"]
        assert p.log_of("/3")["node"] == other.address


def test_who_waits_follows_a_route_that_is_changed():
    with CountingNode("b") as other, full() as (p, node, stack):
        (client,) = line_up(p, stack, "/1")
        config = changed(limited(node), "pools.other", {"nodes": [other]})
        routes = [{"path": "/1", "pool": "other"}]
        assert p.reload(changed(config, "virtual_servers.shop.routes", routes)).returncode == 0
        assert client.response().node == "b"


def test_a_request_that_rules_have_seen_waits_by_the_plan_that_they_saw():
    seen = "from fastlb import rule\n\n@rule.request\ndef nothing(request):\n    pass\n"
    rules = {"server": {"rules": ["seen:nothing"]}}
    with CountingNode("b") as other, CountingNode("a") as node, ExitStack() as stack:
        p = stack.enter_context(proxy(limited(node, **rules), ruled(seen=seen)))
        busy(p, stack, node)
        (client,) = line_up(p, stack, "/1")
        assert p.reload(limited(node, other, **rules)).returncode == 0
        assert p.get("/new").node == "b"
        node.let_all()
        assert client.response().node == "a"


def test_tcp_connections_that_wait_get_a_node_that_is_added():
    with TcpNode() as node, TcpNode() as other, proxy(passages(node)) as p:
        with Peer.connect(p.address()), Peer.connect(p.address()) as second:
            there = node.accept()
            waiting(p, 1)
            both = changed(passages(node), "pools.web.nodes", [node.address, other.address])
            assert p.reload(both).returncode == 0
            del there, second
            other.accept()


def test_a_worker_that_is_killed_leaves_no_one_waiting_behind_it():
    with full(workers=2) as (p, node, stack):
        targets = [f"/{n}" for n in range(8)]
        clients = line_up(p, stack, *targets)
        killed = p.kill_worker(0)
        node.let_all()
        assert {answer_if_any(client) for client in clients} <= {200, None}
        p.wait_worker_replaced(killed)
        assert p.get("/after").status == 200
        waiting(p, 0)
    assert node.most_open == 1


def test_a_stop_serves_those_who_wait():
    with full(timeouts={"drain": "20s"}) as (p, node, stack):
        clients = line_up(p, stack, "/1", "/2")
        p.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(p), "the listening socket is closed")
        node.let_all()
        assert [client.response().status for client in clients] == [200, 200]


def answer_if_any(client):
    try:
        return client.response().status
    except (Closed, ConnectionResetError):
        return None


def refuses(p):
    try:
        Peer.connect(p.address()).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stop_tells_those_who_wait_for_too_long():
    with full(timeouts={"drain": "1s"}) as (p, _, stack):
        (client,) = line_up(p, stack, "/1")
        p.process.send_signal(signal.SIGTERM)
        assert client.response().status == 503
        assert p.log_of("/1")["cause"] == "stopped"


# --- passages -----------------------------------------------------------------------------


def passages(node, **more):
    return limited(node.address, server={"protocol": "tcp"}, **more)


def test_tcp_connections_wait_too():
    with TcpNode() as node, proxy(passages(node)) as p:
        first, second = Peer.connect(p.address()), Peer.connect(p.address())
        first.send(b"1")
        there = node.accept()
        assert there.exactly(1) == b"1"
        second.send(b"2")
        waiting(p, 1)
        assert not node.waiting()
        first.close()
        assert there.rest() == b""
        there.close()
        assert node.accept().exactly(1) == b"2"
        second.close()


def test_tcp_connections_that_wait_too_long_are_closed():
    with TcpNode() as node, proxy(passages(node, pool={"queue_timeout": "100ms"})) as p:
        with Peer.connect(p.address()) as first:
            node.accept()
            assert Peer.turned_away(p.address()) == "reset"
            assert p.log(1)[0]["cause"] == "queue-timeout"
            waiting(p, 0)
            del first


def test_a_tcp_client_that_leaves_is_not_waited_for():
    with TcpNode() as node, proxy(passages(node)) as p, Peer.connect(p.address()):
        node.accept()
        gone = Peer.connect(p.address())
        waiting(p, 1)
        gone.reset()
        waiting(p, 0)
        assert p.log(1)[0]["cause"] == "client-closed"


def test_tls_connections_wait_too():
    with TlsNode("a", certificate()) as node:
        config = limited(node.address, server={"protocol": "tls"})
        with proxy(config) as p, ExitStack() as stack:
            first = stack.enter_context(TlsClient(p.address()))
            assert first.ask("/1").status == 200
            got = []
            second = threading.Thread(target=lambda: got.append(TlsUser(p.address()).visit()))
            second.start()
            waiting(p, 1)
            assert len(node.connections) == 1
            first.close()
            second.join(30)
            assert got == ["a"]


def test_what_a_reload_changes_is_seen_in_the_status():
    with CountingNode() as node, proxy(limited(node, most=7)) as p:
        p.get()
        (one,) = pool_of(p)["nodes"]
        assert (one["open"], one["max_connections"], one["pooled"]) == (1, 7, 1)
        config = changed(limited(node), "pools.web.nodes", [node])
        assert p.reload(config).returncode == 0
        assert pool_of(p)["nodes"][0]["max_connections"] is None
