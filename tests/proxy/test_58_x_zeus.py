"""The application names the node itself, in the cookie X-Zeus-Backend."""

import pytest

from tests.harness import HttpNode, RawNode, changed, proxy, settings, until

NAME = "X-Zeus-Backend"


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def zeus(*nodes, **keys):
    classes = keys.pop("classes", None)
    return settings(*nodes, persistence={"type": "x-zeus", **keys}, classes=classes)


def named(value):
    return ("Cookie", f"theme=dark; {NAME}={value}")


def test_the_named_node_serves_and_nothing_is_set(abc):
    with proxy(zeus(*abc)) as p:
        for node in (*abc, *abc[::-1]):
            for value in (node.address, f'"{node.address}"', node.host):
                answer = p.get("/", named(value))
                assert (answer.node, answer.all("Set-Cookie")) == (node.name, [])
        assert {p.get().node for _ in range(3)} == {"a", "b", "c"}


def test_the_node_sees_the_cookie(abc):
    with proxy(zeus(*abc)) as p:
        sent = named(abc[0].address)
        assert [*sent] in p.get("/", sent).json()["fields"]


def test_ipv6():
    with HttpNode("six", host="::1") as six, HttpNode("four") as four:
        with proxy(zeus(six, four)) as p:
            for value in (six.address, "[::1]", "::1"):
                assert {p.get("/", named(value)).node for _ in range(3)} == {"six"}


def test_many_names_on_one_connection_are_decided_one_by_one(abc):
    with proxy(zeus(*abc)) as p, p.client() as client:
        for node in abc * 3:
            assert client.ask("/", named(node.address)).node == node.name


def test_a_node_outside_the_pool_is_never_obeyed(abc):
    with RawNode() as outside, proxy(zeus(*abc)) as p:
        values = [
            outside.address,
            outside.host,
            "127.0.0.1:22",
            "localhost:80",
            "",
            "%",
            "x" * 4000,
        ]
        for number, value in enumerate(values):
            assert p.get(f"/{number}", named(value)).node in ("a", "b", "c")
            assert p.log_of(f"/{number}")["outcome"] == "unknown-node"
        assert outside.connections == []
        assert p.get("/none", ("Cookie", "a=b")).status == 200
        assert p.log_of("/none")["outcome"] == "no-key"


def test_a_fallback_is_asked_then(abc):
    with proxy(zeus(*abc, fallback="by-ip", classes={"by-ip": {"type": "ip"}})) as p:
        home = p.get(source="127.0.22.1").node
        for _ in range(3):
            assert p.get("/", named("127.9.9.9:1"), source="127.0.22.1").node == home


def test_the_first_that_names_a_node_counts(abc):
    a, b, _ = abc
    with proxy(zeus(*abc)) as p:
        assert p.get("/", named("x"), named(b.address), named(a.address)).node == "b"


@pytest.mark.parametrize(("mode", "status"), [("close", 503), ("redirect", 302)])
def test_it_stays_named_and_each_request_meets_the_failure_mode(abc, mode, status):
    keys = {"redirect_url": "/sorry"} if mode == "redirect" else {}
    with proxy(zeus(*abc, failure_mode=mode, **keys)) as p:
        b = abc[1]
        b.stop()
        assert [p.get("/", named(b.address)).status for _ in range(3)] == [status] * 3
        b.start()
        until(lambda: p.get("/", named(b.address)).status == 200, "the node serves again")
        assert p.get("/", named(b.address)).node == "b"


def test_new_node_serves_in_its_place(abc):
    with proxy(zeus(*abc)) as p:
        abc[1].stop()
        assert {p.get("/", named(abc[1].address)).node for _ in range(4)} <= {"a", "c"}


def test_a_draining_node_is_obeyed(abc):
    listed = [abc[0], {"address": abc[1], "draining": True}]
    with proxy(changed(zeus(*abc), "pools.web.nodes", listed)) as p:
        assert {p.get("/", named(abc[1].address)).node for _ in range(3)} == {"b"}
        assert {p.get().node for _ in range(3)} == {"a"}


def test_the_log_says_once_per_class_that_it_is_deprecated(abc):
    with proxy(zeus(*abc)) as p:
        for _ in range(3):
            p.get("/", named(abc[0].address))
        said = [line for line in p.stderr().splitlines() if "deprecated" in line]
        assert len(said) == 1
        assert "[persistence.shop] type" in said[0]
        done = p.reload(p.config)
        assert done.returncode == 0
        assert (done.stdout + done.stderr).count("deprecated") == 1
