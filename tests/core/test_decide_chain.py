"""Decisions over several classes, parallel first requests, and looking only."""

import pytest

from fastlb._core._testing_decide import World
from tests.core.plans import Class, Node, changed, get, nodes, state, with_cookie

CLIENT = "192.0.2.1"
OTHER = "192.0.2.2"
MODES = ["new-node", "redirect", "close"]
ACTIONS = {"new-node": "forward", "redirect": "redirect", "close": "close"}
BROWSER = "User-Agent: Mozilla/5.0"
IP = Class("by-ip")
COOKIE = Class("shop", type="transparent")
CHAIN = [Class("shop", type="transparent", fallback="by-ip"), IP]


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


# ---- several cookie classes ----


TWO = [Class("shop", type="transparent", fallback="spare"), Class("spare", type="transparent")]


def both_cookies(world: World, make, node: str, *fields: str) -> bytes:
    cookie = make.setting(world).cookie
    pairs = "; ".join(f"{one.cookie_name}={cookie(node, one.name)}" for one in TWO)
    return get(f"Cookie: {pairs}", *fields)


@pytest.mark.parametrize("mode", ["close", "redirect"])
@pytest.mark.parametrize("how", ["down", "connect"])
def test_deleting_expires_the_cookies_of_the_whole_chain(make, mode: str, how: str) -> None:
    world = make(changed(TWO[0], failure_mode=mode), TWO[1])
    request = both_cookies(world, make, "10.0.0.1:80")
    if how == "down":
        state(world, 0, "down")
        made = world.decide(CLIENT, request)
    else:
        made = world.decide(CLIENT, request).again()
    assert (made.action, made.found_class, made.expires) == (ACTIONS[mode], 0, [0, 1])


@pytest.mark.parametrize("how", ["down", "connect"])
def test_failing_over_writes_the_cookies_of_the_whole_chain(make, how: str) -> None:
    world = make(*TWO)
    request = both_cookies(world, make, "10.0.0.1:80")
    hit = world.decide(CLIENT, request)
    assert (hit.outcome, hit.writes) == ("hit", [])
    if how == "down":
        state(world, 0, "down")
    made = world.decide(CLIENT, request)
    if how == "connect":
        made.again()
    assert (made.node, made.writes) != (0, [])
    assert made.writes == [0, 1]


@pytest.mark.parametrize("how", ["down", "connect"])
def test_failing_over_makes_no_session_younger(make, how: str) -> None:
    """The first-seen date is never rewritten: a session that fails over again and again would
    outlive max_lifetime."""
    cls = Class("shop", type="transparent", max_lifetime_s=3600, timeout_s=600)
    world = make(cls)
    first, last = world.wall_s - 3000, world.wall_s - 10
    value = make.setting(world).cookie("10.0.0.1:80", first_seen=first, last_seen=last)
    if how == "down":
        state(world, 0, "down")
    made = world.decide(CLIENT, with_cookie(cls, value))
    if how == "connect":
        made.again()
    assert made.writes == [0]
    assert made.cookies()[0]["first_seen_s"] == first
    made.again()
    assert made.cookies()[0]["first_seen_s"] == first


def test_the_session_after_an_expired_one_is_new(make) -> None:
    cls = Class("shop", type="transparent", max_lifetime_s=3600)
    world = make(cls)
    old = world.wall_s - 3601
    value = make.setting(world).cookie("10.0.0.1:80", first_seen=old, last_seen=old)
    made = world.decide(CLIENT, with_cookie(cls, value)).again()
    assert (made.outcome, made.cookies()[0]["first_seen_s"]) == ("expired", 0)


# ---- classes that are obeyed for listed nodes only ----


ZEUS = Class("zeus", type="x-zeus", flags=("listed_only",))


def zeus(*values: str) -> bytes:
    return get(*(f"Cookie: X-Zeus-Backend={value}" for value in values))


@pytest.mark.parametrize(("values", "node", "outcome"), [
    (("10.0.0.2:80",), 1, "hit"),
    (("10.9.9.9:80", "10.0.0.2:80"), 1, "hit"),
    (("rubbish", "10.0.0.2:80", "10.0.0.3:80"), 1, "hit"),
    (("10.0.0.3:80", "10.9.9.9:80"), 2, "hit"),
    (("10.9.9.9:80", "10.9.9.8:80"), 0, "unknown-node"),
])  # fmt: skip
def test_the_first_value_that_names_a_listed_node(make, values, node: int, outcome: str) -> None:
    made = make(ZEUS).decide(CLIENT, zeus(*values))
    assert (made.node, made.outcome, made.duplicates) == (node, outcome, len(values) > 1)


def test_an_unknown_node_is_no_session_and_a_fallback_is_asked(make) -> None:
    world = make(changed(ZEUS, fallback="by-ip", failure_mode="close"), IP)
    first = world.decide(CLIENT, zeus("10.9.9.9:80"))
    assert (first.action, first.outcome, first.found_class) == ("forward", "unknown-node", -1)
    again = world.decide(CLIENT, zeus("10.9.9.9:80"))
    assert (again.outcome, again.found_class) == ("hit", 1)


def test_the_outcome_of_the_first_class_counts_not_that_of_an_unknown_node_behind_it(make) -> None:
    world = make(changed(COOKIE, fallback="zeus"), ZEUS)
    request = get("Cookie: X-Zeus-Backend=10.9.9.9:80")
    assert world.decide(CLIENT, request).outcome == "new"
    bad = get(f"Cookie: {COOKIE.cookie_name}=x; X-Zeus-Backend=10.9.9.9:80")
    assert world.decide(CLIENT, bad).outcome == "tampered"


def test_a_listed_node_that_is_down_meets_the_failure_mode_each_time(make) -> None:
    world = make(changed(ZEUS, failure_mode="close"))
    state(world, 1, "down")
    for _ in range(2):
        made = world.decide(CLIENT, zeus("10.0.0.2:80"))
        assert (made.action, made.outcome) == ("close", "node-down")


# ---- several reasons to get no new session ----


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "hash"])
def test_draining_weight_0_and_backup_together(make, algorithm: str) -> None:
    of = [Node("10.0.0.1:80"), Node("10.0.0.2:80", weight=0), Node("10.0.0.3:80", backup=True)]
    world = make(COOKIE, nodes=of, algorithm=algorithm)

    def new() -> tuple[int, bool]:
        made = world.decide(CLIENT, get())
        return made.node, made.last_draining

    assert new() == (0, False)
    state(world, 0, "draining")
    assert new() == (2, False)  # backup before draining
    state(world, 2, "down")
    assert new() == (0, True)
    state(world, 0, "disabled")
    assert new() == (-1, False)


@pytest.mark.parametrize("node", ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"])
def test_their_sessions_stay(make, node: str) -> None:
    of = [Node("10.0.0.1:80", backup=True), Node("10.0.0.2:80", weight=0), Node("10.0.0.3:80")]
    world = make(COOKIE, nodes=of)
    for slot in range(3):
        state(world, slot, "draining")
    made = world.decide(CLIENT, with_cookie(COOKIE, make.setting(world).cookie(node)))
    assert (made.action, made.outcome, made.address) == ("forward", "draining", node)
