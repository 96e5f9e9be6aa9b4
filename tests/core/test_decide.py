"""The decision procedure, with session caches in a real segment."""

from collections.abc import Callable
from typing import Any

import pytest

from fastlb._core._testing_decide import Made, World
from tests.core.plans import Class, Node, changed, get, nodes, state, with_cookie

CLIENT = "192.0.2.1"
OTHER = "192.0.2.2"
MODES = ["new-node", "redirect", "close"]
ACTIONS = {"new-node": "forward", "redirect": "redirect", "close": "close"}
NOW = 1800000000
IP = Class("by-ip")
COOKIE = Class("shop", type="transparent")


class Session:
    """A client with a session on node 0, whatever the class's type."""

    def __init__(self, make: Callable[..., World], cls: Class, **more: Any) -> None:
        self.cls = cls
        self.world = make(cls, **more)
        self.setting = make.setting(self.world)
        self.node = self.setting.nodes[0].address
        if cls.type == "ip":
            self.world.put(0, CLIENT, self.setting.nodes[0].ip, self.setting.nodes[0].port)

    def request(self) -> bytes:
        if self.cls.type == "ip":
            return get()
        return with_cookie(self.cls, self.setting.cookie(self.node))

    def decide(self, **more: Any) -> Made:
        return self.world.decide(CLIENT, self.request(), **more)

    @property
    def found_in(self) -> str:
        return "cache" if self.cls.type == "ip" else "cookie"

    def known(self) -> list[str]:
        return list(self.world.maps(0).values()) if self.cls.type == "ip" else []


both = pytest.mark.parametrize("cls", [IP, COOKIE], ids=["ip", "transparent"])


# ---- a pool without persistence ----


def test_no_class(make) -> None:
    world = make()
    made = [world.decide(CLIENT, get()) for _ in range(6)]
    assert [one.node for one in made] == [0, 1, 2, 0, 1, 2]
    one = made[0]
    assert (one.action, one.outcome, one.found_in) == ("forward", "none", "none")
    assert (one.persistence, one.found_class, one.keys, one.writes) == (-1, -1, [], [])
    one.again()
    assert (one.action, one.node, one.tried) == ("forward", 1, [0])


# ---- new and found ----


@both
def test_new(make, cls: Class) -> None:
    world = make(cls)
    made = world.decide(CLIENT, get())
    assert (made.action, made.outcome, made.found_in) == ("forward", "new", "none")
    assert (made.node, made.found_class, made.established) == (0, -1, False)
    assert made.previous is None
    assert made.writes == ([] if cls.type == "ip" else [0])
    if cls.type == "ip":
        assert list(world.maps(0).values()) == ["10.0.0.1:80"]


@both
def test_hit(make, cls: Class) -> None:
    session = Session(make, cls)
    for _ in range(4):
        made = session.decide()
        assert (made.action, made.outcome, made.found_in) == ("forward", "hit", session.found_in)
        assert (made.node, made.found_class, made.established) == (0, 0, True)
        assert (made.previous, made.writes, made.expires) == (None, [], [])


def test_clients_are_kept_apart_by_their_prefix(make) -> None:
    world = make(Class("by-ip", ipv4_prefix=24, ipv6_prefix=56))
    first = world.decide("192.0.2.1", get()).node
    assert world.decide("192.0.2.200", get()).node == first
    assert world.decide("192.0.3.1", get()).outcome == "new"
    six = world.decide("2001:db8:0:1::1", get())
    assert six.outcome == "new"
    assert world.decide("2001:db8:0:ff::2", get()).outcome == "hit"
    assert world.decide("2001:db8:0:100::2", get()).outcome == "new"
    assert len(world.maps(0)) == 4


def test_a_mapped_address_is_the_ipv4_client(make) -> None:
    world = make(IP)
    first = world.decide("192.0.2.1", get())
    again = world.decide("::ffff:192.0.2.1", get())
    assert (again.outcome, again.node) == ("hit", first.node)


def test_a_client_without_address_has_no_key(make) -> None:
    """Whoever comes over a unix socket: they would all be one client."""
    world = make(IP)
    made = [world.decide("::", get()) for _ in range(3)]
    assert {one.outcome for one in made} == {"no-key"}
    assert [one.node for one in made] == [0, 1, 2]
    assert world.maps(0) == {}


def test_no_head_no_cookie(make) -> None:
    world = make(COOKIE)
    made = world.decide(CLIENT, None)
    assert (made.outcome, made.node) == ("new", 0)


@both
def test_every_response_and_quotes(make, cls: Class) -> None:
    session = Session(make, changed(cls, flags=("every_response",)))
    assert session.decide().writes == ([] if cls.type == "ip" else [0])


def test_quoted_and_repeated_cookies(make) -> None:
    world = make(COOKIE)
    cookie = make.setting(world).cookie
    one, other = cookie("10.0.0.2:80"), cookie("10.0.0.3:80")
    name = COOKIE.cookie_name
    assert world.decide(CLIENT, get(f'Cookie: a=1; {name}="{one}"; b=2')).node == 1
    twice = world.decide(CLIENT, get(f"Cookie: {name}={one}; {name}={other}"))
    assert (twice.node, twice.duplicates) == (1, True)
    lines = world.decide(CLIENT, get(f"Cookie: {name}={other}", f"Cookie: {name}={one}"))
    assert (lines.node, lines.duplicates) == (2, True)
    bad = world.decide(CLIENT, get(f"Cookie: {name}=rubbish; {name}={other}"))
    assert (bad.node, bad.outcome, bad.duplicates) == (2, "hit", True)
    fold = world.decide(CLIENT, get(f"Cookie: {name.upper()}={one}"))
    assert (fold.outcome, fold.duplicates) == ("new", False)


# ---- expired, tampered, other class ----


def test_expired_map(make) -> None:
    session = Session(make, Class("by-ip", expiry_ticks=100))
    session.world.now_ticks += 99
    assert session.decide().outcome == "hit"
    session.world.now_ticks += 99  # the hit renewed it
    assert session.decide().outcome == "hit"
    session.world.now_ticks += 100
    made = session.decide()
    assert (made.outcome, made.established) == ("expired", False)
    assert session.decide().outcome == "hit"


@pytest.mark.parametrize(("timeout", "lifetime", "first", "last", "outcome", "rewrite"), [
    (0, 0, 0, 0, "hit", False),
    (0, 0, NOW, NOW, "hit", True),                        # dates that no limit asks for go
    (1600, 0, 0, 0, "hit", True),                         # none where a limit is: they come
    (1600, 0, NOW - 5000, NOW - 99, "hit", False),        # within one sixteenth
    (1600, 0, NOW - 5000, NOW - 100, "hit", True),
    (1600, 0, NOW - 5000, NOW - 1600, "hit", True),
    (1600, 0, NOW - 5000, NOW - 1601, "expired", False),
    (0, 3600, NOW - 3600, NOW - 3600, "hit", False),
    (0, 3600, NOW - 3601, NOW, "expired", False),
    (1600, 3600, NOW - 3601, NOW, "expired", False),
    (8, 0, NOW - 8, NOW, "hit", False),
    (8, 0, NOW - 8, NOW - 1, "hit", True),                # at most once a second
    (1600, 3600, NOW + 3600, NOW + 3600, "hit", False),   # another clock's date
    (1600, 0, NOW, NOW + 86400, "hit", False),
    (1600, 0, NOW, NOW + 86401, "expired", False),
    (0, 3600, NOW + 86401, NOW, "expired", False),
])  # fmt: skip
def test_ages(make, timeout, lifetime, first, last, outcome: str, rewrite: bool) -> None:
    cls = Class("shop", type="transparent", timeout_s=timeout, max_lifetime_s=lifetime)
    world = make(cls)
    value = make.setting(world).cookie("10.0.0.2:80", first_seen=first, last_seen=last)
    made = world.decide(CLIENT, with_cookie(cls, value))
    assert made.outcome == outcome
    if outcome == "hit":
        assert made.node == 1
        assert made.writes == ([0] if rewrite else [])
        assert made.cookies()[0]["first_seen_s"] == first  # never made younger
    else:
        assert (made.found_in, made.writes) == ("none", [0])
        assert made.cookies()[0]["first_seen_s"] == 0


@pytest.mark.parametrize("value", ["", "x", "A" * 36, "A" * 47, "A" * 63, "A" * 3000, "=;=", "%00"])
def test_tampered(make, value: str) -> None:
    world = make(COOKIE)
    made = world.decide(CLIENT, with_cookie(COOKIE, value))
    assert (made.outcome, made.writes, made.established) == ("tampered", [0], False)
    assert made.cookies()[0]["seen"]


def test_cookie_of_another_class(make) -> None:
    world = make(COOKIE, Class("other", type="transparent"))
    value = make.setting(world).cookie("10.0.0.2:80", "other")
    made = world.decide(CLIENT, with_cookie(COOKIE, value))
    assert (made.outcome, made.node, made.writes) == ("other-class", 0, [0])


# ---- from a map to a node ----


@both
def test_another_port_of_the_only_node_with_this_address(make, cls: Class) -> None:
    session = Session(make, cls, nodes=[Node("10.0.0.1:80"), Node("10.0.0.2:80")])
    session.setting.nodes[0] = Node("10.0.0.1:9999")
    if cls.type == "ip":
        session.world.put(0, CLIENT, "10.0.0.1", 9999)
    session.node = "10.0.0.1:9999"
    made = session.decide()
    assert (made.action, made.outcome, made.node) == ("forward", "moved", 0)
    assert (made.previous, made.established) == ("10.0.0.1:9999", True)
    assert made.writes == ([] if cls.type == "ip" else [0])
    assert session.known() == (["10.0.0.1:80"] if cls.type == "ip" else [])


@both
def test_a_pool_on_the_same_machines_leaves_the_session_as_it_is(make, cls: Class) -> None:
    """Two nodes a machine in one pool, one in the other: which of the two must not be lost."""
    machines = ("10.0.0.1", "10.0.0.2")
    first = [Node(f"{ip}:{port}") for ip in machines for port in (80, 81)]
    session = Session(make, cls, nodes=first, others=[Node(f"{ip}:443") for ip in machines])
    world = session.world
    home = session.decide().node
    for _ in range(2):
        session.node = first[home].address
        visit = session.decide(pool=1)
        assert (visit.outcome, visit.node) == ("moved", home // 2)
        assert visit.writes == []
        back = session.decide()
        assert (back.outcome, back.node) == ("hit", home)
    state(world, len(first) + home // 2, "down")
    assert session.decide(pool=1).node == 1 - home // 2


@both
def test_another_port_of_several_nodes_is_none(make, cls: Class) -> None:
    of = [Node("10.0.0.1:80"), Node("10.0.0.1:81"), Node("10.0.0.1:82")]
    session = Session(make, cls, nodes=of)
    assert session.decide().node == 0
    if cls.type == "ip":
        session.world.put(0, CLIENT, "10.0.0.1", 9999)
    session.node = "10.0.0.1:9999"
    made = session.decide()
    assert (made.outcome, made.previous) == ("node-removed", "10.0.0.1:9999")


def test_the_exact_node_wins_wherever_it_stands(make) -> None:
    of = [Node("10.0.0.1:80"), Node("10.0.0.1:81")]
    world = make(COOKIE, nodes=of)
    for index, one in enumerate(of):
        value = make.setting(world).cookie(one.address)
        assert world.decide(CLIENT, with_cookie(COOKIE, value)).node == index


# ---- node states and failure modes ----


@both
def test_a_draining_node_serves_its_sessions(make, cls: Class) -> None:
    session = Session(make, cls)
    state(session.world, 0, "draining")
    made = session.decide()
    assert (made.action, made.outcome, made.node) == ("forward", "draining", 0)
    assert (made.established, made.writes) == (True, [])
    assert session.world.decide(OTHER, get()).node == 1


@both
def test_a_node_of_weight_0_and_a_full_one_serve_their_sessions(make, cls: Class) -> None:
    of = [Node("10.0.0.1:80", weight=0), Node("10.0.0.2:80"),
          Node("10.0.0.3:80", max_connections=1)]  # fmt: skip
    session = Session(make, cls, nodes=of)
    assert session.decide().outcome == "hit"
    session.world.set_load(2, 0, 5)
    session.node = "10.0.0.3:80"
    if cls.type == "ip":
        session.world.put(0, CLIENT, "10.0.0.3", 80)
    assert (session.decide().outcome, session.decide().node) == ("hit", 2)


@both
def test_a_session_on_a_backup_stays_there(make, cls: Class) -> None:
    session = Session(make, cls, nodes=[Node("10.0.0.1:80", backup=True), *nodes(3)[1:]])
    assert (session.decide().outcome, session.decide().node) == ("hit", 0)


FAILURES = [("down", "node-down"), ("disabled", "node-disabled"), ("free", "node-down"),
            ("removed", "node-removed"), ("connect", "connect-failed")]  # fmt: skip


@both
@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("how", "outcome"), FAILURES)
def test_failure(make, cls: Class, how: str, outcome: str, mode: str, delete: bool) -> None:
    flags = ("delete_on_failure",) if delete else ()
    session = Session(make, changed(cls, failure_mode=mode, flags=flags))
    if how == "removed":
        session.node = "10.9.9.9:80"
        if cls.type == "ip":
            session.world.put(0, CLIENT, "10.9.9.9", 80)
    elif how != "connect":
        state(session.world, 0, how)
    made = session.decide()
    if how == "connect":
        assert made.outcome == "hit"
        made.again()
        assert made.tried == [0]
    assert (made.action, made.outcome) == (ACTIONS[mode], outcome)
    assert (made.previous, made.found_class, made.found_in) == (session.node, 0, session.found_in)
    assert not made.established
    is_ip = cls.type == "ip"
    if mode == "new-node":
        assert made.node in ((0, 1, 2) if how == "removed" else (1, 2))
        assert made.writes == ([] if is_ip else [0])
        assert made.expires == []
        assert session.known() == ([session.setting.nodes[made.node].address] if is_ip else [])
        return
    assert (made.node, made.writes) == (-1, [])
    assert made.expires == ([] if is_ip or not delete else [0])
    assert session.known() == ([session.node] if is_ip and not delete else [])
    if how in ("down", "disabled") and not delete:
        state(session.world, 0, "up")
        again = session.decide()
        assert (again.outcome, again.node) == ("hit", 0)


@both
def test_nobody_left_for_a_new_node(make, cls: Class) -> None:
    session = Session(make, cls)
    for slot in range(3):
        state(session.world, slot, "down")
    made = session.decide()
    assert (made.action, made.outcome, made.node) == ("no-node", "node-down", -1)
    fresh = session.world.decide(OTHER, get())
    assert (fresh.action, fresh.outcome, fresh.node) == ("no-node", "new", -1)
    # The session is not lost with the last node.
    state(session.world, 0, "up")
    assert session.decide().outcome == "hit"


@both
def test_draining_nodes_are_taken_when_there_are_no_others(make, cls: Class) -> None:
    world = make(cls)
    for slot in range(3):
        state(world, slot, "draining")
    made = world.decide(CLIENT, get())
    assert (made.action, made.outcome, made.last_draining) == ("forward", "new", True)


# ---- connect failures ----


@both
def test_retries_of_a_new_session(make, cls: Class) -> None:
    world = make(cls)
    made = world.decide(CLIENT, get())
    seen = [made.node]
    for _ in range(2):
        made.again()
        seen.append(made.node)
        assert (made.action, made.outcome, made.previous) == ("forward", "new", None)
        if cls.type == "ip":
            assert list(world.maps(0).values()) == [f"10.0.0.{made.node + 1}:80"]
        else:
            assert made.writes == [0]  # once, and of the node that answers in the end
    assert sorted(seen) == [0, 1, 2]
    made.again()
    assert (made.action, made.node) == ("no-node", -1)
    assert made.tried == seen


@both
def test_a_session_that_failed_over_fails_again(make, cls: Class) -> None:
    session = Session(make, cls)
    made = session.decide().again()
    second = made.node
    made.again()
    assert (made.action, made.outcome) == ("forward", "connect-failed")
    assert {0, second, made.node} == {0, 1, 2}
    assert made.previous == "10.0.0.1:80"
    assert made.tried == [0, second]
    if cls.type == "ip":
        assert session.known() == [session.setting.nodes[made.node].address]
    else:
        assert made.writes == [0]


def test_a_moved_session_whose_node_cannot_be_reached(make) -> None:
    session = Session(make, changed(IP, failure_mode="close"))
    session.world.put(0, CLIENT, "10.0.0.1", 9999)
    made = session.decide().again()
    assert (made.action, made.outcome, made.previous) == ("close", "connect-failed", "10.0.0.1:80")
    assert session.known() == []


# ---- ejected nodes ----

WATCHED = {"failures": 5}


@both
@pytest.mark.parametrize("mode", MODES)
def test_an_ejected_node_counts_as_down(make, cls: Class, mode: str) -> None:
    session = Session(make, changed(cls, failure_mode=mode), passive=WATCHED)
    session.world.eject(0)
    made = session.decide()
    assert (made.action, made.outcome) == (ACTIONS[mode], "node-down")
    assert made.previous == "10.0.0.1:80"
    assert made.node in ((1, 2) if mode == "new-node" else (-1,))


@both
@pytest.mark.parametrize("mode", MODES)
def test_a_session_stays_where_no_other_node_is_better(make, cls: Class, mode: str) -> None:
    """All of a pool's nodes fail: sessions are not shuffled, and nobody is turned away for it."""
    session = Session(make, changed(cls, failure_mode=mode), passive=WATCHED)
    for slot in range(3):
        session.world.eject(slot)
    made = session.decide()
    assert (made.action, made.node, made.outcome) == ("forward", 0, "hit")
    state(session.world, 1, "down")
    state(session.world, 2, "disabled")
    assert session.decide().node == 0


@both
def test_one_that_would_move_waits_for_the_probe(make, cls: Class) -> None:
    session = Session(make, cls, passive=WATCHED)
    session.world.eject(0, ms=8000, times=4)
    session.world.now_ms += 7999
    assert session.decide(peek=True).node in (1, 2)
    session.world.now_ms += 1
    assert session.decide().node == 0


@both
@pytest.mark.parametrize("mode", ["redirect", "close"])
def test_one_that_neither_moves_nor_ends_tries_its_node_sooner(make, cls: Class, mode: str) -> None:
    flags = tuple(flag for flag in cls.flags if flag != "delete_on_failure")
    session = Session(make, changed(cls, failure_mode=mode, flags=flags), passive=WATCHED)
    session.world.eject(0, ms=8000, times=4)
    session.world.now_ms += 999
    assert session.decide().action == mode
    session.world.now_ms += 1
    assert (session.decide().action, session.decide().node) == ("forward", 0)


def test_a_node_that_is_down_too_is_not_served_for_being_ejected(make) -> None:
    session = Session(make, IP, passive=WATCHED)
    for slot in range(3):
        session.world.eject(slot)
    state(session.world, 0, "down")
    assert session.decide().node in (1, 2)
