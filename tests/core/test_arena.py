"""Texts one behind the other, which stay what they are while the memory grows and moves."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_rules import BYTES_MAX, FIRST_BYTES, KEPT_BYTES, Texts


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=3000), max_size=30))
def test_texts_stay_what_they_are(texts: list[bytes]) -> None:
    arena = Texts()
    spans = [arena.add(text) for text in texts]
    assert [arena.at(*span) for span in spans] == texts
    assert arena.used == sum(map(len, texts)) <= arena.size or not texts


def test_an_unused_one_has_no_memory_and_grows_by_doubling() -> None:
    arena = Texts()
    assert (arena.used, arena.size) == (0, 0)
    assert arena.add(b"a") == (0, 1)
    assert arena.size == FIRST_BYTES
    assert arena.add(b"b" * FIRST_BYTES) == (1, FIRST_BYTES)
    assert (arena.used, arena.size) == (FIRST_BYTES + 1, 2 * FIRST_BYTES)


def test_a_cleared_one_keeps_usual_memory_and_gives_much_back() -> None:
    arena = Texts()
    arena.add(b"x" * KEPT_BYTES)
    arena.clear()
    assert (arena.used, arena.size) == (0, KEPT_BYTES)
    arena.add(b"x" * (KEPT_BYTES + 1))
    arena.clear()
    assert (arena.used, arena.size) == (0, 0)
    assert arena.at(*arena.add(b"again")) == b"again"


def test_the_bound_is_reached_and_what_was_there_stays() -> None:
    arena = Texts()
    span = arena.add(b"first")
    assert arena.room(BYTES_MAX - 5)
    assert not arena.room(1)
    assert arena.add(b"1") is None
    assert arena.add(b"") == (BYTES_MAX, 0)
    assert arena.at(*span) == b"first"
    arena.clear()
    assert not arena.room(BYTES_MAX + 1)
    assert not arena.room(0xFFFFFFFF)
    assert (arena.used, arena.size) == (0, 0)
