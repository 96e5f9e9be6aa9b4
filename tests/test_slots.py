"""Numbers that stay with their names over reloads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb.check import check_text
from fastlb.config import Config
from fastlb.slots import ListenerKey, NodeKey, Numbers, Slots


def config(nodes: str, server: str = "a", cls: str = "", rules: str = "") -> Config:
    text = f'[virtual_servers.{server}]\nlisten = ["127.0.0.1:80", "[::1]:80"]\npool = "web"\n'
    text += f"rules = [{rules}]\n"
    text += f'[pools.web]\nnodes = [{nodes}]\n[pools.other]\nnodes = ["10.0.0.1:80"]\n{cls}'
    found = check_text(text, Path("x")).config
    assert found is not None
    return found


def test_a_number_stays_and_a_freed_one_comes_back_last() -> None:
    numbers: Numbers[str] = Numbers(4)
    assert numbers.take("abc") == ["a", "b", "c"]
    assert numbers.take("cab") == []
    freed = numbers.free("b")
    numbers.take("d")
    assert numbers.used == {"a": 0, "c": 2, "d": 3}
    numbers.take("e")
    assert numbers.used["e"] == freed


def test_a_full_table_takes_nothing() -> None:
    numbers: Numbers[str] = Numbers(2)
    numbers.take("a")
    with pytest.raises(OverflowError):
        numbers.take("bc")
    assert numbers.used == {"a": 0}


@given(st.lists(st.sets(st.integers(0, 30), max_size=12), max_size=12))
def test_no_number_is_anyone_elses(steps: list[set[int]]) -> None:
    numbers: Numbers[int] = Numbers(24)
    for wanted in steps:
        before = dict(numbers.used)
        numbers.take(wanted)
        for key in set(numbers.used) - wanted:
            numbers.free(key)
        assert len(set(numbers.used.values())) == len(numbers.used)
        assert all(0 <= number < 24 for number in numbers.used.values())
        assert all(numbers.used[key] == before[key] for key in wanted & set(before))


def test_slots_follow_addresses_not_order() -> None:
    slots = Slots()
    slots.take(config('"10.0.0.1:80", "10.0.0.2:80"'))
    first = dict(slots.nodes.used)
    taken = slots.take(config('"10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"'))
    assert taken.nodes == [NodeKey("web", "10.0.0.3", 80)]
    assert {key: slots.nodes.used[key] for key in first} == first
    assert len({slots.nodes.used[NodeKey(pool, "10.0.0.1", 80)] for pool in ("web", "other")}) == 2


def test_a_rule_keeps_its_number() -> None:
    slots = Slots()
    slots.take(config("", rules='"shop:a", "shop:b"'))
    before = slots.rules.used["shop:b"]
    new = config("", rules='"shop:c", "shop:b"')
    assert slots.take(new).rules == ["shop:c"]
    assert slots.rules.used["shop:b"] == before
    assert slots.unused(new).rules == ["shop:a"]


def test_what_is_not_named_any_more_is_told() -> None:
    slots = Slots()
    slots.take(config('"10.0.0.1:80"', cls='[persistence.c]\ntype = "ip"\n'))
    new = config('"10.0.0.2:80"', server="b")
    slots.take(new)
    gone = slots.unused(new)
    assert gone.nodes == [NodeKey("web", "10.0.0.1", 80)]
    assert (gone.classes, gone.virtual_servers, gone.pools) == (["c"], ["a"], [])
    assert gone.listeners == [
        ListenerKey("a", address) for address in new.virtual_servers["b"].listen
    ]


def test_giving_back_undoes_taking() -> None:
    slots = Slots()
    slots.take(config('"10.0.0.1:80"'))
    before = {kind: dict(numbers.used) for kind, numbers in vars(slots).items()}
    slots.give_back(slots.take(config('"10.0.0.2:80"', server="b")))
    assert {kind: dict(numbers.used) for kind, numbers in vars(slots).items()} == before


def test_too_many_nodes_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots()
    slots.classes.room = 0
    with pytest.raises(OverflowError):
        slots.take(config('"10.0.0.1:80"', cls='[persistence.c]\ntype = "ip"\n'))
    assert [dict(numbers.used) for numbers in vars(slots).values()] == [{}] * 6
