"""Sessions by the application's cookie: what a request says, and what becomes of it.

What is common to the inserted cookies (ages, quoting, names) is in test_persist_transparent;
responses are in test_set_cookie.
"""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_followed import carry
from fastlb._core.shm import Segment
from tests.core.plans import KEYS, Class, Setting, get

NOW = 1800000000
APP = "PHPSESSID"
CLS = Class("shop", type="cookie", session_cookie=APP)
K = f"K-{APP}-{CLS.id:08x}"


@cache
def world(**more):
    """A world with such a class, and what makes its cookies' values."""
    cls = Class("shop", type="cookie", session_cookie=APP, names=[(K, -1)], **more)
    setting = Setting(classes=[cls, Class("other", type="transparent")])
    with Segment.create() as segment:
        return setting.world(segment), setting.cookie


PLAIN, value = world()
GOOD = value("10.0.0.2:80")
ALSO = value("10.0.0.3:80")
FOREIGN = value("10.0.0.2:80", "other")
CARRYING = carry(KEYS[1], GOOD.encode(), b"x=1; Path=/shop; Domain=a.b; Secure").decode()
TWO, THREE = "10.0.0.2:80", "10.0.0.3:80"


@pytest.mark.parametrize(("fields", "outcome", "node", "session", "seen", "twice"), [
    # Without the application's cookie there is no session, whatever else there is.
    ([], "no-key", None, False, False, False),
    ([f"Cookie: {K}={GOOD}"], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}; {K}={GOOD}"], "no-key", None, False, True, True),
    ([f"Cookie: {K}=x"], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}; {APP}="], "no-key", None, False, True, False),
    ([f'Cookie: {K}={GOOD}; {APP}=""'], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}; {APP}"], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}; {APP.lower()}=1"], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}; x{APP}=1; {APP}x=1"], "no-key", None, False, True, False),
    ([f"Cookie: {K}={GOOD}", f"X: {APP}=1"], "no-key", None, False, True, False),
    # Alone it is a session whose node nobody knows.
    ([f"Cookie: {APP}=1"], "new", None, True, False, False),
    ([f"Cookie: {APP}=1; {K}=x"], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}="], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}={FOREIGN}"], "other-class", None, True, True, False),
    # Both, in any place and order.
    ([f"Cookie: {APP}=1; {K}={GOOD}"], "new", TWO, True, True, False),
    ([f"Cookie: {K}={GOOD}; {APP}=1"], "new", TWO, True, True, False),
    ([f"Cookie: {K}={GOOD}", f"Cookie: {APP}=1"], "new", TWO, True, True, False),
    ([f"Cookie: {APP}=1", "Cookie:", f"Cookie: a=b; {K}={GOOD}"], "new", TWO, True, True, False),
    ([f'Cookie: {APP}="a b"; {K}="{GOOD}"'], "new", TWO, True, True, False),
    ([f'Cookie: $Version=1; {APP}="1"; $Path=/; {K}="{GOOD}"; $Path=/'],
     "new", TWO, True, True, False),
    ([f"Cookie: {APP}=; {APP}=1; {K}={GOOD}"], "new", TWO, True, True, False),
    ([f"Cookie: {APP}=\xff\xfe; {K}={GOOD}"], "new", TWO, True, True, False),
    # Several of ours: the first valid one.
    ([f"Cookie: {APP}=1; {K}={GOOD}; {K}={ALSO}"], "new", TWO, True, True, True),
    ([f"Cookie: {APP}=1; {K}={ALSO}; {K}={GOOD}"], "new", THREE, True, True, True),
    ([f"Cookie: {APP}=1; {K}=x; {K}={GOOD}"], "tampered", TWO, True, True, True),
    # With the attributes that it was written with.
    ([f"Cookie: {APP}=1; {K}={CARRYING}"], "new", TWO, True, True, False),
    ([f"Cookie: {APP}=1; {K}={CARRYING[:-1]}"], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}={CARRYING.replace('/shop', '/shoq')}"],
     "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}={CARRYING.replace(GOOD, ALSO)}"], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}={GOOD}."], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}=.{GOOD}"], "tampered", None, True, True, False),
    ([f"Cookie: {APP}=1; {K}={GOOD}" + "x" * 30000], "tampered", None, True, True, False),
])  # fmt: skip
def test_what_is_found(
    fields: list[str], outcome: str, node, session: bool, seen: bool, twice: bool
) -> None:
    found = PLAIN.find(0, "192.0.2.1", get(*fields))
    assert (found["kind"], found["node"]) == ("node" if node else "nothing", node)
    assert found["outcome"] == outcome
    assert (found["session_seen"], found["cookie_seen"]) == (session, seen)
    assert found["duplicates"] is twice
    assert found["rewrite"] is False


def test_no_head() -> None:
    found = PLAIN.find(0, "192.0.2.1")
    assert (found["kind"], found["outcome"]) == ("nothing", "no-key")


def test_many_empty_ones_take_no_longer_than_as_many_others() -> None:
    fields = [f"Cookie: {';'.join([APP + '='] * 3000)}; {APP}=1; {K}={GOOD}"]
    assert PLAIN.find(0, "192.0.2.1", get(*fields))["node"] == TWO


def test_ages() -> None:
    limited, make = world(timeout_s=1600, max_lifetime_s=90000)

    def found(first: int, last: int, app: str = f"{APP}=1; ") -> dict:
        text = make(TWO, first_seen=NOW - first, last_seen=NOW - last)
        return limited.find(0, "192.0.2.1", get(f"Cookie: {app}{K}={text}"))

    assert (found(500, 50)["kind"], found(500, 50)["rewrite"]) == ("node", False)
    assert (found(500, 100)["rewrite"], found(500, 100)["first_seen_s"]) == (True, NOW - 500)
    assert (found(5000, 1601)["kind"], found(5000, 1601)["outcome"]) == ("nothing", "expired")
    assert found(90001, 1)["outcome"] == "expired"
    assert found(5000, 1601, app="")["outcome"] == "no-key"


ONE_VALUE = [GOOD, CARRYING]


@given(st.sampled_from(ONE_VALUE), st.integers(0, 300), st.integers(0x21, 0x7E))
def test_no_change_of_one_byte_is_ever_accepted(good: str, at: int, byte: int) -> None:
    at %= len(good)
    changed = good[:at] + chr(byte) + good[at + 1 :]
    if changed == good or chr(byte) in ';,"':
        return  # the same, or the end of the value
    found = PLAIN.find(0, "192.0.2.1", get(f"Cookie: {APP}=1; {K}={changed}"))
    assert (found["kind"], found["outcome"]) == ("nothing", "tampered")


# ---- decisions ----


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


def decided(segment: Segment, *fields: str, **more):
    cls = Class("shop", type="cookie", session_cookie=APP, names=[(K, -1)], **more)
    made = Setting(classes=[cls, Class("by-ip")]).world(segment)
    return made.decide("192.0.2.1", get(*fields))


def test_both_cookies_lead_to_the_node(segment: Segment) -> None:
    made = decided(segment, f"Cookie: {APP}=1; {K}={GOOD}")
    assert (made.outcome, made.node, made.found_in) == ("hit", 1, "cookie")
    assert made.cookies()[0] == {
        "seen": True, "session_seen": True, "write": False, "expire": False, "first_seen_s": 0,
    }  # fmt: skip


def test_ours_alone_leads_nowhere_but_is_seen_so_that_it_can_be_hidden(segment: Segment) -> None:
    made = decided(segment, f"Cookie: {K}={GOOD}")
    assert (made.outcome, made.established) == ("no-key", False)
    assert (made.cookies()[0]["seen"], made.cookies()[0]["session_seen"]) == (True, False)


def test_the_fallback_is_asked_and_its_session_gets_no_cookie(segment: Segment) -> None:
    cls = Class("shop", type="cookie", session_cookie=APP, names=[(K, -1)], fallback="by-ip")
    world = Setting(classes=[cls, Class("by-ip")]).world(segment)
    first = world.decide("192.0.2.1", get())
    again = world.decide("192.0.2.1", get(f"Cookie: {APP}=1"))
    assert (again.outcome, again.node, again.found_class) == ("hit", first.node, 1)
    assert again.cookies()[0]["write"] is False
    assert again.cookies()[0]["session_seen"] is True


def test_failure_modes(segment: Segment) -> None:
    gone = value("10.9.9.9:80")
    made = decided(segment, f"Cookie: {APP}=1; {K}={gone}")
    assert (made.outcome, made.action, made.writes) == ("node-removed", "forward", [0])
    with Segment.create() as other:
        made = decided(other, f"Cookie: {APP}=1; {K}={gone}", failure_mode="close")
        assert (made.action, made.expires) == ("close", [0])
