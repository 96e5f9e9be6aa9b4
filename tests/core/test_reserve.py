"""Parallel first requests, and clients that lose the cookie that they were given."""

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


def test_a_reservation_follows_the_choice_that_was_joined(make) -> None:
    """The session's map names another worker's choice: so does the reservation, at once."""
    world = make(Class("by-ip", fallback="shop"), RESERVING, nodes=nodes(5))
    world.put(0, CLIENT, "10.0.0.1", 80)
    made = world.decide(CLIENT, get(BROWSER))
    world.put(0, CLIENT, "10.0.0.5", 80)
    made.again()
    assert made.node == 4
    assert list(world.maps(1, reserved=True).values()) == ["10.0.0.5:80"]


# ---- clients that lose their cookie ----


HASH = Class("by-hash", type="hash", key=[("source", "")])
HASHING = [changed(RESERVING, fallback="by-hash"), HASH]


def given(world: World, *fields: str, client: str = CLIENT) -> Made:
    """A client that was given a cookie, longer ago than parallel requests are apart."""
    made = world.decide(client, get(*(fields or (BROWSER,))))
    made.answered()
    world.now_ticks += 10
    return made


def test_a_client_without_the_cookie_that_it_was_given(make) -> None:
    world = make(RESERVING)
    given(world)
    lost = world.decide(CLIENT, get(BROWSER))
    assert (lost.action, lost.outcome, lost.found_in) == ("forward", "cookie-lost", "none")
    assert (lost.found_class, lost.established, lost.writes) == (-1, False, [0])
    # Its own parallel requests join it, as any others.
    assert world.decide(CLIENT, get(BROWSER)).outcome == "reserved"


@pytest.mark.parametrize(("ticks", "outcome"), [(599, "cookie-lost"), (600, "new")])
def test_it_is_remembered_for_a_minute(make, ticks: int, outcome: str) -> None:
    world = make(RESERVING)
    given(world)
    world.now_ticks += ticks
    assert world.decide(CLIENT, get(BROWSER)).outcome == outcome


@pytest.mark.parametrize(("client", "fields"), [
    (OTHER, (BROWSER,)),
    (CLIENT, ("User-Agent: curl",)),
    (CLIENT, (BROWSER, "Host: other.example")),
])  # fmt: skip
def test_another_client_has_lost_nothing(make, client: str, fields: tuple[str, ...]) -> None:
    world = make(RESERVING)
    given(world)
    assert world.decide(client, get(*fields)).outcome == "new"


def test_who_was_never_answered_has_lost_nothing(make) -> None:
    world = make(RESERVING)
    world.decide(CLIENT, get(BROWSER)).answered(False)
    world.now_ticks += 10
    assert world.decide(CLIENT, get(BROWSER)).outcome == "new"


def test_the_memory_is_bounded_and_the_oldest_goes_first(make) -> None:
    world = make(changed(RESERVING, size=16))
    for number in range(17):
        world.decide(f"192.0.2.{number + 1}", get(BROWSER)).answered()
    world.now_ticks += 10
    assert len(world.maps(0, reserved=True)) == 16
    assert world.decide("192.0.2.1", get(BROWSER)).outcome == "new"
    assert world.decide("192.0.2.17", get(BROWSER)).outcome == "cookie-lost"


@pytest.mark.parametrize("value", ["rubbish", ""])
def test_a_bad_cookie_is_not_a_lost_one(make, value: str) -> None:
    world = make(RESERVING)
    given(world)
    assert world.decide(CLIENT, with_cookie(RESERVING, value, BROWSER)).outcome == "tampered"


def test_an_old_session_and_a_failed_one_are_no_lost_ones(make) -> None:
    cls = changed(RESERVING, timeout_s=10)
    world = make(cls)
    given(world)
    cookie = make.setting(world).cookie
    old = cookie("10.0.0.1:80", first_seen=world.wall_s - 99, last_seen=world.wall_s - 99)
    assert world.decide(CLIENT, with_cookie(cls, old, BROWSER)).outcome == "expired"
    world.now_ticks += 20
    state(world, 0, "down")
    now = cookie("10.0.0.1:80", first_seen=world.wall_s, last_seen=world.wall_s)
    assert world.decide(CLIENT, with_cookie(cls, now, BROWSER)).outcome == "node-down"


def test_a_valid_cookie_asks_nobody(make) -> None:
    world = make(*HASHING)
    request = with_cookie(RESERVING, make.setting(world).cookie("10.0.0.1:80"), BROWSER)
    assert not world.decide(CLIENT, request).has_reservation
    assert world.maps(0, reserved=True) == {}


def test_without_reserve_there_is_no_memory(make) -> None:
    world = make(COOKIE)
    given(world)
    assert world.decide(CLIENT, get(BROWSER)).outcome == "new"


def test_the_applications_cookie_is_given_when_the_application_wants(make) -> None:
    """Who comes without has not lost it; who comes with the application's, but not ours, has."""
    cls = Class("shop", type="cookie", session_cookie="SID", reserve_ticks=10)
    world = make(cls)
    given(world)
    assert world.decide(CLIENT, get(BROWSER)).outcome != "cookie-lost"
    world.now_ticks += 20
    given(world)
    assert world.decide(CLIENT, get(BROWSER, "Cookie: SID=abc")).outcome == "cookie-lost"


def test_the_clock_runs_over(make) -> None:
    world = make(RESERVING)
    for start in range(2**32 - 620, 2**32, 155):
        world.now_ticks = start
        made = world.decide(f"192.0.2.{start % 251}", get(BROWSER))
        assert made.outcome == "new"
        made.answered()
        world.now_ticks = (start + 9) % 2**32
        assert world.decide(f"192.0.2.{start % 251}", get(BROWSER)).outcome == "reserved"
        world.now_ticks = (start + 10 + 598) % 2**32
        assert world.decide(f"192.0.2.{start % 251}", get(BROWSER)).outcome == "cookie-lost"


# ---- a hash behind a cookie ----


def test_a_hash_behind_a_cookie_begins_sessions(make) -> None:
    world = make(*HASHING)
    first = world.decide(CLIENT, get(BROWSER))
    assert (first.outcome, first.found_in, first.found_class) == ("hashed", "hash", 1)
    assert (first.writes, first.holds_reservation, first.established) == ([0], True, True)
    # A parallel first request: the same node, and a cookie too.
    other = world.decide(CLIENT, get(BROWSER))
    assert (other.outcome, other.node, other.writes) == ("hashed", first.node, [0])
    assert not other.holds_reservation


def test_a_hash_serves_a_lost_cookie_and_gives_no_second_one(make) -> None:
    world = make(*HASHING)
    first = given(world)
    lost = world.decide(CLIENT, get(BROWSER))
    assert (lost.outcome, lost.node, lost.writes) == ("cookie-lost", first.node, [])
    assert (lost.found_in, lost.found_class) == ("hash", 1)
    world.now_ticks += 600
    assert world.decide(CLIENT, get(BROWSER)).writes == [0]


def test_with_reissue_it_gets_one(make) -> None:
    world = make(changed(HASHING[0], flags=("reissue",)), HASH)
    given(world)
    lost = world.decide(CLIENT, get(BROWSER))
    assert (lost.outcome, lost.writes) == ("cookie-lost", [0])


@pytest.mark.parametrize("value", ["rubbish", ""])
def test_a_bad_cookie_gets_a_good_one(make, value: str) -> None:
    world = make(*HASHING)
    given(world)
    made = world.decide(CLIENT, with_cookie(HASHING[0], value, BROWSER))
    assert (made.outcome, made.writes) == ("hashed", [0])


def test_a_hash_without_reservations_gives_one_each_time(make) -> None:
    world = make(changed(COOKIE, fallback="by-hash"), HASH)
    given(world)
    assert world.decide(CLIENT, get(BROWSER)).writes == [0]


@pytest.mark.parametrize("mode", MODES)
def test_a_hash_whose_node_fails(make, mode: str) -> None:
    world = make(changed(RESERVING, fallback="by-hash"), changed(HASH, failure_mode=mode))
    home = world.decide(CLIENT, get(BROWSER)).node
    for made in (world.decide(CLIENT, get(BROWSER)).again(),):
        assert (made.action, made.outcome) == (ACTIONS[mode], "connect-failed")
        assert made.writes == ([0] if mode == "new-node" else [])
        assert made.node != home
    state(world, home, "down")
    moved = {world.decide(CLIENT, get(f"User-Agent: {n}")).node for n in range(4)}
    assert len(moved) == 1  # the next node of the key, for all of them
    assert home not in moved


@pytest.mark.parametrize(("name", "outcome"), [
    ("down", "node-down"), ("disabled", "node-disabled"), ("draining", "new"),
])  # fmt: skip
def test_a_hash_with_no_node_left(make, name: str, outcome: str) -> None:
    for refuse in (False, True):
        with_all = make(HASH, refuse_last_draining=refuse)
        for slot in range(3):
            state(with_all, slot, name)
        made = with_all.decide(CLIENT, get())
        serves = name == "draining" and not refuse
        assert made.action == ("forward" if serves else "no-node")
        assert (made.outcome, made.last_draining) == (outcome, serves)
        if serves:  # by hash still
            assert len({with_all.decide(CLIENT, get()).node for _ in range(4)}) == 1
