"""Sessions out of fastlb's own cookie; ages and outcomes are in test_decide's tables too."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get

NOW = 1800000000
COOKIE = Class("shop", type="transparent")
NAME = COOKIE.cookie_name
DAY = 86400


@cache
def world(**more):
    """A world with such a class, and what makes its cookies' values."""
    setting = Setting(classes=[Class("shop", type="transparent", **more),
                               Class("other", type="transparent")])  # fmt: skip
    with Segment.create() as segment:
        return setting.world(segment), setting.cookie


PLAIN, value = world()
GOOD = value("10.0.0.2:80")
ALSO = value("[2001:db8::1]:443")
FOREIGN = value("10.0.0.2:80", "other")


@pytest.mark.parametrize(("fields", "kind", "outcome", "node", "seen", "twice"), [
    ([], "nothing", "new", None, False, False),
    (["Cookie:"], "nothing", "new", None, False, False),
    (["Cookie: a=b"], "nothing", "new", None, False, False),
    ([f"Cookie: {NAME}={GOOD}"], "node", "new", "10.0.0.2:80", True, False),
    ([f"Cookie: a=b; {NAME}={ALSO}; c=d"], "node", "new", "[2001:db8::1]:443", True, False),
    ([f'Cookie: {NAME}="{GOOD}"'], "node", "new", "10.0.0.2:80", True, False),
    ([f"Cookie: {NAME} = {GOOD}"], "node", "new", "10.0.0.2:80", True, False),
    ([f'Cookie: $Version=1; {NAME}="{GOOD}"; $Path=/'], "node", "new", "10.0.0.2:80", True, False),
    ([f"Cookie: {NAME}={GOOD}; {NAME}={ALSO}"], "node", "new", "10.0.0.2:80", True, True),
    ([f"Cookie: {NAME}={ALSO}", f"Cookie: {NAME}={GOOD}"], "node", "new", "[2001:db8::1]:443",
     True, True),
    ([f"Cookie: {NAME}=x; {NAME}={GOOD}"], "node", "tampered", "10.0.0.2:80", True, True),
    ([f"Cookie: {NAME}=x"], "nothing", "tampered", None, True, False),
    ([f"Cookie: {NAME}="], "nothing", "tampered", None, True, False),
    ([f"Cookie: {NAME}"], "nothing", "new", None, False, False),
    ([f"Cookie: {NAME}={FOREIGN}"], "nothing", "other-class", None, True, False),
    ([f"Cookie: {NAME.lower()}={GOOD}"], "nothing", "new", None, False, False),
    ([f"Cookie: {NAME}x={GOOD}; x{NAME}={GOOD}"], "nothing", "new", None, False, False),
    ([f"X: {NAME}={GOOD}"], "nothing", "new", None, False, False),
])  # fmt: skip
def test_what_is_found(fields: list[str], kind, outcome, node, seen: bool, twice: bool) -> None:
    found = PLAIN.find(0, "192.0.2.1", get(*fields))
    assert (found["kind"], found["node"]) == (kind, node)
    assert found["outcome"] == outcome  # of a value that was of no use
    assert (found["cookie_seen"], found["duplicates"]) == (seen, twice)
    assert found["rewrite"] is False


def test_no_head() -> None:
    assert PLAIN.find(0, "192.0.2.1")["kind"] == "nothing"


def test_three_are_several() -> None:
    found = PLAIN.find(0, "192.0.2.1", get(f"Cookie: {NAME}=1; {NAME}=2; {NAME}=3"))
    assert found["duplicates"] is True


def test_an_expired_one_before_a_valid_one_says_nothing_about_its_dates() -> None:
    limited, make = world(timeout_s=1600)
    old = make("10.0.0.1:80", first_seen=NOW - 9999, last_seen=NOW - 9999)
    new = make("10.0.0.2:80", first_seen=NOW - 50, last_seen=NOW)
    found = limited.find(0, "192.0.2.1", get(f"Cookie: {NAME}={old}; {NAME}={new}"))
    assert (found["node"], found["first_seen_s"]) == ("10.0.0.2:80", NOW - 50)
    assert found["rewrite"] is False
    found = limited.find(0, "192.0.2.1", get(f"Cookie: {NAME}={old}"))
    assert (found["kind"], found["outcome"], found["rewrite"]) == ("nothing", "expired", False)


limits = st.sampled_from([0, 1, 15, 16, 160, 1600, DAY])
ages = st.integers(-2 * DAY, 2 * DAY) | st.integers(-20, 20) | st.sampled_from([-DAY, -DAY - 1])


@given(limits, limits, ages, ages)
def test_ages_against_a_model(timeout: int, lifetime: int, first_age: int, last_age: int) -> None:
    made, make = world(timeout_s=timeout, max_lifetime_s=lifetime)
    text = make("10.0.0.2:80", first_seen=NOW - first_age, last_seen=NOW - last_age)
    found = made.find(0, "192.0.2.1", get(f"Cookie: {NAME}={text}"))

    def too_old(age: int, limit: int) -> bool:
        return bool(limit) and (age > limit or age < -DAY)

    if too_old(last_age, timeout) or too_old(first_age, lifetime):
        assert (found["kind"], found["outcome"]) == ("nothing", "expired")
        return
    assert (found["kind"], found["first_seen_s"]) == ("node", NOW - first_age)
    granule = max(timeout // 16, 1)
    wanted = not (timeout or lifetime) or (bool(timeout) and last_age >= granule)
    assert found["rewrite"] == wanted
