"""The indices that a plan has beside its tables."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_plan_read import read_plan
from tests.core.plans import Class, Setting, nodes


@pytest.mark.parametrize("count", [1, 15, 16, 17, 250])
def test_pools_of_every_size_come_back_whole(count: int) -> None:
    read = read_plan(Setting(nodes=nodes(count)).blob())
    addresses = [one["address"] for one in read["pools"][0]["nodes"]]
    assert len(set(addresses)) == count
    assert all(ipaddress.ip_address(one.rpartition(":")[0].strip("[]")) for one in addresses)


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from(["delete_on_failure", "reissue", "preserve", "hide_cookie"]),
        min_size=1,
        max_size=5,
    )
)
def test_a_class_knows_the_flags_of_all_behind_it(flags: list[str]) -> None:
    classes = [
        Class(f"c{i}", flags=(flag,), fallback=f"c{i + 1}" if i + 1 < len(flags) else "")
        for i, flag in enumerate(flags)
    ]
    read = read_plan(Setting(classes=classes).blob())["classes"]
    for i in range(len(flags)):
        expected = 0
        for cls in read[i:]:
            expected |= cls["flags"]
        assert read[i]["chain_flags"] == expected
