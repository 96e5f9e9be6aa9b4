"""Decisions over several classes, parallel first requests, and looking only."""

import pytest

from fastlb._core._testing_decide import Made, World
from tests.core.plans import Class, changed, get, nodes, state, with_cookie

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
    last = first_requests(world, 1)[0]
    assert (last.outcome, last.node, last.holds_reservation) == ("cookie-lost", 1, True)


def test_a_reservation_outlives_a_slow_answer_but_not_every_answer(make) -> None:
    world = make(RESERVING, timeouts={"response": 60_000, "connect": 2_000})
    first_requests(world, 1)
    world.now_ticks += 620 + 9
    assert first_requests(world, 1)[0].outcome == "reserved"
    world.now_ticks += 1
    assert first_requests(world, 1)[0].outcome != "reserved"


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


# ---- several cookie classes, many keys, another worker meanwhile ----


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


def test_a_retry_of_a_new_session_joins_another_workers_choice(make) -> None:
    """Both have the key's first requests; the other one fails over first."""
    world = make(IP, nodes=nodes(5))
    one, other = world.decide(CLIENT, get()), world.decide(CLIENT, get())
    assert (one.outcome, other.outcome, one.node, other.node) == ("new", "hit", 0, 0)
    other.again()
    one.again()
    assert one.node == other.node
    assert list(world.maps(0).values()) == [f"10.0.0.{one.node + 1}:80"]


def test_a_reservation_follows_the_choice_that_was_joined(make) -> None:
    """The session's map names another worker's choice: so does the reservation, at once."""
    world = make(Class("by-ip", fallback="shop"), RESERVING, nodes=nodes(5))
    world.put(0, CLIENT, "10.0.0.1", 80)
    made = world.decide(CLIENT, get(BROWSER))
    world.put(0, CLIENT, "10.0.0.5", 80)
    made.again()
    assert made.node == 4
    assert list(world.maps(1, reserved=True).values()) == ["10.0.0.5:80"]


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
