"""The `hash` method: who moves when nodes change, and what the decision makes of its answer."""

import random
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_siphash import hash64
from fastlb._core.shm import Segment
from tests.core.plans import KEYS, Class, Node, Setting, changed, get, nodes, state

CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
USER = Class("shop", type="hash", key=[("header", "X-User")])
MODES = {"new-node": "forward", "redirect": "redirect", "close": "close"}
OUTCOMES = {"down": "node-down", "disabled": "node-disabled", "refused": "connect-failed"}


def user(name: object) -> bytes:
    return get(f"X-User: {name}")


USERS = [user(n) for n in range(150)]


def addresses(of: list[Node], requests: list[bytes] = USERS, **more) -> list[str]:
    """Where each user goes with these nodes."""
    with Segment.create() as segment:
        world = Setting(classes=[USER], nodes=of, **more).world(segment)
        return [of[node].address for node in world.placed(requests)]


def owner_of(world, name: object) -> int:
    return world.decide(CLIENT, user(name)).node


def owned_by(world, node: int) -> bytes:
    """The request of a user of this node."""
    return next(one for one in USERS if world.decide(CLIENT, one).node == node)


# ---- properties ----

places = st.lists(
    st.tuples(st.integers(1, 250), st.integers(1, 256)),
    min_size=2,
    max_size=8,
    unique_by=lambda pair: pair[0],
)
pools = places.map(lambda pairs: [Node(f"10.0.1.{host}:80", weight=w) for host, w in pairs])


@settings(max_examples=25)
@given(pools, st.data())
def test_removing_a_node_moves_its_keys_only(of: list[Node], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(of))
    before = addresses(of)
    after = addresses([node for node in of if node is not gone])
    for one, other in zip(before, after, strict=True):
        assert one in (other, gone.address)


@settings(max_examples=25)
@given(pools, st.integers(1, 256))
def test_adding_a_node_moves_keys_to_it_only(of: list[Node], weight: int) -> None:
    new = Node("10.0.2.1:80", weight=weight)
    before, after = addresses(of), addresses([*of, new])
    for one, other in zip(before, after, strict=True):
        assert other in (one, new.address)


@settings(max_examples=15)
@given(pools, st.randoms())
def test_the_order_of_nodes_does_not_matter(of: list[Node], rng: random.Random) -> None:
    assert addresses(rng.sample(of, len(of))) == addresses(of)


@settings(max_examples=15)
@given(pools, st.lists(st.binary(min_size=16, max_size=16), min_size=4, max_size=4))
def test_installations_with_other_secrets_agree(of: list[Node], secrets: list[bytes]) -> None:
    assert addresses(of, keys=secrets) == addresses(of, keys=KEYS)


def test_a_hundred_thousand_keys() -> None:
    weights = [1, 1, 2, 3, 5]
    of = [Node(f"10.0.0.{i + 1}:80", weight=weight) for i, weight in enumerate(weights)]
    requests = [user(f"user-{n}") for n in range(100_000)]
    before = addresses(of, requests)
    counts = Counter(before)
    for node in of:
        share = len(requests) * node.weight / sum(weights)
        assert counts[node.address] == pytest.approx(share, rel=0.05)
    # A sixth node of weight 4 takes a quarter of all, from each its part.
    more = addresses([*of, Node("10.0.0.6:80", weight=4)], requests[:20_000])
    moved = Counter(one for one, other in zip(before, more, strict=False) if one != other)
    assert sum(moved.values()) == pytest.approx(20_000 / 4, rel=0.05)
    for node in of:
        assert moved[node.address] == pytest.approx(5000 * node.weight / 12, rel=0.15)


def test_what_is_hashed_is_the_key_alone(make) -> None:
    world = make(USER)
    assert world.find(0, CLIENT, user("a"))["hash"] == world.find(0, OTHER, user("a"))["hash"]
    assert world.find(0, CLIENT, user("a"))["hash"] != world.find(0, CLIENT, user("b"))["hash"]
    # A rule's key goes before the declared one.
    assert world.find(0, CLIENT, user("a"), key=b"b") == world.find(0, CLIENT, user("b"))


def test_the_number_is_the_same_on_every_proxy(make) -> None:
    """A change of it would move every session of a cluster while its proxies are upgraded."""
    by_both = [("header", "X-User"), ("source", "")]
    world = make(USER, Class("two", type="hash", key=by_both))
    pi = struct.pack("<2Q", 0x243F6A8885A308D3, 0x13198A2E03707344)
    address = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    both = b"".join(struct.pack("<Q", len(part)) + part for part in (b"alice", address))
    for index, data in enumerate((b"alice", both)):
        found = world.find(index, CLIENT, user("alice"))
        assert found["hash"].to_bytes(8, "little") == hash64(pi, data)


def test_source_and_destination(make) -> None:
    world = make(Class("shop", type="hash", key=[("source", ""), ("destination", "")]))
    here = world.find(0, CLIENT, local="192.0.2.80")
    assert (here["kind"], here["keys"]) == ("hash", [])
    assert here["hash"] != world.find(0, CLIENT, local="192.0.2.81")["hash"]
    assert here["hash"] != world.find(0, OTHER, local="192.0.2.80")["hash"]
    assert world.find(0, CLIENT)["outcome"] == "no-key"


# ---- decisions ----


def test_nothing_is_remembered(make) -> None:
    world = make(USER)
    made = [world.decide(CLIENT, user("a")) for _ in range(3)]
    assert len({one.node for one in made}) == 1
    assert {(one.outcome, one.found_in, one.found_class) for one in made} == {("hashed", "hash", 0)}
    assert (world.maps(0), made[0].keys) == ({}, [])


def test_without_a_key_the_algorithm_chooses(make) -> None:
    world = make(USER)
    made = [world.decide(CLIENT, get()) for _ in range(4)]
    assert [one.node for one in made] == [0, 1, 2, 0]
    assert {(one.outcome, one.established) for one in made} == {("no-key", False)}


def test_without_a_key_the_fallback_is_asked(make) -> None:
    world = make(changed(USER, fallback="by-ip"), Class("by-ip"))
    first = world.decide(CLIENT, user("a"))
    assert list(world.maps(1).values()) == [f"10.0.0.{first.node + 1}:80"]
    lost = world.decide(CLIENT, get())
    assert (lost.outcome, lost.found_class, lost.node) == ("hit", 1, first.node)


def test_as_the_fallback_of_a_class_with_maps(make) -> None:
    world = make(Class("sid", type="universal", key=[("cookie", "SID")], fallback="shop"), USER)
    made = world.decide(CLIENT, get("X-User: a", "Cookie: SID=1"))
    assert (made.outcome, made.found_class) == ("hashed", 1)
    assert list(world.maps(0).values()) == [f"10.0.0.{made.node + 1}:80"]
    # From then on the map decides, so the session stays where the hash moves on.
    state(world, made.node, "draining")
    again = world.decide(CLIENT, get("X-User: a", "Cookie: SID=1"))
    assert (again.outcome, again.node, again.found_in) == ("draining", made.node, "cache")
    assert world.decide(CLIENT, user("a")).node != made.node


def test_as_the_fallback_of_a_cookie(make) -> None:
    world = make(Class("jar", type="transparent", fallback="shop"), USER)
    made = world.decide(CLIENT, user("a"))
    assert (made.outcome, made.found_class, made.writes) == ("hashed", 1, [0])


@pytest.mark.parametrize("how", ["draining", "weight-0"])
def test_who_gets_nothing_new_leaves_the_hash(make, how: str) -> None:
    world = make(USER)
    before = world.placed(USERS)
    if how == "draining":
        state(world, 1, "draining")
    else:
        of = nodes(3)
        of[1].weight = 0
        world = make(USER, nodes=of)
    after = world.placed(USERS)
    assert 1 in before
    assert 1 not in after
    assert all(b == a for b, a in zip(before, after, strict=True) if b != 1)
    assert world.decide(CLIENT, owned_by(world, 0)).outcome == "hashed"
    # Moved at once, and no failure: nobody promised them anything.
    moved = USERS[before.index(1)]
    assert world.decide(CLIENT, moved).outcome == "hashed"
    state(world, 1, "up")
    assert (world.placed(USERS) == before) == (how == "draining")


def test_a_node_that_is_back_has_its_keys_again(make) -> None:
    world = make(USER)
    before = world.placed(USERS)
    state(world, 2, "down")
    while_down = world.placed(USERS)
    assert 2 not in while_down
    assert all(b == a for b, a in zip(before, while_down, strict=True) if b != 2)
    assert len({a for b, a in zip(before, while_down, strict=True) if b == 2}) == 2
    state(world, 2, "up")
    assert world.placed(USERS) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("why", OUTCOMES)
@pytest.mark.parametrize("delete", [True, False])
def test_failure_modes(make, mode: str, why: str, delete: bool) -> None:
    flags = ("delete_on_failure",) if delete else ()
    world = make(changed(USER, failure_mode=mode, flags=flags))
    request = owned_by(world, 0)
    if why != "refused":
        state(world, 0, why)
    made = world.decide(CLIENT, request)
    if why == "refused":
        made.again()
    assert (made.action, made.outcome, made.previous) == (
        MODES[mode], OUTCOMES[why], "10.0.0.1:80",
    )  # fmt: skip
    assert (made.node >= 0) == (mode == "new-node")
    state(world, 0, "up")
    assert world.decide(CLIENT, request).outcome == "hashed"
    assert world.decide(CLIENT, request).node == 0


def test_refused_by_one_after_the_other_is_the_order_of_the_hash(make) -> None:
    world = make(USER)
    made = world.decide(CLIENT, user("a"))
    order = [made.node]
    for _ in range(2):
        made.again()
        order.append(made.node)
    assert sorted(order) == [0, 1, 2]
    assert made.again().action == "no-node"
    down = make(USER)
    for node in order[:2]:
        assert owner_of(down, "a") == node
        state(down, node, "down")
    assert owner_of(down, "a") == order[2]


def test_backup_nodes_take_over_and_give_back(make) -> None:
    of = [*nodes(2), Node("10.0.0.8:80", backup=True), Node("10.0.0.9:80", backup=True)]
    world = make(USER, nodes=of)
    before = world.placed(USERS)
    assert set(before) == {0, 1}
    state(world, 0, "down")
    assert set(world.placed(USERS)) == {1}
    state(world, 1, "down")
    assert set(world.placed(USERS)) == {2, 3}
    assert world.decide(CLIENT, USERS[0]).outcome == "node-down"
    state(world, 0, "draining")
    state(world, 1, "draining")
    assert set(world.placed(USERS)) == {2, 3}  # the primary ones have left the hash
    assert world.decide(CLIENT, USERS[0]).outcome == "hashed"
    for node in (0, 1):
        state(world, node, "up")
    assert world.placed(USERS) == before


@pytest.mark.parametrize("refuse", [False, True])
def test_all_draining(make, refuse: bool) -> None:
    world = make(USER, refuse_last_draining=refuse)
    for node in range(3):
        state(world, node, "draining")
    made = world.decide(CLIENT, user("a"))
    assert (made.action, made.last_draining) == (
        ("no-node", False) if refuse else ("forward", True)
    )
    assert made.established is False
    if not refuse:
        assert owner_of(world, "a") == made.node  # by the hash still


def test_nobody_there(make) -> None:
    world = make(USER)
    for node in range(3):
        state(world, node, "down")
    made = world.decide(CLIENT, user("a"))
    assert (made.action, made.outcome) == ("no-node", "node-down")


def test_looking_only_sees_the_same(make) -> None:
    world = make(USER)
    assert world.decide(CLIENT, user("a"), peek=True).node == owner_of(world, "a")
