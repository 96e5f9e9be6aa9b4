"""A node that cannot be connected to: another one answers, once, with its own cookie."""

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings, sticky, until


def refused() -> str:
    """An address that refuses connections."""
    with RawNode() as node:
        return node.address


def test_a_request_goes_to_another_node_when_the_first_refuses():
    with HttpNode("a") as a, proxy(settings(refused(), a)) as p:
        assert [p.get().node for _ in range(6)] == ["a"] * 6


def test_a_body_is_not_lost_by_the_retry():
    with HttpNode("a") as a, proxy(settings(refused(), a)) as p:
        for _ in range(4):
            with p.client() as client:
                client.send(request(method="POST", body=b"x" * 100_000))
                assert client.response().json()["body"] == 100_000


def test_the_answer_after_retries_has_one_cookie_that_names_the_node_that_answered():
    with HttpNode("a") as a, proxy(sticky(refused(), refused(), a)) as p:
        for number in range(4):
            user = p.user(f"u{number}")
            assert len(user.get().all("Set-Cookie")) == 1
            for _ in range(3):
                assert user.get().all("Set-Cookie") == []
            assert user.nodes == ["a"] * 4


def test_retries_are_counted_in_the_log_and_bounded():
    with HttpNode("a") as a, proxy(settings(refused(), a)) as p:
        p.get()
        p.get()
        assert sum(line["retries"] for line in p.log(2)) >= 1
    with proxy(settings(*[refused() for _ in range(6)], pool={"retries": 2})) as p:
        assert p.get().status in (502, 503)
        assert p.log(1)[0]["retries"] == 2


def test_without_retries_the_refusal_is_the_answer():
    with proxy(settings(refused(), pool={"retries": 0})) as p:
        answer = p.get()
        assert answer.status in (502, 503)
        (line,) = p.log(1)
        assert (line["status"], line["retries"], bool(line["cause"])) == (answer.status, 0, True)


def test_a_node_that_comes_back_is_used_again():
    with HttpNode("a") as a, HttpNode("b") as b, proxy(settings(a, b)) as p:
        assert {p.get().node for _ in range(6)} == {"a", "b"}
        b.stop()
        assert {p.get().node for _ in range(6)} == {"a"}
        b.start()
        until(lambda: p.get().node == "b", "the node that came back is used")


def test_a_node_answer_of_any_status_is_an_answer_and_no_reason_to_retry():
    with RawNode(reply(503, b"busy")) as busy, HttpNode("a") as a:
        with proxy(settings(busy, a)) as p:
            assert [p.get().status for _ in range(4)].count(503) == 2
