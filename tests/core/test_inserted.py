"""Looking for an inserted cookie: whose name, which of several, and what is counted.

Values, ages and outcomes of the common, single name are in test_persist_transparent.py.
"""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get

NOW = 1800000000
SERVERS = {"OWN": 0, "NEXT": 1, "LAST": 2}


@cache
def world(**more):
    """A class that three virtual servers write, each under its name; `find` asks as server 0."""
    names = list(SERVERS.items())
    setting = Setting(classes=[Class("shop", type="transparent", names=names, **more)])
    with Segment.create() as segment:
        return setting.world(segment), setting.cookie


PLAIN, value = world()
ONE, TWO, THREE = (value(f"10.0.0.{number}:80") for number in (1, 2, 3))
NODES = {ONE: "10.0.0.1:80", TWO: "10.0.0.2:80", THREE: "10.0.0.3:80"}


def find(*fields: str, made=PLAIN, server: int = 0) -> dict:
    return made.find(0, "192.0.2.1", get(*fields), server=server)


@pytest.mark.parametrize(("cookies", "node", "rewrite"), [
    (f"OWN={ONE}", "10.0.0.1:80", False),
    (f"NEXT={TWO}", "10.0.0.2:80", True),
    (f"NEXT={TWO}; OWN={ONE}", "10.0.0.1:80", False),
    (f"OWN={ONE}; NEXT={TWO}", "10.0.0.1:80", False),
    (f"OWN=x; NEXT={TWO}", "10.0.0.2:80", True),
    (f"NEXT={TWO}; OWN=x", "10.0.0.2:80", True),
    (f"NEXT=x; LAST={THREE}", "10.0.0.3:80", True),
    (f"NEXT={TWO}; LAST={THREE}", "10.0.0.2:80", True),
    (f"NEXT={TWO}; LAST={THREE}; OWN={ONE}", "10.0.0.1:80", False),
    (f"NEXT=x; OWN={ONE}", "10.0.0.1:80", False),
    ("NEXT=x; OWN=y", None, False),
])  # fmt: skip
def test_the_own_name_wins_and_another_servers_is_obeyed_and_written_anew(
    cookies: str, node: str | None, rewrite: bool
) -> None:
    for fields in ([f"Cookie: {cookies}"], [f"Cookie: {one}" for one in cookies.split("; ")]):
        found = find(*fields)
        assert (found["kind"], found["node"]) == ("node" if node else "nothing", node)
        assert (found["rewrite"], found["cookie_seen"]) == (rewrite, True)
        assert found["duplicates"] is False


@pytest.mark.parametrize(("cookies", "twice"), [
    ("OWN=1; NEXT=2; LAST=3", False),
    ("OWN=1; OWN=1", True),
    ("OWN=1; NEXT=2; OWN=3", True),
    ("NEXT=1; LAST=2; NEXT=3", True),
    ("NEXT=1; x=2; LAST=3", False),
])  # fmt: skip
def test_only_the_same_name_twice_is_a_duplicate(cookies: str, twice: bool) -> None:
    assert find(f"Cookie: {cookies}")["duplicates"] is twice
    assert find(*(f"Cookie: {one}" for one in cookies.split("; ")))["duplicates"] is twice


def test_each_virtual_server_has_its_own() -> None:
    both = f"Cookie: OWN={ONE}; NEXT={TWO}"
    assert [find(both, server=server)["node"] for server in (0, 1, 2)] == [
        "10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80",
    ]  # fmt: skip
    assert [find(both, server=server)["rewrite"] for server in (0, 1, 2)] == [False, False, True]


def test_a_virtual_server_without_a_name_has_the_first_which_is_what_it_writes() -> None:
    found = find(f"Cookie: NEXT={TWO}; OWN={ONE}", server=9)
    assert (found["node"], found["rewrite"]) == ("10.0.0.1:80", False)


def test_one_name_for_all_is_everybodys_own() -> None:
    with Segment.create() as segment:
        made = Setting(classes=[Class("shop", type="transparent", names=[("N", -1)])]).world(
            segment
        )
        for server in (0, 5):
            assert find(f"Cookie: N={ONE}", made=made, server=server)["rewrite"] is False


def test_the_outcome_is_of_what_was_of_no_use() -> None:
    assert find("Cookie: NEXT=x")["outcome"] == "tampered"
    assert find(f"Cookie: NEXT=x; OWN={ONE}")["outcome"] == "tampered"
    assert find(f"Cookie: NEXT={TWO}; OWN={ONE}")["outcome"] == "new"


def test_dates_are_those_of_the_cookie_that_counts() -> None:
    made, make = world(timeout_s=1600)
    old = make("10.0.0.1:80", first_seen=NOW - 9999, last_seen=NOW - 9999)
    mine = make("10.0.0.2:80", first_seen=NOW - 50, last_seen=NOW)
    others = make("10.0.0.3:80", first_seen=NOW - 70, last_seen=NOW - 1)
    for cookies, node, first, rewrite in (
        (f"NEXT={others}; OWN={mine}", "10.0.0.2:80", NOW - 50, False),
        (f"OWN={mine}; NEXT={old}", "10.0.0.2:80", NOW - 50, False),
        (f"OWN={old}; NEXT={others}", "10.0.0.3:80", NOW - 70, True),
        (f"NEXT={old}; OWN={mine}", "10.0.0.2:80", NOW - 50, False),
    ):
        found = find(f"Cookie: {cookies}", made=made)
        assert (found["node"], found["first_seen_s"]) == (node, first), cookies
        assert found["rewrite"] is rewrite, cookies
    found = find(f"Cookie: OWN={old}; NEXT={old}", made=made)
    assert (found["kind"], found["outcome"], found["rewrite"]) == ("nothing", "expired", False)


pairs = st.tuples(
    st.sampled_from([*SERVERS, "own", "X"]), st.sampled_from([ONE, TWO, THREE, "x", ""])
)


@given(st.lists(pairs, max_size=8), st.integers(0, 3))
def test_against_a_model(cookies: list[tuple[str, str]], server: int) -> None:
    found = find("Cookie: " + "; ".join(f"{n}={v}" for n, v in cookies), server=server)
    own = next((name for name, number in SERVERS.items() if number == server), "OWN")
    ours = [(name, val) for name, val in cookies if name in SERVERS]
    valid = [(name, val) for name, val in ours if val in NODES]
    first = next((one for one in valid if one[0] == own), next(iter(valid), None))
    assert found["node"] == (NODES[first[1]] if first else None)
    assert found["rewrite"] is bool(first and first[0] != own)
    names = [name for name, _ in ours]
    assert found["duplicates"] is (len(names) > len(set(names)))
    assert found["cookie_seen"] is bool(ours)
