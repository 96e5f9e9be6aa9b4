"""Texts of a plan's tables, wherever they come to stand."""

from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_plan_read import read_plan
from tests.core.plans import Class, Setting, nodes

NAMES = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), NAMES, st.integers(1, 40))
def test_each_table_finds_its_own_texts(names: list[str], text: str, count: int) -> None:
    classes = [
        Class(name, key=[("cookie", name + "k")], names=[(name + "c", -1)], tail=name + text,
              session_cookie=name + "s")
        for name in names
    ]  # fmt: skip
    rules = [f"{name}:rule" for name in names]
    setting = Setting(
        nodes=nodes(count), classes=classes, routes=[(text, text + "/", 0)], rules=rules
    )
    read = read_plan(setting.blob())
    assert [one["name"] for one in read["classes"]] == names
    assert [one["key"] for one in read["classes"]] == [[(1, name + "k")] for name in names]
    assert [one["cookie_names"] for one in read["classes"]] == [[(n + "c", -1)] for n in names]
    assert [one["cookie_tail"] for one in read["classes"]] == [name + text for name in names]
    assert [one["session_cookie"] for one in read["classes"]] == [name + "s" for name in names]
    assert [name for name, _ in read["rules"]["names"]] == rules
    assert read["rules"]["directory"] == b"."
    assert read["virtual_servers"][0]["routes"] == [(text, text + "/", 0)]
    assert read["pools"][0]["schedule"] == list(range(count))
    found = [one["name"] for one in read["pools"][0]["nodes"]]
    assert found == [f"10.0.0.{i + 1}:80" for i in range(count)]
