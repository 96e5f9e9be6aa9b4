"""Texts between rules and heads; mostly through what uses them, since all of it is Python's."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .rule_words import head, run, seen

ANY_BYTES = st.binary(min_size=1, max_size=30).map(
    lambda raw: bytes(c for c in raw if c >= 0x20 and c != 0x7F).strip()
)


@settings(max_examples=80, deadline=None)
@given(ANY_BYTES)
def test_any_bytes_come_back_as_they_were(raw):
    received = b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % raw

    def copy(request):
        assert request.headers["X"].encode("utf-8", "surrogateescape") == raw
        request.headers["Y"] = request.headers["X"]
        request.persistence_key = request.headers["X"]

    assert head(copy, received) == received[:-2] + b"Y: %b\r\n\r\n" % raw


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_path_can_be_set_and_is_read_as_it_was_set(text):
    path = "/" + text

    def change(request):
        request.path = path
        assert request.path == path

    changed = head(change)
    assert seen(lambda request: request.path, changed) == path
    assert seen(lambda request: request.raw_query, changed) == "id=5&x=a%20b"


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_parameter_can_be_set_and_is_read_as_it_was_set(text):
    def change(request):
        request.query["a"] = text
        request.query[text] = "b"
        assert request.query[text] == "b"

    assert text in seen(lambda request: list(request.query), head(change))


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_what_is_logged_reads_the_same(value):
    def log(request):
        request.log["x"] = value

    member = run(log)["log"]
    assert json.loads(b"{" + member + b"}") == {"x": value}
    assert not any(byte < 0x20 or byte == 0x7F for byte in member)


@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC7F, 0xDD00, 0xDFFF])
def test_surrogates_that_are_no_bytes_are_refused(code):
    def change(request):
        request.headers["X"] = f"a{chr(code)}"

    with pytest.raises(ValueError, match=r"character U\+D[0-9A-F]{3} at 1 stands for no text"):
        head(change)


def test_no_byte_below_0x80_hides_in_a_surrogate():
    for code in range(0xDC00, 0xDC80):
        with pytest.raises(ValueError, match="stands for no text"):
            head(lambda request, code=code: request.headers.__setitem__("X", chr(code)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, r"int \(5\)"), (1 << 4000, "int$"), (None, "None"), (b"x" * 500, r"b'x{60}'\.\.\."),
        ([1], "list"), (True, r"bool \(True\)"), (1.5, r"float \(1\.5\)"),
    ],
)  # fmt: skip
def test_errors_show_what_was_found_in_short(value, words):
    def change(request):
        request.headers["X"] = value

    with pytest.raises(TypeError, match=rf"expected str, found {words}"):
        head(change)
