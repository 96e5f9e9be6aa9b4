"""A node that a rule names: in the pool or, where the pool allows it, anywhere in its networks."""

import os

import pytest

from fastlb._core._testing_decide import World
from fastlb._core._testing_message import Desk
from tests.core.plans import Class, Node, Setting, get, nodes, state, with_cookie

CLIENT = "192.0.2.1"
NAMED = Class("by-rule", type="named")
ANY = {"named": [("10.0.0.0", 8), ("2001:db8::", 32)]}
COOKIE = Class("shop", type="transparent", fallback="by-rule", flags=("reissue",))
IP = Class("by-ip")


def named(world: World, address: str, port: int = 0, data: bytes | None = None, **more):
    return world.decide(CLIENT, data or get(), named=address, named_port=port, **more)


# ---- what the method reads ----


def test_the_rules_word_is_taken_as_it_is(make) -> None:
    world = make(NAMED)
    found = world.find(0, CLIENT, get(), named="10.0.0.2", named_port=80)
    assert (found["kind"], found["node"]) == ("node", "10.0.0.2:80")
    assert world.find(0, CLIENT, get(), named="10.0.0.2")["node"] == "10.0.0.2:0"


def test_no_rule_named_one(make) -> None:
    found = make(NAMED).find(0, CLIENT, get())
    assert (found["kind"], found["outcome"]) == ("nothing", "no-key")


# ---- nodes of the pool ----


@pytest.mark.parametrize("port", [80, 0])
def test_a_node_of_the_pool(make, port: int) -> None:
    world = make(NAMED)
    for _ in range(3):
        made = named(world, "10.0.0.2", port)
        assert (made.action, made.node, made.outcome) == ("forward", 1, "hit")
        assert (made.found_in, made.found_class, made.established) == ("rule", 0, True)
        assert (made.previous, made.keys, made.writes) == (None, [], [])


def test_without_a_name_the_algorithm_chooses_each_time(make) -> None:
    world = make(NAMED)
    made = [world.decide(CLIENT, get()) for _ in range(3)]
    assert [(one.node, one.outcome) for one in made] == [
        (0, "no-key"),
        (1, "no-key"),
        (2, "no-key"),
    ]


def test_an_address_that_several_nodes_have_is_no_name(make) -> None:
    world = make(NAMED, nodes=[Node("10.0.0.1:80"), Node("10.0.0.1:81")])
    assert named(world, "10.0.0.1", 81).node == 1
    assert named(world, "10.0.0.1").outcome == "node-removed"
    assert named(world, "10.0.0.1", 82).outcome == "node-removed"


def test_a_draining_node_and_one_of_weight_0_are_obeyed(make) -> None:
    world = make(NAMED, nodes=[Node("10.0.0.1:80", weight=0), *nodes(3)[1:]])
    state(world, 1, "draining")
    assert (named(world, "10.0.0.1").node, named(world, "10.0.0.2").outcome) == (0, "draining")


# ---- nodes that the pool does not list ----


@pytest.mark.parametrize(("address", "text"), [
    ("10.9.9.9", "10.9.9.9:8080"), ("2001:db8::7", "[2001:db8::7]:8080"),
    ("::ffff:10.9.9.9", "10.9.9.9:8080"),
])  # fmt: skip
def test_a_node_in_the_networks(make, address: str, text: str) -> None:
    world = make(NAMED, **ANY)
    made = named(world, address, 8080)
    assert (made.action, made.node, made.address) == ("forward", "unlisted", text)
    assert (made.outcome, made.found_in, made.established) == ("hit", "rule", True)


@pytest.mark.parametrize(("address", "port"), [
    ("10.9.9.9", 0), ("11.9.9.9", 80), ("2001:db9::1", 80), ("::", 80), ("0.0.0.0", 80),
])  # fmt: skip
def test_a_node_outside_of_them_or_without_port(make, address: str, port: int) -> None:
    made = named(make(NAMED, **ANY), address, port)
    assert (made.outcome, made.node) == ("node-removed", 0)  # failure mode new-node


def test_none_is_allowed_unless_the_pool_says_so(make) -> None:
    assert named(make(NAMED), "10.9.9.9", 80).outcome == "node-removed"


def test_a_listed_node_is_itself_and_has_its_state(make) -> None:
    world = make(NAMED, **ANY)
    state(world, 1, "down")
    assert (named(world, "10.0.0.2", 80).outcome, named(world, "10.0.0.1", 80).node) == (
        "node-down", 0,
    )  # fmt: skip


def test_another_port_of_a_listed_address_is_another_node_where_any_is_allowed(make) -> None:
    """The rule knows which port it means; only where it can't be had, the only node counts."""
    made = named(make(NAMED, **ANY), "10.0.0.2", 9000)
    assert (made.node, made.address) == ("unlisted", "10.0.0.2:9000")
    made = named(make(NAMED), "10.0.0.2", 9000)
    assert (made.node, made.outcome, made.previous) == (1, "moved", "10.0.0.2:9000")


# ---- failure: every time, and nothing is remembered ----


@pytest.mark.parametrize("how", ["down", "gone", "connect", "unlisted"])
@pytest.mark.parametrize(
    ("mode", "action"), [("close", "close"), ("redirect", "redirect"), ("new-node", "forward")]
)
def test_every_request_meets_the_failure_mode(make, how: str, mode: str, action: str) -> None:
    world = make(Class("by-rule", type="named", failure_mode=mode), **ANY)
    address = {"gone": "192.0.2.99", "unlisted": "10.9.9.9"}.get(how, "10.0.0.1")
    if how == "down":
        state(world, 0, "down")
    outcomes = {"down": "node-down", "gone": "node-removed"}
    for _ in range(2):
        made = named(world, address, 80)
        if how in ("connect", "unlisted"):
            made.again()
            assert made.tried == ["unlisted" if how == "unlisted" else 0]
        assert (made.action, made.outcome) == (action, outcomes.get(how, "connect-failed"))
        assert made.previous == f"{address}:80"
        assert made.node in ((0, 1, 2) if mode == "new-node" else (-1,))
    if how == "connect":
        assert named(world, address, 80).node == 0
    if how == "unlisted":
        assert named(world, address, 80).node == "unlisted"


def test_a_failed_name_is_not_taken_up_again_by_the_same_request(make) -> None:
    world = make(NAMED, **ANY)
    made = named(world, "10.9.9.9", 80)
    seen = []
    for _ in range(3):
        made.again()
        seen.append(made.node)
    assert sorted(seen) == [0, 1, 2]
    made.again()
    assert (made.action, made.tried) == ("no-node", ["unlisted", *seen])


def test_a_fallback_keeps_the_node_that_a_failed_name_was_given(make) -> None:
    """Else each request of the session would go to another node."""
    world = make(Class("by-rule", type="named", fallback="by-ip"), IP)
    state(world, 0, "down")
    made = [named(world, "10.0.0.1", 80) for _ in range(4)]
    assert len({one.node for one in made}) == 1
    assert {one.outcome for one in made} == {"node-down"}


# ---- what other classes remember of it ----


def test_a_listed_node_is_known_to_the_fallback(make) -> None:
    world = make(Class("by-rule", type="named", fallback="by-ip"), IP)
    named(world, "10.0.0.3", 80)
    made = world.decide(CLIENT, get())
    assert (made.node, made.found_class) == (2, 1)


@pytest.mark.parametrize("order", ["before", "behind"])
def test_an_unlisted_node_is_remembered_by_nobody(make, order: str) -> None:
    """A map or a cookie could not lead there: the pool lacks it."""
    chain = [Class("by-rule", type="named", fallback="by-ip"), IP]
    if order == "behind":
        chain = [Class("by-ip", fallback="by-rule"), NAMED]
    world = make(*chain, **ANY)
    made = named(world, "10.9.9.9", 80)
    made.forget()
    assert made.node == "unlisted"
    assert [world.maps(0), world.maps(1)] == [{}, {}]
    made = named(make(COOKIE, NAMED, **ANY), "10.9.9.9", 80)
    assert (made.node, made.writes) == ("unlisted", [])
    listed = named(make(COOKIE, NAMED, **ANY), "10.0.0.1", 80)
    assert (listed.node, listed.writes) == (0, [0])


def test_a_map_or_cookie_that_names_an_allowed_address_is_no_rule(make) -> None:
    """The networks are for rules: a node that was removed from the pool stays removed."""
    cls = Class("shop", type="transparent")
    world = make(cls, **ANY)
    value = make.setting(world).cookie("10.9.9.9:80")
    assert world.decide(CLIENT, with_cookie(cls, value)).outcome == "node-removed"
    world = make(IP, **ANY)
    world.put(0, CLIENT, "10.9.9.9", 80)
    assert world.decide(CLIENT, get()).outcome == "node-removed"


def test_a_response_teaches_nothing_about_an_unlisted_node(make) -> None:
    world = make(Class("by-rule", type="named", fallback="ids"), Class("ids", type="j2ee"), **ANY)
    made = named(world, "10.9.9.9", 80)
    made.learn(b"HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=A1; Path=/\r\n\r\n")
    assert world.maps(1) == {}


def test_a_peek_at_one(make) -> None:
    world = make(Class("by-rule", type="named", fallback="by-ip"), IP, **ANY)
    for address in ("10.9.9.9", "10.0.0.2"):
        assert named(world, address, 80, peek=True).outcome == "hit"
    assert world.maps(1) == {}


# ---- on its way ----


def test_its_name_in_the_request_the_answer_and_the_log(segment, tmp_path) -> None:
    setting = Setting(classes=[NAMED], decision=[("0.0.0.0", 0)], **ANY)
    world = setting.world(segment)
    desk = Desk(world)
    desk.log_to(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT))
    for address, name in (("10.9.9.9", "10.9.9.9:8080"), ("2001:db8::7", "[2001:db8::7]:8080")):
        head = get(version="1.0")
        desk.load(head)
        desk.decided(named(world, address, 8080, head))
        assert f"\r\nHost: {name}\r\n".encode() in desk.request(head)
        answer = desk.response(b"HTTP/1.1 200 OK\r\n\r\n")
        assert f"; class=by-rule; node={name}\r\n".encode() in answer
        desk.log()
        desk.flush()
        assert f'"node":"{name}"' in (tmp_path / "log").read_text().splitlines()[-1]
