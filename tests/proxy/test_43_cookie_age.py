"""Idle and absolute age are the proxy's to enforce, from dates inside the cookie.

Time must pass here. Each test asks until the thing has happened; none asserts that it has not
happened yet at some moment.
"""

import itertools

import pytest

from tests.harness import HttpNode, proxy, sticky, until


@pytest.fixture
def ab():
    with HttpNode("a") as a, HttpNode("b") as b:
        yield a, b


def cookie_of(user):
    return "; ".join(f"{name}={value}" for name, value in user.cookies.items())


def test_a_cookie_that_a_client_kept_beyond_the_idle_time_has_expired(ab):
    with proxy(sticky(*ab, timeout="1s")) as p:
        user = p.user("alice")
        user.get()
        old = cookie_of(user)
        until(lambda: "expired" in outcome_of(p, old), "the old cookie expires")


numbers = itertools.count()


def outcome_of(p, cookie):
    target = f"/{next(numbers)}"
    p.get(target, ("Cookie", cookie))
    return p.log_of(target)["outcome"]


def test_use_renews_the_idle_time_and_the_node_stays(ab):
    with proxy(sticky(*ab, timeout="2s")) as p:
        user = p.user("alice")
        user.get()
        first = cookie_of(user)
        until(lambda: user.get() and "expired" in outcome_of(p, first), "the first value expires")
        user.get()
    assert len(set(user.nodes)) == 1
    assert cookie_of(user) != first


def test_the_last_seen_date_is_not_rewritten_at_each_request(ab):
    with proxy(sticky(*ab, timeout="1h")) as p:
        user = p.user("alice")
        user.get()
        assert [len(user.get().all("Set-Cookie")) for _ in range(20)] == [0] * 20


def test_the_absolute_age_is_not_renewed_by_use(ab):
    with proxy(sticky(*ab, max_lifetime="1s")) as p:
        user = p.user("alice")
        user.get()
        first = cookie_of(user)

        def renewed():
            user.get()
            return cookie_of(user) != first

        until(renewed, "a new cookie after max_lifetime in spite of constant use")
        until(
            lambda: "expired" in [line["outcome"] for line in p.log_lines()],
            "the line of the request whose session was too old",
        )


def test_a_timeout_lets_the_browser_keep_the_cookie_as_long(ab):
    """Without one it is a browser-session cookie (`timeout = "0s"`)."""
    with proxy(sticky(*ab, timeout="1h", max_lifetime="8h")) as p:
        (line,) = p.user("alice").get().all("Set-Cookie")
    assert {part.strip() for part in line.decode().split(";")[1:]} == {
        "HttpOnly",
        "Path=/",
        "Max-Age=3600",
    }


def test_a_cookie_without_dates_is_accepted_when_limits_come_and_gets_dates(ab):
    undated = sticky(*ab)
    dated = sticky(*ab, timeout="1h")
    with proxy(undated) as p:
        user = p.user("alice")
        user.get()
        assert p.reload(dated).returncode == 0
        assert len(user.get().all("Set-Cookie")) == 1
        assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1
