"""The decision procedure of design.md, with session caches in a real segment."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastlb._core._testing_decide import Made, World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Node, Setting, get, nodes, state

CLIENT = "192.0.2.1"
OTHER = "192.0.2.2"
MODES = ["new-node", "redirect", "close"]
ACTIONS = {"new-node": "forward", "redirect": "redirect", "close": "close"}
NOW = 1800000000
BROWSER = "User-Agent: Mozilla/5.0"
IP = Class("by-ip")
COOKIE = Class("shop", type="transparent")
CHAIN = [Class("shop", type="transparent", fallback="by-ip"), IP]


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


@pytest.fixture
def make(segment: Segment) -> Callable[..., World]:
    def world(*classes: Class, **more: Any) -> World:
        setting = Setting(classes=list(classes), **more)
        made = setting.world(segment)
        settings[id(made)] = setting
        return made

    settings: dict[int, Setting] = {}
    world.setting = lambda made: settings[id(made)]
    return world


def with_cookie(cls: Class, value: str, *more: str) -> bytes:
    return get(f"Cookie: {cls.cookie_name}={value}", *more)


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


def changed(cls: Class, **more: Any) -> Class:
    return Class(**(vars(cls) | more))


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


# ---- fallbacks ----


def test_a_fallback_finds_the_session(make) -> None:
    world = make(*CHAIN)
    first = world.decide(CLIENT, get())
    assert (first.outcome, first.keys, first.writes) == ("new", [1], [0])
    assert list(world.maps(1).values()) == ["10.0.0.1:80"]
    lost = world.decide(CLIENT, get())
    assert (lost.outcome, lost.found_in, lost.found_class) == ("hit", "cache", 1)
    assert (lost.node, lost.persistence) == (0, 0)
    # The good cookie that the client may have elsewhere must not be displaced.
    assert lost.writes == []


def test_reissue(make) -> None:
    world = make(changed(CHAIN[0], flags=("reissue",)), IP)
    world.decide(CLIENT, get())
    assert world.decide(CLIENT, get()).writes == [0]


@pytest.mark.parametrize("value", ["rubbish", ""])
def test_a_bad_cookie_and_a_fallback_that_knows(make, value: str) -> None:
    world = make(*CHAIN)
    world.decide(CLIENT, get())
    made = world.decide(CLIENT, with_cookie(CHAIN[0], value))
    assert (made.outcome, made.found_class, made.writes) == ("hit", 1, [])


def test_the_cookie_wins_and_the_fallback_learns(make) -> None:
    world = make(*CHAIN)
    made = world.decide(CLIENT, with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.3:80")))
    assert (made.outcome, made.found_in, made.found_class, made.node) == ("hit", "cookie", 0, 2)
    assert made.keys == [1]
    assert list(world.maps(1).values()) == ["10.0.0.3:80"]
    assert world.decide(CLIENT, get()).node == 2


def test_a_fallback_that_knows_another_node_keeps_it(make) -> None:
    """Many users may share one address."""
    world = make(*CHAIN)
    world.put(1, CLIENT, "10.0.0.2", 80)
    made = world.decide(CLIENT, with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.3:80")))
    assert made.node == 2
    assert list(world.maps(1).values()) == ["10.0.0.2:80"]


def test_a_hit_keeps_the_fallbacks_map_alive(make) -> None:
    world = make(CHAIN[0], changed(IP, expiry_ticks=100))
    request = with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.3:80"))
    for _ in range(5):
        world.decide(CLIENT, request)
        world.now_ticks += 60
    assert world.decide(CLIENT, get()).outcome == "hit"


def test_a_fallback_that_finds_teaches_the_classes_before_it(make) -> None:
    narrow = Class("narrow", fallback="wide")
    wide = Class("wide", ipv4_prefix=24)
    world = make(narrow, wide)
    world.decide("192.0.2.1", get())
    made = world.decide("192.0.2.2", get())
    assert (made.outcome, made.found_class, made.keys) == ("hit", 1, [0, 1])
    assert len(world.maps(0)) == 2
    assert world.decide("192.0.2.2", get()).found_class == 0


def test_the_outcome_is_the_first_classs(make) -> None:
    world = make(CHAIN[0], changed(IP, expiry_ticks=10))
    world.decide(CLIENT, get())
    world.now_ticks += 10
    assert world.decide(CLIENT, get()).outcome == "new"
    assert world.decide(OTHER, with_cookie(CHAIN[0], "x")).outcome == "tampered"


def test_a_cookie_as_the_fallback(make) -> None:
    first = Class("by-ip", fallback="shop")
    world = make(first, COOKIE)
    value = make.setting(world).cookie("10.0.0.3:80", "shop")
    made = world.decide(CLIENT, with_cookie(COOKIE, value))
    assert (made.outcome, made.found_in, made.found_class) == ("hit", "cookie", 1)
    assert made.keys == [0]
    assert list(world.maps(0).values()) == ["10.0.0.3:80"]
    fresh = world.decide(OTHER, get())
    assert (fresh.outcome, fresh.writes) == ("new", [1])


@pytest.mark.parametrize("mode", MODES)
def test_the_failure_mode_is_that_of_the_class_that_found(make, mode: str) -> None:
    world = make(CHAIN[0], changed(IP, failure_mode=mode))
    world.decide(CLIENT, get())
    state(world, 0, "down")
    made = world.decide(CLIENT, get())
    assert (made.action, made.outcome, made.found_class) == (ACTIONS[mode], "node-down", 1)
    assert made.writes == ([0] if mode == "new-node" else [])
    assert len(world.maps(1)) == (1 if mode == "new-node" else 0)


def test_failing_over_moves_the_session_in_the_whole_chain(make) -> None:
    world = make(*CHAIN)
    request = with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.1:80"))
    world.decide(CLIENT, request)
    for made in (world.decide(CLIENT, request).again(),):
        assert (made.keys, made.writes) == ([1], [0])
        assert list(world.maps(1).values()) == [f"10.0.0.{made.node + 1}:80"]


@pytest.mark.parametrize("mode", ["close", "redirect"])
def test_deleting_deletes_in_the_whole_chain(make, mode: str) -> None:
    world = make(changed(CHAIN[0], failure_mode=mode), IP)
    request = with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.1:80"))
    world.decide(CLIENT, request)
    state(world, 0, "down")
    made = world.decide(CLIENT, request)
    assert (made.action, made.expires, world.maps(1)) == (ACTIONS[mode], [0], {})


@pytest.mark.parametrize("how", ["new-node", "close", "connect"])
def test_somebody_elses_session_behind_the_same_address_stays(make, how: str) -> None:
    """The fallback's map names a node that serves: it is another user's."""
    world = make(changed(CHAIN[0], failure_mode="close" if how == "close" else "new-node"), IP)
    world.put(1, CLIENT, "10.0.0.3", 80)
    request = with_cookie(CHAIN[0], make.setting(world).cookie("10.0.0.1:80"))
    if how == "connect":
        world.decide(CLIENT, request).again()
    else:
        state(world, 0, "down")
        world.decide(CLIENT, request)
    assert list(world.maps(1).values()) == ["10.0.0.3:80"]


def test_a_long_chain(make) -> None:
    chain = [Class(f"c{i}", ipv4_prefix=32 - i, fallback=f"c{i + 1}" if i < 7 else "")
             for i in range(8)]  # fmt: skip
    world = make(*chain)
    made = world.decide(CLIENT, get())
    assert made.keys == list(range(8))
    assert [len(world.maps(i)) for i in range(8)] == [1] * 8
    assert world.decide("192.0.2.120", get()).found_class == 7
    made.forget()
    assert [len(world.maps(i)) for i in range(7)] == [1] * 7  # those of 192.0.2.120


def test_an_ended_session_is_forgotten(make) -> None:
    world = make(*CHAIN)
    made = world.decide(CLIENT, get())
    made.forget()
    assert world.maps(1) == {}


# ---- two workers at once ----


def test_a_map_that_expired_meanwhile_is_claimed_anew(make) -> None:
    world = make(changed(IP, expiry_ticks=10))
    world.put(0, CLIENT, "10.0.0.3", 80)
    world.now_ticks += 10
    made = world.decide(CLIENT, get())
    assert (made.outcome, made.node) == ("expired", 0)
    assert list(world.maps(0).values()) == ["10.0.0.1:80"]


# ---- reservations ----


RESERVING = Class("shop", type="transparent", reserve_ticks=10)


def first_requests(world: World, count: int, *fields: str, client: str = CLIENT) -> list[Made]:
    return [world.decide(client, get(*(fields or (BROWSER,)))) for _ in range(count)]


def test_parallel_first_requests_share_a_node(make) -> None:
    world = make(RESERVING)
    made = first_requests(world, 6)
    assert {one.node for one in made} == {0}
    assert [one.outcome for one in made] == ["new"] + ["reserved"] * 5
    assert [one.holds_reservation for one in made] == [True] + [False] * 5
    assert all(one.writes == [0] for one in made)
    assert {one.found_in for one in made[1:]} == {"reservation"}


def test_without_reservations_they_do_not(make) -> None:
    assert [one.node for one in first_requests(make(COOKIE), 3)] == [0, 1, 2]


@pytest.mark.parametrize(("client", "fields"), [
    (OTHER, (BROWSER,)),
    (CLIENT, ("User-Agent: curl",)),
    (CLIENT, ("Accept: */*",)),
    (CLIENT, (BROWSER, "Host: api.example.com")),
])  # fmt: skip
def test_other_clients_have_their_own(make, client: str, fields: tuple[str, ...]) -> None:
    world = make(RESERVING)
    first_requests(world, 1)
    other = first_requests(world, 1, *fields, client=client)[0]
    assert (other.outcome, other.node) == ("new", 1)


def test_a_field_that_is_absent_is_no_other_field(make) -> None:
    world = make(RESERVING)
    world.decide(CLIENT, get("Host: x", version="1.0"))
    other = world.decide(CLIENT, get("User-Agent: x", version="1.0"))
    assert other.outcome == "new"


def test_a_reservation_ends_some_time_after_the_answer(make) -> None:
    world = make(RESERVING)
    first = first_requests(world, 1)[0]
    world.now_ticks += 8
    first.answered()
    world.now_ticks += 9
    assert first_requests(world, 1)[0].outcome == "reserved"
    world.now_ticks += 1
    assert first_requests(world, 1)[0].outcome == "new"


def test_a_reservation_outlives_a_slow_answer_but_not_every_answer(make) -> None:
    world = make(RESERVING, timeouts={"response": 60_000, "connect": 2_000})
    first_requests(world, 1)
    world.now_ticks += 620 + 9
    assert first_requests(world, 1)[0].outcome == "reserved"
    world.now_ticks += 1
    assert first_requests(world, 1)[0].outcome == "new"


def test_a_reservation_ends_with_a_request_that_failed(make) -> None:
    world = make(RESERVING)
    first = first_requests(world, 1)[0]
    first.answered(False)
    assert world.maps(0, reserved=True) == {}
    assert first_requests(world, 1)[0].outcome == "new"
    first.answered(False)  # a second time is nothing
    assert len(world.maps(0, reserved=True)) == 1


def test_who_joined_does_not_end_it(make) -> None:
    world = make(RESERVING)
    first, second = first_requests(world, 2)
    second.answered(False)
    assert first_requests(world, 1)[0].outcome == "reserved"
    first.answered()


@pytest.mark.parametrize("name", ["down", "draining", "disabled"])
def test_a_reserved_node_that_takes_no_new_sessions(make, name: str) -> None:
    world = make(RESERVING)
    first = first_requests(world, 1)[0]
    state(world, 0, name)
    second = first_requests(world, 1)[0]
    assert (second.outcome, second.node, second.holds_reservation) == ("new", 2, True)
    assert first_requests(world, 1)[0].node == 2
    # What the first one held is the second one's now.
    first.answered(False)
    assert list(world.maps(0, reserved=True).values()) == ["10.0.0.3:80"]


def test_a_reservation_follows_a_retry(make) -> None:
    world = make(RESERVING)
    first = first_requests(world, 1)[0].again()
    assert first.node == 2
    second = first_requests(world, 1)[0]
    assert (second.outcome, second.node) == ("reserved", 2)
    second.again()
    assert second.node != 2
    assert second.outcome == "reserved"


def test_a_retry_that_found_nobody_ends_it(make) -> None:
    world = make(RESERVING, nodes=nodes(1))
    first = first_requests(world, 1)[0].again()
    assert (first.action, first.node) == ("no-node", -1)
    first.answered(False)
    assert world.maps(0, reserved=True) == {}


def test_sessions_that_lost_their_node_share_the_new_one(make) -> None:
    world = make(RESERVING)
    request = with_cookie(RESERVING, make.setting(world).cookie("10.0.0.1:80"), BROWSER)
    state(world, 0, "down")
    made = [world.decide(CLIENT, request) for _ in range(3)]
    assert len({one.node for one in made}) == 1
    assert {one.outcome for one in made} == {"node-down"}


def test_a_session_needs_no_reservation(make) -> None:
    world = make(RESERVING)
    world.decide(CLIENT, with_cookie(RESERVING, make.setting(world).cookie("10.0.0.1:80")))
    assert world.maps(0, reserved=True) == {}


def test_a_reservation_and_a_fallback(make) -> None:
    world = make(changed(CHAIN[0], reserve_ticks=10), IP)
    first, second = first_requests(world, 2)
    assert first.holds_reservation
    # The fallback knows it already: better than a reservation.
    assert (second.outcome, second.found_class, second.node) == ("hit", 1, first.node)


# ---- looking only ----


def photograph(world: World, classes: int) -> tuple:
    return (
        [world.maps(i) for i in range(classes)], [world.used_at(i) for i in range(classes)],
        world.turns(0), world.random,
    )  # fmt: skip


@pytest.mark.parametrize("case", ["new", "hit", "expired", "cookie", "moved", "down", "close"])
def test_a_peek_changes_nothing(make, case: str) -> None:
    flags = {"failure_mode": "close"} if case == "close" else {}
    chain = [changed(CHAIN[0], reserve_ticks=10, **flags), changed(IP, expiry_ticks=100, **flags)]
    world = make(*chain)
    request = get(BROWSER)
    if case != "new":
        world.put(1, CLIENT, "10.0.0.1", 9999 if case == "moved" else 80)
    if case in ("cookie", "close"):
        request = with_cookie(chain[0], make.setting(world).cookie("10.0.0.1:80"))
    if case in ("down", "close"):
        state(world, 0, "down")
    world.now_ticks += 150 if case == "expired" else 50
    before = photograph(world, 2)
    reserved = world.maps(0, reserved=True)
    peeked = world.decide(CLIENT, request, peek=True)
    assert photograph(world, 2) == before
    assert world.maps(0, reserved=True) == reserved == {}
    # What it said is what traffic then does.
    real = world.decide(CLIENT, request)
    said = peeked.fields()
    for name in ("holds_reservation",):
        said.pop(name)
    assert said.items() <= real.fields().items()


@pytest.mark.parametrize("algorithm", ["round-robin", "weighted-round-robin", "least-connections",
                                       "random-of-two", "fastest-response", "hash"])  # fmt: skip
def test_a_peek_takes_no_turn(make, algorithm: str) -> None:
    world = make(IP, algorithm=algorithm, nodes=nodes(5))
    for number in range(10):
        client = f"192.0.2.{number + 1}"
        peeked = [world.decide(client, get(), peek=True).node for _ in range(3)]
        assert peeked == [world.decide(client, get()).node] * 3
