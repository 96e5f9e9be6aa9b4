"""A client that loses its cookie on some requests: what is said of it, and what it is given."""

import pytest

from tests.harness import HttpNode, proxy, settings, sticky

BROWSER = ("User-Agent", "Mozilla/5.0 (lossy)")


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def lost(p):
    """The log's line of the first request without cookie that is no parallel one any more."""
    for number in range(200):
        target = f"/lost{number}"
        p.get(target, BROWSER)
        line = p.log_of(target)
        if line["outcome"] != "reserved":
            return line
    raise AssertionError("the reservation does not end")


def test_a_client_that_comes_back_without_its_cookie(abc):
    with proxy(sticky(*abc, reserve="10ms")) as p:
        assert p.get("/first", BROWSER).all("Set-Cookie")
        line = lost(p)
        assert line["outcome"] == "cookie-lost"
        assert (line["found_in"], line["found_class"]) == ("none", None)
        # Another browser at the same address is another client.
        p.get("/other", ("User-Agent", "curl"))
        assert p.log_of("/other")["outcome"] == "new"
        counted = p.status()["persistence"]["shop"]["outcomes"]
        assert counted["cookie-lost"] >= 1


def test_without_reservations_nothing_is_remembered(abc):
    with proxy(sticky(*abc, reserve="0s")) as p:
        for _ in range(3):
            p.get("/", BROWSER)
        assert p.outcomes(3) == ["new"] * 3


def test_a_client_with_its_cookie_has_not_lost_it(abc):
    with proxy(sticky(*abc, reserve="10ms")) as p:
        user = p.user("alice")
        for _ in range(3):
            user.get("/")
        assert p.outcomes(3) == ["new", "hit", "hit"]


def test_a_fallback_that_knows_the_session_is_better_than_knowing_of_the_loss(abc):
    config = sticky(*abc, reserve="10ms", fallback="by-ip", classes={"by-ip": {"type": "ip"}})
    with proxy(config) as p:
        first = p.get("/", BROWSER)
        assert p.get("/", BROWSER).node == first.node
        assert p.outcomes(2) == ["new", "hit"]


def test_every_worker_knows_of_the_cookie(abc):
    with proxy(sticky(*abc, reserve="10ms", workers=2)) as p:
        p.get("/first", BROWSER)
        assert [p.get(f"/{n}", BROWSER).status for n in range(20)] == [200] * 20
        assert lost(p)["outcome"] == "cookie-lost"
        assert [line["target"] for line in p.log(22) if line["outcome"] == "new"] == ["/first"]


def hashing(abc, **more):
    return settings(
        *abc,
        persistence={"type": "transparent", "fallback": "by-hash", **more},
        classes={"by-hash": {"type": "hash", "on": "source"}},
    )


def test_a_hash_as_fallback_begins_sessions_that_the_cookie_keeps(abc):
    with proxy(hashing(abc, reserve="10ms")) as p:
        user = p.user("alice")
        assert len(user.get("/one").all("Set-Cookie")) == 1
        assert user.get("/two").all("Set-Cookie") == []
        assert len(set(user.nodes)) == 1
        assert p.outcomes(2) == ["hashed", "hit"]


def test_a_hash_as_fallback_serves_a_lost_cookie_and_displaces_nothing(abc):
    with proxy(hashing(abc, reserve="10ms")) as p:
        first = p.get("/first", BROWSER)
        assert len(first.all("Set-Cookie")) == 1
        for number in range(200):
            answer = p.get(f"/{number}", BROWSER)
            assert answer.node == first.node
            if p.log_of(f"/{number}")["outcome"] == "cookie-lost":
                assert answer.all("Set-Cookie") == []
                break
        else:
            raise AssertionError("never cookie-lost")
