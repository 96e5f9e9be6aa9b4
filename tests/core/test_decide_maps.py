"""The session maps behind decisions: of several workers at once, of whole chains, of responses."""

import pytest

from tests.core.plans import Class, changed, get, nodes, state

CLIENT = "192.0.2.1"
OTHER = "192.0.2.2"
IP = Class("by-ip")

# ---- two workers at once ----


def test_a_map_that_expired_meanwhile_is_claimed_anew(make) -> None:
    world = make(changed(IP, expiry_ticks=10))
    world.put(0, CLIENT, "10.0.0.3", 80)
    world.now_ticks += 10
    made = world.decide(CLIENT, get())
    assert (made.outcome, made.node) == ("expired", 0)
    assert list(world.maps(0).values()) == ["10.0.0.1:80"]


def test_a_retry_of_a_new_session_joins_another_workers_choice(make) -> None:
    """Both have the key's first requests; the other one fails over first."""
    world = make(IP, nodes=nodes(5))
    one, other = world.decide(CLIENT, get()), world.decide(CLIENT, get())
    assert (one.outcome, other.outcome, one.node, other.node) == ("new", "hit", 0, 0)
    other.again()
    one.again()
    assert one.node == other.node
    assert list(world.maps(0).values()) == [f"10.0.0.{one.node + 1}:80"]


# ---- whole chains ----


def test_the_longest_chain_and_all_its_keys(make) -> None:
    depth = 16
    chain = [Class(f"c{i}", ipv4_prefix=32 - i, fallback=f"c{i + 1}" if i < depth - 1 else "")
             for i in range(depth)]  # fmt: skip
    world = make(*chain)
    made = world.decide(CLIENT, get())
    assert made.keys == list(range(depth))
    state(world, 0, "down")
    moved = world.decide(CLIENT, get())
    assert moved.outcome == "node-down"
    assert [list(world.maps(i).values()) for i in range(depth)] == [
        [f"10.0.0.{moved.node + 1}:80"]
    ] * depth


# ---- what responses teach ----


IDS = Class("ids", type="j2ee")


def setting_id(name: str, **more: str) -> bytes:
    extra = "".join(f"; {key}={value}" for key, value in more.items())
    return f"HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID={name}; Path=/{extra}\r\n\r\n".encode()


def with_id(name: str) -> bytes:
    return get(f"Cookie: JSESSIONID={name}")


def test_an_id_that_was_learned_finds_the_node(make) -> None:
    world = make(IDS)
    made = world.decide(CLIENT, get())
    made.learn(setting_id("A1"))
    found = world.decide(OTHER, with_id("A1"))
    assert (found.outcome, found.node) == ("hit", made.node)


def test_an_id_is_learned_for_the_node_that_answered(make) -> None:
    world = make(IDS)
    made = world.decide(CLIENT, get()).again()
    made.learn(setting_id("A1"))
    assert made.node != 0
    assert world.decide(OTHER, with_id("A1")).node == made.node


def test_an_id_that_another_node_grants_moves_to_it(make) -> None:
    """semantics.md 17: a map is moved by a successful answer of another node."""
    world = make(IDS)
    first = world.decide(CLIENT, get())
    first.learn(setting_id("A1"))
    other = world.decide(CLIENT, get())
    assert other.node != first.node
    other.learn(setting_id("A1"))
    assert world.decide(CLIENT, with_id("A1")).node == other.node


def test_an_id_in_a_location_does_not_take_its_owners_map(make) -> None:
    """A link with another user's id, which the node repeats in a redirect."""
    world = make(IDS)
    owner = world.decide(CLIENT, get())
    owner.learn(setting_id("A1"))
    visitor = world.decide(OTHER, get(target="/shop"))
    assert visitor.node != owner.node
    visitor.learn(b"HTTP/1.1 302 Found\r\nLocation: /shop/;jsessionid=A1\r\n\r\n")
    assert world.decide(CLIENT, with_id("A1")).node == owner.node


def test_an_id_in_a_location_that_nobody_has_is_learned(make) -> None:
    world = make(IDS)
    made = world.decide(CLIENT, get())
    made.learn(b"HTTP/1.1 302 Found\r\nLocation: /;jsessionid=A1\r\n\r\n")
    assert world.decide(OTHER, with_id("A1")).node == made.node


@pytest.mark.parametrize("mode", ["close", "redirect"])
def test_nobody_answered_nothing_is_learned(make, mode: str) -> None:
    world = make(changed(IDS, failure_mode=mode))
    world.decide(CLIENT, get()).learn(setting_id("A1"))
    state(world, 0, "down")
    before = world.maps(0)
    made = world.decide(CLIENT, with_id("A1"))
    assert made.node == -1
    after = world.maps(0)
    made.learn(setting_id("B2"))
    assert world.maps(0) == after != before


def test_a_peek_learns_nothing(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, get(), peek=True).learn(setting_id("A1"))
    assert world.maps(0) == {}


def test_an_ended_session_is_forgotten_in_the_whole_chain(make) -> None:
    world = make(changed(IDS, fallback="by-ip"), IP)
    world.decide(CLIENT, get()).learn(setting_id("A1"))
    made = world.decide(CLIENT, with_id("A1"))
    assert len(world.maps(0)) == len(world.maps(1)) == 1
    made.learn(setting_id("A1", **{"Max-Age": "0"}))
    assert (world.maps(0), world.maps(1)) == ({}, {})


def test_an_ended_session_leaves_somebody_elses_map(make) -> None:
    world = make(changed(IDS, fallback="by-ip"), IP)
    world.decide(CLIENT, get()).learn(setting_id("A1"))
    world.put(1, CLIENT, "10.0.0.3", 80)
    made = world.decide(CLIENT, with_id("A1"))
    made.learn(setting_id("A1", **{"Max-Age": "0"}))
    assert list(world.maps(1).values()) == ["10.0.0.3:80"]
