"""A client that loses its cookie is found by the fallback class, and gets no second cookie."""

import pytest

from tests.harness import HttpNode, proxy, sticky


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def chained(nodes, **more):
    return sticky(*nodes, fallback="by-ip", classes={"by-ip": {"type": "ip"}}, **more)


def test_a_request_without_its_cookie_finds_the_session_by_address(abc):
    with proxy(chained(abc)) as p:
        user = p.user("alice", source="127.0.0.21")
        user.get()
        for _ in range(5):
            lost = p.get("/", source="127.0.0.21")
            assert (lost.node, lost.all("Set-Cookie")) == (user.nodes[0], [])
        lines = p.log(6)
    assert (lines[0]["outcome"], lines[0]["found_in"]) == ("new", "none")
    assert [(line["outcome"], line["found_in"], line["found_class"]) for line in lines[1:]] == [
        ("hit", "cache", "by-ip")
    ] * 5


def test_the_cookie_is_asked_before_the_fallback(abc):
    with proxy(chained(abc)) as p:
        alice = p.user("alice", source="127.0.0.22")
        bob = p.user("bob", source="127.0.0.23")
        alice.get()
        bob.get()
        assert alice.nodes != bob.nodes
        answer = p.get("/", ("Cookie", cookie(alice)), source="127.0.0.23")
        assert answer.node == alice.nodes[0]
        assert p.log(3)[-1]["found_in"] == "cookie"


def cookie(user):
    return "; ".join(f"{name}={value}" for name, value in user.cookies.items())


def test_another_address_is_another_client(abc):
    with proxy(chained(abc)) as p:
        homes = [p.get("/", source=f"127.0.0.{n}").node for n in range(31, 37)]
    assert set(homes) == {"a", "b", "c"}


def test_reissue_gives_the_client_its_cookie_again(abc):
    with proxy(chained(abc, reissue=True)) as p:
        user = p.user("alice", source="127.0.0.24")
        user.get()
        user.cookies.clear()
        assert len(user.get().all("Set-Cookie")) == 1
        assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


def test_a_tampered_cookie_falls_back_too(abc):
    with proxy(chained(abc)) as p:
        user = p.user("alice", source="127.0.0.25")
        user.get()
        ((name, value),) = user.cookies.items()
        answer = p.get("/", ("Cookie", f"{name}={value[:-2]}zz"), source="127.0.0.25")
        assert answer.node == user.nodes[0]


def test_a_moved_session_moves_in_the_fallback_too():
    nodes = {name: HttpNode(name) for name in "abc"}
    for node in nodes.values():
        node.start()
    try:
        with proxy(chained(nodes.values())) as p:
            user = p.user("alice", source="127.0.0.26")
            user.get()
            nodes[user.nodes[0]].stop()
            user.get()
            assert p.get("/", source="127.0.0.26").node == user.nodes[-1] != user.nodes[0]
    finally:
        for node in nodes.values():
            node.stop()


def test_a_chain_of_three(abc):
    config = sticky(
        *abc,
        fallback="second",
        reserve="0s",
        classes={
            "second": {
                "type": "transparent",
                "fallback": "third",
                "name": "SECOND",
                "reserve": "0s",
            },
            "third": {"type": "ip"},
        },
    )
    with proxy(config) as p:
        first = p.get("/", source="127.0.0.27")
        for _ in range(4):
            assert p.get("/", source="127.0.0.27").node == first.node
        assert p.log(5)[-1]["found_class"] == "third"


def test_the_ip_class_alone_records_no_cookie(abc):
    config = sticky(*abc)
    config["persistence"]["shop"] = {"type": "ip"}
    with proxy(config) as p:
        assert p.get().all("Set-Cookie") == []
