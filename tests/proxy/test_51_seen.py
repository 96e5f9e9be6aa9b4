"""What an operator sees: the access log and the status."""

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings, sticky

KEYS = {
    "time", "client", "virtual_server", "method", "target", "status", "bytes_in", "bytes_out",
    "duration_ms", "pool", "node", "class", "found_in", "outcome", "previous_node", "retries",
}  # fmt: skip


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def test_each_request_is_one_json_line_with_its_decision(abc):
    with proxy(sticky(*abc)) as p:
        user = p.user("alice", source="127.0.0.31")
        user.get("/first?x=1")
        user.get("/second")
        first, second = p.log(2)
    assert set(first) >= KEYS
    assert (first["virtual_server"], first["pool"], first["class"]) == ("shop", "web", "shop")
    assert (first["method"], first["target"], first["status"]) == ("GET", "/first?x=1", 200)
    assert first["client"].startswith("127.0.0.31")
    assert first["node"] in {node.address for node in abc}
    assert (first["outcome"], first["found_in"]) == ("new", "none")
    assert (second["outcome"], second["found_in"]) == ("hit", "cookie")
    assert second["node"] == first["node"]
    assert first["bytes_in"] > 0
    assert first["bytes_out"] > 0
    assert first["duration_ms"] >= 0


def test_sizes_are_counted(abc):
    with RawNode(reply(200, b"z" * 100_000)) as node, proxy(settings(node)) as p:
        with p.client() as client:
            client.send(request(method="POST", body=b"x" * 50_000))
            client.response()
        (line,) = p.log(1)
    assert 50_000 <= line["bytes_in"] < 51_000
    assert 100_000 <= line["bytes_out"] < 101_000


def test_hostile_bytes_do_not_break_the_log(abc):
    target = "/%22\"\\\\'<>{}|^`"
    with proxy(settings(*abc)) as p:
        with p.client() as client:
            client.send(request(target) + request("/after"))
            client.response()
            client.sock.settimeout(10)
        lines = p.log(1)
    assert lines[0]["target"] in (target, "/after") or lines[0]["status"] == 400


def test_the_combined_format(abc):
    config = settings(*abc, access_log_format="combined")
    with proxy(config) as p:
        p.get("/page", ("Referer", "http://r.test/"), ("User-Agent", "tester"))
        from tests.harness import until

        line = until(lambda: p.log_file.exists() and p.log_file.read_text(), "a line")
    assert '"GET /page HTTP/1.1" 200 ' in line
    assert '"http://r.test/" "tester"' in line


def test_the_log_can_be_off_or_on_stdout(abc):
    with proxy(settings(*abc, access_log="off")) as p:
        p.get("/unlogged")
        assert "/unlogged" not in (p.folder / "stdout").read_text() + p.stderr()
    with proxy(settings(*abc, access_log="stdout")) as p:
        p.get("/logged")
        from tests.harness import until

        until(lambda: '"/logged"' in (p.folder / "stdout").read_text(), "the line on stdout")


def test_status_has_the_documented_shape(abc):
    with proxy(sticky(*abc, workers=2)) as p:
        for number in range(5):
            p.user(f"u{number}").get()
        status = p.status()
    assert set(status) >= {
        "version", "uptime_seconds", "workers", "virtual_servers", "pools", "persistence",
    }  # fmt: skip
    assert len(status["workers"]) == 2
    for worker in status["workers"]:
        assert set(worker) >= {"pid", "connections", "requests", "gil_acquisitions"}
    assert sum(worker["requests"] for worker in status["workers"]) == 5
    assert status["virtual_servers"]["shop"]["requests"] == 5
    nodes = status["pools"]["web"]["nodes"]
    assert [node["address"] for node in nodes] == [node.address for node in abc]
    for node in nodes:
        assert set(node) >= {"address", "state", "weight", "connections", "sessions"}
    assert status["persistence"]["shop"]["type"] == "transparent"


def test_the_outcomes_of_a_class_are_counted(abc):
    with proxy(sticky(*abc)) as p:
        user = p.user("alice")
        for _ in range(4):
            user.get()
        ((name, value),) = user.cookies.items()
        p.get("/", ("Cookie", f"{name}={value}x"), ("User-Agent", "a forger"))
        outcomes = p.status()["persistence"]["shop"]["outcomes"]
    assert {key: count for key, count in outcomes.items() if count} == {
        "new": 1, "hit": 3, "tampered": 1,
    }  # fmt: skip


def test_connections_are_counted_while_they_are_open(abc):
    with proxy(settings(*abc)) as p:
        with p.client() as one, p.client() as two:
            one.ask()
            two.ask()
            assert p.status()["virtual_servers"]["shop"]["connections"] == 2
