"""Sessions out of `NSC_…` cookies: the appliance's own values, and encrypted ones."""

from functools import cache
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_plan import PlanImage
from fastlb._core._testing_sealed import acquisitions, seal, write
from fastlb._core.shm import Segment
from tests.core.plans import Class, Node, Setting, get

NOW = 1800000000
DAY = 86400
EXAMPLE = "ffffffff3c19594d45525d5f4f58455e445a4a423660"  # 63.17.71.92:80, published
NAME = "NSC_mc_uftu"


def passphrase(number: int) -> tuple[bytes, bytes]:
    return bytes(range(number, number + 64)), bytes(range(number + 64, number + 80))


FIRST, OLDER, FOREIGN = passphrase(1), passphrase(2), passphrase(3)


def cls(**more) -> Class:
    flags = ("hide_cookie", "protect_cache")
    flags += () if more.get("passphrases") else ("listed_only",)
    values = {"type": "cookie-insert", "names": [(NAME, -1)], "flags": flags}
    return Class("shop", **(values | more))


@cache
def world(**more):
    keys = [FIRST, OLDER] if more.pop("encrypted", False) else []
    setting = Setting(classes=[cls(passphrases=keys, **more)])
    with Segment.create() as segment:
        return setting.world(segment)


def find(value: str, **more) -> dict:
    return world(**more).find(0, "192.0.2.1", get(f"Cookie: {NAME}={value}"))


def written(ip: str, port: int, first: int = 0, **more) -> str:
    return write(PlanImage(Setting(classes=[cls(**more)]).blob()), 0, ip, port, first, NOW)


# ---- as the appliance does it ----


def test_the_published_example() -> None:
    assert written("63.17.71.92", 80) == EXAMPLE
    assert find(EXAMPLE)["node"] == "63.17.71.92:80"


@pytest.mark.parametrize("value", [
    EXAMPLE.upper(),
    f'"{EXAMPLE}"',
    "00000000" + EXAMPLE[8:],
    "09ABcdef" + EXAMPLE[8:],
    EXAMPLE[:16] + "0" * 24 + EXAMPLE[40:],
    EXAMPLE[:16] + "45525D5F4F58455E445A4A43" + EXAMPLE[40:],
])  # fmt: skip
def test_what_differs_between_appliances_is_taken(value: str) -> None:
    assert find(value)["node"] == "63.17.71.92:80"


@pytest.mark.parametrize("value", [
    "",
    "x",
    EXAMPLE[:-1],
    EXAMPLE + "0",
    EXAMPLE[:-2],
    EXAMPLE + "00",
    "g" + EXAMPLE[1:],
    EXAMPLE[:20] + "/" + EXAMPLE[21:],
    EXAMPLE[:20] + ":" + EXAMPLE[21:],
    EXAMPLE[:20] + "@" + EXAMPLE[21:],
    EXAMPLE[:20] + "\x80" + EXAMPLE[21:],
    EXAMPLE[:-1] + "-",
    "%66" + EXAMPLE[3:],
    "0" * 67,
    "0" * 69,
    "f" * 8000,
])  # fmt: skip
def test_any_other_shape_is_tampered(value: str) -> None:
    found = find(value)
    assert (found["kind"], found["outcome"]) == ("nothing", "tampered")
    assert found["cookie_seen"] is True


addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(1 << 100, 2**128 - 1)
)


@given(addresses, st.integers(0, 65535))
def test_round_trip(ip, port: int) -> None:
    value = written(str(ip), port)
    assert len(value) == (44 if ip.version == 4 else 68)
    found = find(value)
    assert found["node"] == (f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}")
    assert (found["first_seen_s"], found["last_seen_s"], found["rewrite"]) == (0, 0, False)


@given(st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_against_the_description_in_words(ip: int, port: int) -> None:
    assert written(str(IPv4Address(ip)), port) == (
        f"ffffffff{ip ^ 0x03081E11:08x}45525d5f4f58455e445a4a42{port ^ 0x3630:04x}"
    )


def test_the_age_of_a_plain_value_is_the_browsers_affair() -> None:
    found = find(EXAMPLE, timeout_s=60, max_lifetime_s=60)
    assert (found["node"], found["rewrite"]) == ("63.17.71.92:80", False)
    assert written("63.17.71.92", 80, timeout_s=60) == EXAMPLE


def test_a_node_that_the_pool_lacks_is_no_session(segment: Segment) -> None:
    made = Setting(classes=[cls()], nodes=[Node("63.17.71.92:80"), Node("10.0.0.2:80")]).world(
        segment
    )
    good = made.decide("192.0.2.1", get(f"Cookie: {NAME}={EXAMPLE}"))
    assert (good.outcome, good.node, good.writes) == ("hit", 0, [])
    for ip, port in (("63.17.71.93", 80), ("127.0.0.1", 22), ("::1", 80)):
        forged = made.decide("192.0.2.1", get(f"Cookie: {NAME}={written(ip, port)}"))
        assert (forged.outcome, forged.established) == ("unknown-node", False)
        assert forged.writes == [0]


def test_another_port_of_the_only_node_with_that_address_is_that_node(segment: Segment) -> None:
    made = Setting(classes=[cls()], nodes=[Node("10.0.0.1:80"), Node("10.0.0.2:80")]).world(segment)
    moved = made.decide("192.0.2.1", get(f"Cookie: {NAME}={written('10.0.0.2', 8080)}"))
    assert (moved.outcome, moved.node, moved.writes) == ("moved", 1, [0])


# ---- encrypted ----


def sealed(node: str = "10.0.0.2:80", key=FIRST, name: str = "shop", first=0, last=0) -> str:
    at = Node(node)
    return seal([key], at.ip, at.port, Class(name).id, first, last).decode()


@pytest.mark.parametrize("value", [sealed(), f'"{sealed()}"', sealed("[2001:db8::1]:443")])
def test_what_this_class_wrote_is_found(value: str) -> None:
    found = find(value, encrypted=True)
    assert found["node"] == ("10.0.0.2:80" if len(value) < 60 else "[2001:db8::1]:443")
    assert (found["rewrite"], found["outcome"]) == (False, "new")


def test_writing_is_with_the_first_passphrase() -> None:
    assert written("10.0.0.2", 80, passphrases=[FIRST, OLDER]) == sealed()
    assert written("10.0.0.2", 80, passphrases=[OLDER, FIRST]) == sealed(key=OLDER)


def test_a_cookie_of_an_older_passphrase_is_taken_and_written_again() -> None:
    found = find(sealed(key=OLDER), encrypted=True)
    assert (found["node"], found["rewrite"]) == ("10.0.0.2:80", True)


def test_rotation_keeps_the_dates() -> None:
    value = sealed(key=OLDER, first=NOW - 500, last=NOW)
    found = find(value, encrypted=True, timeout_s=1600)
    assert (found["rewrite"], found["first_seen_s"]) == (True, NOW - 500)
    again = written("10.0.0.2", 80, NOW - 500, passphrases=[FIRST], timeout_s=1600)
    assert again == sealed(first=NOW - 500, last=NOW)


@pytest.mark.parametrize(("value", "outcome"), [
    (sealed(key=FOREIGN), "tampered"),
    (sealed(name="other"), "other-class"),
    (EXAMPLE, "tampered"),
    (written("10.0.0.2", 80), "tampered"),
    (sealed()[:-1], "tampered"),
    (sealed() + "=", "tampered"),
    ("", "tampered"),
    ("A" * 47, "tampered"),
    ("A" * 5000, "tampered"),
])  # fmt: skip
def test_what_it_did_not_write_is_refused(value: str, outcome: str) -> None:
    found = find(value, encrypted=True)
    assert (found["kind"], found["outcome"]) == ("nothing", outcome)
    assert found["rewrite"] is False


def test_an_encrypted_value_says_nothing_to_a_class_without_passphrase() -> None:
    assert find(sealed())["outcome"] == "tampered"


@pytest.mark.parametrize(("age", "kind", "rewrite"), [
    (0, "node", False), (99, "node", False), (100, "node", True), (1600, "node", True),
    (1601, "nothing", False), (-DAY, "node", False), (-DAY - 1, "nothing", False),
])  # fmt: skip
def test_idle_age_is_enforced_from_the_dates_inside(age: int, kind: str, rewrite: bool) -> None:
    found = find(sealed(first=NOW - 3000, last=NOW - age), encrypted=True, timeout_s=1600)
    assert (found["kind"], found["rewrite"]) == (kind, rewrite)
    assert found["outcome"] == ("new" if kind == "node" else "expired")


def test_absolute_age_is_enforced_from_the_dates_inside() -> None:
    for age, kind in ((1600, "node"), (1601, "nothing")):
        value = sealed(first=NOW - age, last=NOW)
        assert find(value, encrypted=True, max_lifetime_s=1600)["kind"] == kind


def test_dates_come_with_limits_and_go_with_them() -> None:
    assert find(sealed(), encrypted=True, timeout_s=1600)["rewrite"] is True
    assert find(sealed(first=NOW, last=NOW), encrypted=True)["rewrite"] is True
    keys = {"passphrases": [FIRST]}
    assert written("10.0.0.2", 80, 77, **keys) == sealed()
    assert written("10.0.0.2", 80, timeout_s=9, **keys) == sealed(first=NOW, last=NOW)
    assert written("10.0.0.2", 80, 77, timeout_s=9, **keys) == sealed(first=77, last=NOW)


def test_a_node_that_is_gone_is_the_failure_modes_affair(segment: Segment) -> None:
    made = Setting(classes=[cls(passphrases=[FIRST], failure_mode="close")]).world(segment)
    gone = made.decide("192.0.2.1", get(f"Cookie: {NAME}={sealed('10.0.0.99:80')}"))
    assert (gone.outcome, gone.action) == ("node-removed", "close")


@given(st.sampled_from([sealed(), sealed("[2001:db8::1]:443"), sealed(first=NOW, last=NOW)]),
       st.integers(0, 73), st.sampled_from(range(33, 127)))  # fmt: skip
@settings(max_examples=200)
def test_no_single_byte_change_is_ever_obeyed(value: str, at: int, byte: int) -> None:
    at %= len(value)
    changed = value[:at] + chr(byte) + value[at + 1 :]
    found = find(changed, encrypted=True)
    assert (found["kind"] == "node") == (changed == value)


def test_many_users_cost_as_many_decryptions_as_there_are_values() -> None:
    made = world(encrypted=True)
    head = get(f"Cookie: {NAME}={sealed('10.0.0.3:99')}")
    made.find(0, "192.0.2.1", head)
    before = acquisitions()
    for _ in range(200):
        assert made.find(0, "192.0.2.1", head)["kind"] == "node"
    assert acquisitions() == before


def test_a_flood_of_wrong_cookies_takes_no_gil() -> None:
    made = world(encrypted=True)
    head = get(f"Cookie: {NAME}={sealed('10.0.0.3:98')}")
    made.find(0, "192.0.2.1", head)
    before = acquisitions()
    for number in range(10000):
        wrong = get(f"Cookie: {NAME}={number:047d}; {NAME}={number:058x}")
        assert made.find(0, "192.0.2.1", wrong)["outcome"] == "tampered"
    assert made.find(0, "192.0.2.1", head)["kind"] == "node"
    assert acquisitions() == before
