"""The fields that rules add to a line of the log; what else they ask for is told in
tests/proxy/test_110_rules_path.py."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_rules import merged

LIMIT = 2048
VALUES = st.integers(-5, 5) | st.booleans() | st.text(max_size=6)
FIELDS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


def members(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":"))[1:-1].encode()


@settings(max_examples=200)
@given(st.lists(FIELDS, max_size=5))
def test_what_is_said_last_stays_and_nothing_twice(said: list[dict[str, object]]) -> None:
    whole: dict[str, object] = {}
    for one in said:
        for name in one:
            whole.pop(name, None)
        whole.update(one)
    pairs = json.loads(
        b"{" + merged([members(one) for one in said if one]) + b"}", object_pairs_hook=list
    )
    assert [name for name, _ in pairs] == list(whole)
    assert dict(pairs) == whole


def test_the_bound_drops_what_was_there_for_what_is_new() -> None:
    old = members({"a": "x" * 1500})
    assert merged([old, members({"b": "y" * 1500})]) == members({"b": "y" * 1500})
    assert merged([old, members({"b": "y" * 400})]) == members({"a": "x" * 1500, "b": "y" * 400})
    assert merged([old, members({"b": "y" * LIMIT})]) == old


def test_commas_quotes_and_colons_inside_of_names_and_values() -> None:
    first = {'a,"b': ',"c":1', "c": 'x"'}
    second = {"c": ':,"', 'a,"b': True}
    assert json.loads(b"{" + merged([members(first), members(second)]) + b"}") == second
