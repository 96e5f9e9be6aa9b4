"""A head and the edits beside it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .rule_words import HEAD, head, run, seen, trial


def test_lines_before_the_request_line_are_not_part_of_it():
    received = b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    assert seen(lambda r: r.target, received) == "/a"

    def change(request):
        request.headers["X"] = "y"

    assert head(change, received) == b"GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"


def test_one_edited_line_leaves_all_others_byte_for_byte():
    lines = [b"A%d:  %b\t" % (i, b"\xff" * i) for i in range(100)]
    received = b"GET / HTTP/1.1\r\nHost:h\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"

    def change(request):
        request.headers["a50"] = "new"
        del request.headers["A99"]
        del request.headers["A0"]

    kept = b"\r\n".join([*lines[1:50], b"a50: new", *lines[51:99]])
    assert head(change, received) == b"GET / HTTP/1.1\r\nHost:h\r\n" + kept + b"\r\n\r\n"


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)))
def test_any_lines_may_go_or_change(removed, changed):
    def change(request):
        for i in removed:
            del request.headers[f"A{i}"]
        for i in changed - removed:
            request.headers[f"A{i}"] = "new"

    lines = [b"A%d: %d" % (i, i) for i in range(20)]
    received = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"
    expected = [
        b"A%d: new" % i if i in changed else lines[i] for i in range(20) if i not in removed
    ]
    built = head(change, received) or received
    assert built.split(b"\r\n")[2:-2] == expected


def test_a_message_near_the_limit_may_still_be_changed():
    """What came in under wider bounds may go out as long as it was, not longer."""
    filler = b"F: " + b"x" * 8000
    received = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"\r\n".join([filler] * 5) + b"\r\n"
    received += b"A: " + b"y" * (40 * 1024 - len(received) - 7) + b"\r\n\r\n"
    assert len(received) == 40 * 1024

    def longer(request):
        request.headers["B"] = "1"

    def shorter(request):
        request.headers["A"] = "1"

    assert len(head(shorter, received)) < len(received)
    with pytest.raises(ValueError, match="head-too-long"):
        head(longer, received)


def test_the_body_ends_where_it_ended():
    received = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX: 1\r\n\r\n"

    def change(request):
        request.headers["X"] = "2"
        request.method = "PUT"

    assert head(change, received) == (
        b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX: 2\r\n\r\n"
    )


def test_a_head_that_is_not_parsed_yet_is_parsed_when_it_is_asked_for():
    made = trial()
    made.forget_parsed()
    found = []
    run(lambda r: found.extend((r.path, r.headers["host"], len(r.headers))), made)
    assert found == ["/shop/cart", "www.example.com", 6]
    made.forget_parsed()
    assert run(lambda r: r.headers.add("X", "y"), made)["head"] == HEAD[:-2] + b"X: y\r\n\r\n"
