"""The response that response rules see."""

import pytest

from fastlb import rule

from .rule_words import ANSWER, answer, run, seen_in_answer, trial


def status_line(name, value, received=ANSWER):
    def change(_, response):
        setattr(response, name, value)

    return answer(change, received).partition(b"\r\n")[0]


def test_what_it_is():
    found = seen_in_answer(lambda r: (r.status, r.reason, r.node, r.node.port))
    assert found == (200, "Fine", "10.0.0.1:80", 80)
    connect, first_byte, seconds = seen_in_answer(lambda r: r.timings)
    assert (connect, first_byte) == (0.0015, 0.0025)
    assert seconds >= 0


def test_a_new_status_has_its_own_reason():
    assert status_line("status", 404) == b"HTTP/1.1 404 Not Found"
    assert status_line("status", 599) == b"HTTP/1.1 599 "
    assert status_line("status", 200) == b"HTTP/1.1 200 Fine"
    assert status_line("reason", "Great") == b"HTTP/1.1 200 Great"
    assert status_line("reason", "") == b"HTTP/1.1 200 "

    def both(_, response):
        response.reason = "Gone fishing"
        response.status = 503
        assert (response.status, response.reason) == (503, "Gone fishing")

    assert answer(both).startswith(b"HTTP/1.1 503 Gone fishing\r\nContent-Length: 3\r\n")


@pytest.mark.parametrize("status", [99, 101, 199, 204, 304, 600, -200, 1 << 70])
def test_a_status_without_a_body_cannot_be_had(status):
    with pytest.raises(ValueError, match=r"response\.status"):
        status_line("status", status)


@pytest.mark.parametrize("status", [101, 204, 304])
def test_nor_can_one_get_a_body(status):
    received = b"HTTP/1.1 %d X\r\nServer: a\r\n\r\n" % status
    assert seen_in_answer(lambda r: r.status, received) == status
    with pytest.raises(ValueError, match=rf"cannot be changed from {status} to 200"):
        status_line("status", 200, received)


@pytest.mark.parametrize("value", ["200", 200.0, None, True, []])
def test_a_status_is_an_int(value):
    with pytest.raises(TypeError, match=r"response\.status: expected int"):
        status_line("status", value)


@pytest.mark.parametrize("value", ["a\r\nX: 1", "\0", "\x7f"])
def test_a_reason_is_one_line(value):
    with pytest.raises(ValueError, match=r"response\.reason: byte 0x"):
        status_line("reason", value)
    with pytest.raises(TypeError, match=r"response\.reason: expected str"):
        status_line("reason", 5)


def test_a_status_line_without_reason():
    received = b"HTTP/1.1 200\r\nServer: a\r\n\r\n"
    assert seen_in_answer(lambda r: r.reason, received) == ""

    def change(_, response):
        response.headers["Server"] = "b"

    assert answer(change, received) == b"HTTP/1.1 200\r\nServer: b\r\n\r\n"


def test_whoever_keeps_one_is_told():
    kept = []
    run(lambda _, r: kept.extend((r, r.headers, r.cookies, r.cookies["sid"])), trial("response"))
    run(lambda _, r: None, trial("response"))
    response, headers, cookies, cookie = kept
    for use in (
        lambda: response.status, lambda: response.node, lambda: response.timings,
        lambda: headers["Server"], lambda: cookies["sid"], lambda: cookie.value,
        lambda: cookie["Path"], lambda: cookie.__setitem__("Path", "/"),
    ):  # fmt: skip
        with pytest.raises(rule.RuleEnded):
            use()
    assert "has ended" in repr(response) + repr(cookie)


def test_what_nobody_keeps_is_used_again():
    made = trial("response")
    identities = set()
    made.set_rules([lambda q, r: identities.add((id(q), id(r), id(r.headers), id(r.cookies)))])
    for _ in range(20):
        made.run_plain()
    assert len(identities) == 1
