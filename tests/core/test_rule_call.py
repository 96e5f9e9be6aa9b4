"""What a call takes along when it leaves the worker's thread."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_rules import owned

TEXT = st.none() | st.binary(max_size=3000)


@settings(max_examples=50)
@given(st.lists(TEXT, min_size=7, max_size=7))
def test_the_facts_are_copies(texts: list[bytes | None]) -> None:
    assert owned(texts) == texts


def test_what_is_not_set_stays_so_beside_what_is_empty() -> None:
    assert owned([None, b"", b"x", None, None, b"", b"y"]) == [
        None,
        b"",
        b"x",
        None,
        None,
        b"",
        b"y",
    ]


def test_nothing_at_all() -> None:
    assert owned([None] * 7) == [None] * 7
