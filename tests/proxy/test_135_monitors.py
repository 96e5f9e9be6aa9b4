"""Monitors: nodes that die, hang, answer wrongly and come back, and a proxy that keeps its head.

Nodes are checked as often as the configuration allows; what a story waits for is a state, never a
time.
"""

import os
import re
import signal
import threading
import time

import pytest

from tests.harness import (
    Closed,
    HttpNode,
    RawNode,
    Truncated,
    changed,
    proxy,
    reply,
    settings,
    sticky,
    until,
)
from tests.harness.certificates import Authority
from tests.harness.openssl_server import OpensslServer
from tests.harness.operator import here, pool_of
from tests.harness.tls_node import TlsNode

QUICK = {"interval": "100ms", "fast_interval": "100ms", "timeout": "5s"}


def monitored(config, **monitor):
    """The configuration with a monitor "check" of its pool."""
    config["monitors"] = {"check": {**QUICK, "type": "http", **monitor}}
    config["pools"]["web"]["monitors"] = ["check"]
    return config


def node_of(p, node):
    (found,) = [one for one in pool_of(p) if one["address"] == node.address]
    return found


def wait_state(p, node, state):
    until(lambda: node_of(p, node)["state"] == state, f"{node.name} {state}")
    return node_of(p, node)["monitors"][0]


def wait_checked(p, *nodes, times=1):
    """Until each of the nodes has been checked so often from now on."""
    before = [node_of(p, node)["monitors"][0]["checks"] for node in nodes]
    for node, count in zip(nodes, before, strict=True):
        until(
            lambda node=node, count=count: (
                node_of(p, node)["monitors"][0]["checks"] >= count + times
            ),
            f"{times} checks of {node.name}",
        )


def lines_about(p, node):
    return [line for line in p.stderr().splitlines() if node.address in line]


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def test_a_node_that_dies_is_down_and_comes_back(ab):
    a, b = ab
    with proxy(monitored(settings(a, b), path="/healthz", host="shop.test")) as p:
        wait_checked(p, a, b)
        assert {p.get().node for _ in range(4)} == {"a", "b"}
        b.stop()
        found = wait_state(p, b, "down")
        assert (found["state"], found["reason"]) == ("down", "connection refused")
        assert {p.get().node for _ in range(4)} == {"a"}
        b.start()
        assert wait_state(p, b, "up")["reason"] == "status 200"
        assert {p.get().node for _ in range(4)} == {"a", "b"}
        down, up = lines_about(p, b)
        assert down == (
            f"fastlb: warning: {b.address} of [pools.web] is down: "
            'monitor "check": connection refused (3 failures) [FLB-S180]'
        )
        assert up == (
            f'fastlb: info: {b.address} of [pools.web] is up: monitor "check": status 200 '
            "(2 successes)"
        )
        assert lines_about(p, a) == []
    asked = next(one for one in a.requests if one.target == b"/healthz")
    assert (asked.method, asked.all("Host"), asked.all("Connection")) == (
        b"GET",
        [b"shop.test"],
        [b"close"],
    )


@pytest.mark.parametrize(
    ("answer", "monitor", "reason"),
    [
        (reply(500, b"no"), {}, "status 500, expected 200-399"),
        (reply(200, b"no"), {"status": ["204", "301-302"]}, "status 200, expected 204, 301-302"),
        (reply(200, b"is ill"), {"body": "^is (well|fine)"}, "does not match"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", {}, "no HTTP/1 answer: 'SSH-2.0-OpenSSH'"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000, {}, "the head is longer than 16384 bytes"),
        (lambda exchange: exchange.reset(), {}, "connection reset"),
        (lambda exchange: exchange.close(), {}, "the connection ended without an answer"),
        (lambda exchange: exchange.wait_end(), {"timeout": "50ms"}, "no answer within 0.05 s"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort",
            {"body": "x", "timeout": "50ms"},
            "no answer within 0.05 s",
        ),
    ],
    ids=["500", "other", "body", "ssh", "endless", "reset", "closed", "hangs", "short"],
)
def test_an_answer_that_is_not_good(answer, monitor, reason):
    with HttpNode("a") as a, RawNode(answer, "b") as b:
        with proxy(monitored(settings(a, b), **monitor)) as p:
            assert reason in wait_state(p, b, "down")["reason"]
            assert reason in "".join(lines_about(p, b))
            b.script = reply(204 if "status" in monitor else 200, b"is fine, x")
            wait_state(p, b, "up")


def test_a_body_in_chunks_behind_an_interim_answer(ab):
    good = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nis \r\n4;x=y\r\nfine\r\n0\r\n\r\n"
    )
    with RawNode(good, "a") as a:
        with proxy(monitored(settings(a), body="is fine$", start="down")) as p:
            wait_state(p, a, "up")


def test_a_session_whose_node_is_down_meets_its_failure_mode(ab):
    a, b = ab
    with proxy(monitored(sticky(a, b, failure_mode="close"), type="tcp")) as p:
        user = p.user("alice")
        home = {"a": a, "b": b}[user.get().node]
        home.stop()
        wait_state(p, home, "down")
        assert user.get().status == 503
        assert p.log(2)[1]["outcome"] == "node-down"
        home.start()
        wait_state(p, home, "up")


def test_a_draining_node_that_dies_is_down_for_its_sessions_too(ab):
    a, b = ab
    with proxy(monitored(sticky(a, b))) as p:
        user = p.user("alice")
        home = {"a": a, "b": b}[user.get().node]
        here("drain", home.address, "-c", str(p.file))
        assert wait_state(p, home, "draining")["state"] == "up"
        assert user.get().node == home.name
        home.stop()
        wait_state(p, home, "down")
        found = node_of(p, home)
        assert (found["asked"], found["leaving"] is not None) == ("draining", True)
        assert user.get().node != home.name
        done = here("disable", home.address, "-c", str(p.file))
        assert "draining -> disabled (and down)" in done.stdout
        assert node_of(p, home)["state"] == "disabled"
        shown = here("status", "-c", str(p.file)).stdout
        assert f'{home.address} monitor "check" finds it down for' in shown
        home.start()
        until(lambda: node_of(p, home)["monitors"][0]["state"] == "up", "it is well again")
        assert node_of(p, home)["state"] == "disabled"
        here("enable", home.address, "-c", str(p.file))
        assert node_of(p, home)["state"] == "draining"


def test_one_of_two_monitors_is_enough_to_be_down(ab):
    a, b = ab
    b.script = {"/two": reply(500), "*": reply(200, b"b")}
    config = monitored(settings(a, b))
    config["monitors"]["two"] = {**QUICK, "type": "http", "path": "/two"}
    config["pools"]["web"]["monitors"] = ["check", "two"]
    with proxy(config) as p:
        wait_state(p, b, "down")
        assert [one["state"] for one in node_of(p, b)["monitors"]] == ["up", "down"]
        assert 'monitor "two": status 500' in lines_about(p, b)[0]
        done = p.reload(changed(config, "pools.web.monitors", ["check"]))
        assert done.returncode == 0
        assert node_of(p, b)["state"] == "up"
        assert "the monitor that said otherwise is gone" in lines_about(p, b)[-1]
        p.reload(config)
        wait_state(p, b, "down")
        p.reload(changed(config, "pools.web.monitors", []))
        assert node_of(p, b)["state"] == "up"
        assert "no monitor checks it any more" in lines_about(p, b)[-1]


def test_a_node_that_begins_down_gets_nothing_before_a_check_succeeds(ab):
    a, b = ab
    go = threading.Event()
    friendly = b.script

    def hold(exchange):
        if exchange.request.target == b"/healthz":
            exchange.wait(go)
        friendly(exchange)

    b.script = hold
    config = monitored(settings(a, b), start="down", path="/healthz", timeout="30s", successes=100)
    with proxy(config) as p:
        wait_state(p, a, "up")
        assert {p.get().node for _ in range(6)} == {"a"}
        assert node_of(p, b)["state"] == "down"
        go.set()
        wait_state(p, b, "up")  # one success, whatever `successes` says
        assert {p.get().node for _ in range(4)} == {"a", "b"}
        # What is in service stays there while a monitor that begins "down" is new to it.
        go.clear()
        assert p.reload(changed(config, "monitors.check.host", "x")).returncode == 0
        assert node_of(p, b)["state"] == "up"
        go.set()


def test_a_reload_keeps_what_is_known(ab):
    a, b = ab
    config = monitored(settings(a, b))
    with proxy(config) as p:
        b.stop()
        wait_state(p, b, "down")
        before = node_of(p, b)["monitors"][0]["checks"]
        p.reload(changed(config, "timeouts.keep_alive", "59s"))
        assert node_of(p, b)["monitors"][0]["checks"] >= before
        p.reload(changed(config, "monitors.check.path", "/other"))
        assert node_of(p, b)["state"] == "down"
        assert len(lines_about(p, b)) == 1
        b.start()
        wait_state(p, b, "up")
        b.wait_requests(1)
        assert b.requests[-1].target == b"/other"


def test_a_control_process_that_stands_still_changes_no_state(ab):
    """Its checks are answered, or run out of time, while it does not look."""
    a, b = ab
    held, go = threading.Event(), threading.Event()
    friendly = b.script

    def hold(exchange):
        if exchange.request.target == b"/healthz":
            held.set()
            exchange.wait(go)
        friendly(exchange)

    config = monitored(settings(a, b), path="/healthz", timeout="2s", failures=1, jitter=50)
    with proxy(config) as p:
        wait_checked(p, a, b)
        b.script = hold
        assert held.wait(10)
        os.kill(p.process.pid, signal.SIGSTOP)
        try:
            time.sleep(2.5)  # longer than the time of all checks under way
            assert {p.get().node for _ in range(4)} == {"a", "b"}
            b.script = friendly
            go.set()
        finally:
            os.kill(p.process.pid, signal.SIGCONT)
        wait_checked(p, a, b, times=2)
        for node in (a, b):
            found = node_of(p, node)["monitors"][0]
            assert (node_of(p, node)["state"], found["failures"]) == ("up", 0)
        assert node_of(p, b)["monitors"][0]["not_done"] >= 1
        assert re.search(r"says nothing of the node .* held up for .* \[FLB-S181\]", p.stderr())
        assert "is down" not in p.stderr()


def test_a_control_process_without_descriptors_changes_no_state(ab):
    import resource

    a, b = ab
    with proxy(monitored(settings(a, b), failures=1)) as p:
        wait_checked(p, a, b)
        pid = p.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(used, 3), before[1]))
        until(lambda: "[FLB-S181]" in p.stderr(), "checks that cannot be done")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_checked(p, a, b, times=2)
        assert [node["state"] for node in pool_of(p)] == ["up", "up"]
        assert "oo many open files" in p.stderr()
        assert "is down" not in p.stderr()


# --- other types ---


def test_tcp_and_a_port_of_its_own(ab):
    _, b = ab
    with RawNode(name="health", host=b.host) as health:
        with proxy(monitored(settings(b), type="tcp", port=health.port)) as p:
            wait_checked(p, b)
            health.stop()
            wait_state(p, b, "down")
            assert p.get().status == 503
            health.start()
            wait_state(p, b, "up")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_pool_with_proxy_protocol_is_introduced(version):
    header = {"v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"}[version]
    seen = []

    class Node(RawNode):
        def _serve(self, connection):
            try:
                seen.append(connection.reader.exactly(len(header)))
            except (Closed, Truncated, OSError):
                connection.finish("fin")  # a check that was under way when the proxy stopped
                return
            super()._serve(connection)

    with Node(reply(200), "a") as a:
        with proxy(monitored(settings(a, pool={"proxy_protocol": version}))) as p:
            wait_checked(p, a, times=2)
            assert node_of(p, a)["monitors"][0]["failures"] == 0
        assert set(seen) == {header}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.mark.parametrize("own", [False, True], ids=["pool", "own"])
def test_tls_as_the_pools_or_its_own(authority, own):
    good, other = authority.certificate("node.test"), authority.certificate("other.test")
    tls = {"ca": str(authority.file), "server_name": "node.test"}
    pems = [
        pair.certificate_path.read_bytes() + pair.key_path.read_bytes() for pair in (good, other)
    ]
    with TlsNode("a", pems[0]) as a, TlsNode("b", pems[1]) as b:
        config = monitored(settings(a, b, pool={"tls": tls}), start="down")
        if own:
            config["pools"]["web"]["tls"] = {**tls, "server_name": "nobody.test"}
            config["monitors"]["check"]["tls"] = tls
        with proxy(config) as p:
            assert wait_state(p, a, "up")["reason"] == "status 200"
            found = node_of(p, b)["monitors"][0]
            until(lambda: node_of(p, b)["monitors"][0]["checks"] >= 2, "b was checked")
            found = node_of(p, b)["monitors"][0]
            assert (found["state"], found["reason"]) == ("down", "TLS: hostname mismatch")
        assert {one["sni"] for one in a.handshakes} == {"node.test"}


def test_type_tls_with_openssl(authority):
    pair = authority.certificate("node.test")
    pem = pair.certificate_path.read_bytes() + pair.key_path.read_bytes()
    with OpensslServer(pem) as server, RawNode(b"nothing of TLS\r\n", "b") as b:
        config = settings(server.address, b)
        config["virtual_servers"]["shop"]["protocol"] = "tls"
        with proxy(monitored(config, type="tls", timeout="300ms")) as p:
            wait_state(p, b, "down")
            first = pool_of(p)[0]
            assert first["state"] == "up"
            assert first["monitors"][0]["reason"] in ("handshake done", "not checked yet")
            until(lambda: pool_of(p)[0]["monitors"][0]["checks"], "a handshake")
            assert pool_of(p)[0]["monitors"][0]["failures"] == 0


# --- functions ---

CHECKS = """
import asyncio, os, pathlib, time
HERE = pathlib.Path(__file__).parent

async def well(node):
    mode = (HERE / f"mode-{node.address}").read_text().strip()
    if mode == "raise":
        raise LookupError("no leader")
    if mode == "sleep":
        await asyncio.sleep(60)
    if mode == "block":
        time.sleep(60)
    if mode == "crash":
        os._exit(7)
    if mode == "none":
        return None
    assert (node.pool, node.name) == ("web", node.address) and node.port > 0
    return mode == "good"
"""


@pytest.fixture
def functions(ab, tmp_path):
    """A proxy whose nodes are as the files beside its configuration say."""
    a, b = ab

    class Story:
        def say(self, node, mode):
            (self.p.folder / f"mode-{node.host}").write_text(mode)

    story = Story()
    config = monitored(settings(a, b), type="python", function="checks:well", timeout="1s")

    def kind(config, folder):
        from tests.harness import Proxy

        (folder / "checks.py").write_text(CHECKS)
        for node in ab:
            (folder / f"mode-{node.host}").write_text("good")
        return Proxy(config, folder)

    with proxy(config, kind) as p:
        story.p, story.config = p, config
        wait_checked(p, a, b)
        yield story


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("bad", "the function says no"),
        ("raise", "LookupError: no leader at checks.py:8"),
        ("none", "returned None, expected True or False"),
        ("sleep", "no answer within 1 s"),
    ],
)
def test_what_a_function_says(ab, functions, mode, reason):
    p = functions.p
    functions.say(ab[1], mode)
    assert wait_state(p, ab[1], "down")["reason"] == reason
    assert node_of(p, ab[0])["monitors"][0]["failures"] == 0
    functions.say(ab[1], "good")
    wait_state(p, ab[1], "up")


def test_a_function_that_blocks_is_its_own_nodes_failure(ab, functions):
    p = functions.p
    functions.say(ab[1], "block")
    until(lambda: node_of(p, ab[1])["monitors"][0]["failures"], "the one that blocks has failed")
    assert (
        "holds its process for more than 2 s at checks.py:12"
        in (node_of(p, ab[1])["monitors"][0]["reason"])
    )
    functions.say(ab[1], "good")
    wait_checked(p, *ab)
    assert node_of(p, ab[0])["monitors"][0]["failures"] == 0
    assert "[FLB-S182]" in p.stderr()


def test_a_process_of_functions_that_ends_changes_no_state(ab, functions):
    p = functions.p
    functions.say(ab[1], "crash")
    until(lambda: "ended with exit status 7" in p.stderr(), "its end is said")
    functions.say(ab[1], "good")
    wait_checked(p, *ab)
    for node in ab:
        found = node_of(p, node)
        assert (found["state"], found["monitors"][0]["failures"]) == ("up", 0)


def test_a_reload_takes_a_changed_function(ab, functions):
    p = functions.p
    file = p.folder / "checks.py"
    file.write_text("async def well(node):\n    return False\n")
    assert p.reload(functions.config).returncode == 0
    wait_state(p, ab[0], "down")
    file.write_text("def well(node):\n    return True\n")
    done = p.reload(functions.config)
    assert done.returncode != 0
    assert '"well" is not async; expected an async function' in done.stderr
