"""The node that the application names: what is one, and when it is obeyed."""

import pytest

from fastlb._core.shm import Segment
from tests.core.plans import Class, Node, Setting, get, state

NAME = "X-Zeus-Backend"
LISTED = ("delete_on_failure", "listed_only")


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


@pytest.fixture(scope="module")
def one():
    with Segment.create() as made:
        yield Setting(classes=[Class("zeus", type="x-zeus", flags=LISTED)]).world(made)


@pytest.mark.parametrize(("value", "node"), [
    ("10.0.0.2:80", "10.0.0.2:80"),
    ('"10.0.0.2:80"', "10.0.0.2:80"),
    (" 10.0.0.2:80 ", "10.0.0.2:80"),
    ("10.0.0.2", "10.0.0.2:0"),
    ("10.0.0.2:1", "10.0.0.2:1"),
    ("10.0.0.2:65535", "10.0.0.2:65535"),
    ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443"),
    ("[2001:db8::1]", "[2001:db8::1]:0"),
    ("2001:db8::1", "[2001:db8::1]:0"),
    ("::1", "[::1]:0"),
    ("[::ffff:10.0.0.2]:80", "10.0.0.2:80"),
    ("::ffff:10.0.0.2", "10.0.0.2:0"),
])  # fmt: skip
def test_what_names_a_node(one, value: str, node: str) -> None:
    found = one.find(0, "192.0.2.1", get(f"Cookie: a=b; {NAME}={value}; c=d"))
    assert (found["kind"], found["node"]) == ("node", node)


@pytest.mark.parametrize("value", [
    "", '""', "garbage", "node1", "node1:80", "example.com:80", "10.0.0.2:", "10.0.0.2:0",
    "10.0.0.2:080", "10.0.0.2:65536", "10.0.0.2:99999999999", "10.0.0.2:-1", "10.0.0.2:+80",
    "10.0.0.2:80:80", "10.0.0.2:8 0", "10.0.0.2:80x", "10.0.0:80", "10.0.0.256:80", "010.0.0.2",
    ":80", ":", "[]:80", "[", "]", "[2001:db8::1", "2001:db8::1]:80", "[2001:db8::1]80",
    "[2001:db8::1]:", "[2001:db8::1]:x", "[10.0.0.2]:80", "[[::1]]:80", "fe80::1%eth0",
    "[::1]:80]", "1:2:3:4:5:6:7:8:9", "10.0.0.2%3A80", "x" * 5000, "1" * 300 + ":80", "\xff\xfe",
    "10.0.0.2/80", "http://10.0.0.2:80", "10.0.0.2:80 10.0.0.3:80",
])  # fmt: skip
def test_what_does_not(one, value: str) -> None:
    found = one.find(0, "192.0.2.1", get(f"Cookie: {NAME}={value}"))
    assert (found["kind"], found["outcome"]) == ("nothing", "unknown-node")


@pytest.mark.parametrize("fields", [
    [], ["Cookie:"], ["Cookie: a=10.0.0.2:80"], [f"Cookie: {NAME}"],
    [f"Cookie: {NAME.lower()}=10.0.0.2:80"], [f"Cookie: {NAME}x=10.0.0.2:80"],
    [f"{NAME}: 10.0.0.2:80"],
])  # fmt: skip
def test_without_the_cookie(one, fields: list[str]) -> None:
    found = one.find(0, "192.0.2.1", get(*fields))
    assert (found["kind"], found["outcome"], found["cookie_seen"]) == ("nothing", "no-key", False)


def test_no_head(one) -> None:
    assert one.find(0, "192.0.2.1")["outcome"] == "no-key"


@pytest.mark.parametrize("fields", [
    [f"Cookie: {NAME}=10.0.0.2:80; {NAME}=10.0.0.3:80"],
    [f"Cookie: {NAME}=10.0.0.2:80", f"Cookie: {NAME}=x"],
    [f"Cookie: {NAME}=10.0.0.2:; {NAME}=10.0.0.2:80; {NAME}=10.0.0.1:80"],
    [f"Cookie: {NAME}=", f"Cookie: {NAME}=10.0.0.2:80"],
])  # fmt: skip
def test_the_first_that_names_a_node_counts(one, fields: list[str]) -> None:
    found = one.find(0, "192.0.2.1", get(*fields))
    assert (found["node"], found["duplicates"]) == ("10.0.0.2:80", True)
    assert one.decide("192.0.2.1", get(*fields)).duplicates is True


# ---- decisions ----


def zeus(segment: Segment, *more: Class, nodes: list[Node] | None = None, **changes):
    cls = Class("zeus", type="x-zeus", flags=LISTED, **changes)
    setting = Setting(classes=[cls, *more])
    if nodes:
        setting.nodes = nodes
    return setting.world(segment)


def named(value: str) -> bytes:
    return get(f"Cookie: {NAME}={value}")


def test_a_node_of_the_pool_is_obeyed(segment: Segment) -> None:
    world = zeus(segment)
    for number in (1, 3, 2):
        made = world.decide("192.0.2.1", named(f"10.0.0.{number}:80"))
        assert (made.node, made.outcome, made.found_in) == (number - 1, "hit", "cookie")
        assert (made.established, made.writes) == (True, [])


def test_an_address_alone_means_its_only_node(segment: Segment) -> None:
    made = zeus(segment).decide("192.0.2.1", named("10.0.0.2"))
    # Nothing has moved: that is what was named.
    assert (made.node, made.outcome, made.previous) == (1, "hit", None)


def test_another_port_means_the_only_node_too(segment: Segment) -> None:
    made = zeus(segment).decide("192.0.2.1", named("10.0.0.2:8080"))
    assert (made.node, made.outcome, made.previous) == (1, "moved", "10.0.0.2:8080")


def test_an_address_with_two_nodes_means_neither(segment: Segment) -> None:
    world = zeus(segment, nodes=[Node("10.0.0.1:80"), Node("10.0.0.2:81"), Node("10.0.0.2:82")])
    assert world.decide("192.0.2.1", named("10.0.0.2")).outcome == "unknown-node"
    assert world.decide("192.0.2.1", named("10.0.0.2:82")).node == 2


@pytest.mark.parametrize("mode", ["new-node", "close", "redirect"])
@pytest.mark.parametrize("value", ["10.0.0.9:80", "127.0.0.1:22", "169.254.169.254", "garbage"])
def test_a_node_outside_the_pool_is_never_obeyed(segment: Segment, value: str, mode: str) -> None:
    world = zeus(segment, failure_mode=mode)
    made = world.decide("192.0.2.1", named(value))
    assert (made.outcome, made.action, made.established) == ("unknown-node", "forward", False)


def test_then_the_fallback_is_asked(segment: Segment) -> None:
    world = zeus(segment, Class("by-ip"), fallback="by-ip")
    world.put(1, "192.0.2.1", "10.0.0.3", 80)
    for request in (named("10.0.0.9:80"), named("garbage"), get()):
        made = world.decide("192.0.2.1", request)
        assert (made.node, made.outcome, made.found_class) == (2, "hit", 1)
    assert world.decide("192.0.2.1", named("10.0.0.1:80")).node == 0


def test_a_named_node_that_is_down_meets_the_failure_mode_each_time(segment: Segment) -> None:
    world = zeus(segment, Class("by-ip"), fallback="by-ip", failure_mode="close")
    state(world, 1, "down")
    for value in ("10.0.0.2:80", "10.0.0.2") * 2:
        made = world.decide("192.0.2.1", named(value))
        assert (made.action, made.outcome, made.previous) == ("close", "node-down", "10.0.0.2:80")
    state(world, 1, "up")
    assert world.decide("192.0.2.1", named("10.0.0.2:80")).outcome == "hit"


def test_new_node_is_chosen_each_time(segment: Segment) -> None:
    world = zeus(segment)
    state(world, 1, "disabled")
    chosen = {world.decide("192.0.2.1", named("10.0.0.2")).node for _ in range(4)}
    assert chosen == {0, 2}
    assert world.decide("192.0.2.1", named("10.0.0.2")).outcome == "node-disabled"


def test_an_address_alone_and_a_map_of_the_fallback(segment: Segment) -> None:
    """The node that could not serve is the one that maps name, too: they move with the session."""
    world = zeus(segment, Class("by-ip"), fallback="by-ip")
    world.put(1, "192.0.2.1", "10.0.0.2", 80)
    state(world, 1, "down")
    made = world.decide("192.0.2.1", named("10.0.0.2"))
    assert made.node != 1
    assert list(world.maps(1).values()) == [f"10.0.0.{made.node + 1}:80"]


def test_draining(segment: Segment) -> None:
    world = zeus(segment)
    state(world, 1, "draining")
    made = world.decide("192.0.2.1", named("10.0.0.2:80"))
    assert (made.node, made.outcome) == (1, "draining")
