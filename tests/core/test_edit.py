"""Cuts and insertions against a plain model of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_head as core

HEAD = b"0123456789abcdefghij"


def model(data: bytes, edits: list[tuple]) -> bytes:
    kept = [True] * len(data)
    inserts: list[tuple[int, bytes]] = []
    for kind, *arguments in edits:
        if kind in ("cut", "replace"):
            kept[arguments[0] : arguments[1]] = [False] * (arguments[1] - arguments[0])
        if kind == "replace":
            inserts.append((arguments[0], arguments[2]))
        if kind == "insert":
            inserts.append((arguments[0], arguments[1]))
    out = bytearray()
    for i in range(len(data) + 1):
        out += b"".join(text for at, text in inserts if at == i)
        out += data[i : i + 1] if i < len(data) and kept[i] else b""
    return bytes(out)


def test_no_edit_is_one_piece() -> None:
    assert core.edited(HEAD, []) == [HEAD]


def test_nothing_left() -> None:
    assert core.edited(HEAD, [("cut", 0, 20)]) == []


def test_touching_cuts_become_one() -> None:
    pieces = core.edited(HEAD, [("cut", 2, 4), ("cut", 6, 8), ("cut", 4, 6)])
    assert pieces == [b"01", b"89abcdefghij"]


def test_insertions_keep_their_order() -> None:
    assert core.edited(HEAD, [("insert", 20, b"X"), ("insert", 20, b"Y"), ("insert", 0, b"W")]) == [
        b"W",
        HEAD,
        b"X",
        b"Y",
    ]


def test_insertion_inside_a_cut_survives() -> None:
    assert b"".join(core.edited(HEAD, [("cut", 2, 18), ("insert", 9, b"X")])) == b"01Xij"


def test_replacement() -> None:
    assert core.edited(HEAD, [("replace", 0, 4, b"GET")]) == [b"GET", HEAD[4:]]


def test_too_many_cuts() -> None:
    data = bytes(400)
    cuts = [("cut", 2 * i, 2 * i + 1) for i in range(64)]
    assert core.edited(data, cuts) != "full"
    assert core.edited(data, [*cuts, ("cut", 300, 301)]) == "full"
    # One that touches another needs no room of its own.
    assert core.edited(data, [*cuts, ("cut", 1, 2)]) != "full"


def test_too_many_insertions() -> None:
    inserts = [("insert", i, b"x") for i in range(16)]
    assert len(core.edited(HEAD, inserts)) > 16
    assert core.edited(HEAD, [*inserts, ("insert", 3, b"y")]) == "full"


offsets = st.integers(0, len(HEAD))
spans = st.tuples(offsets, offsets).map(sorted)
words = st.binary(min_size=0, max_size=3)
edit_lists = st.lists(
    st.one_of(
        spans.map(lambda s: ("cut", *s)),
        st.tuples(st.just("insert"), offsets, words),
        st.tuples(spans, words).map(lambda s: ("replace", *s[0], s[1])),
    ),
    max_size=12,
)


@given(edit_lists)
@settings(max_examples=300)
def test_as_the_model(edits: list[tuple]) -> None:
    pieces = core.edited(HEAD, edits)
    assert b"".join(pieces) == model(HEAD, edits)
    assert all(pieces)
