"""TLS session ids and tickets: what is looked up, and which handshakes make maps."""

import pytest

from tests.core.handshakes import client_hello, extension, handshake, records
from tests.core.handshakes import server_flight as flight
from tests.core.plans import Class, get, state

CLIENT = "192.0.2.1"
ID = bytes(range(32))
TICKET = b"ticket" * 20
HELLO = records(client_hello())
WITH_ID = records(client_hello(ID))
WITH_TICKET = records(client_hello(bytes(32), extension(35, TICKET)))
EMPTY_TICKET = records(client_hello(b"", extension(35, b"")))
IDS = Class("ids", type="ssl")


# ---- what is looked up ----


@pytest.mark.parametrize("data", [None, get(), get("Cookie: ssl=1")])
def test_an_http_request_has_none(make, data: bytes | None) -> None:
    found = make(IDS).find(0, CLIENT, data)
    assert (found["kind"], found["outcome"], found["keys"]) == ("nothing", "no-key", [])


@pytest.mark.parametrize("hello", [HELLO, EMPTY_TICKET])
def test_a_hello_without_a_session_has_none(make, hello: bytes) -> None:
    found = make(IDS).find(0, CLIENT, hello=hello)
    assert (found["kind"], found["outcome"], found["keys"]) == ("nothing", "no-key", [])


def test_the_ticket_is_asked_before_the_id(make) -> None:
    world = make(IDS)
    both = world.find(0, CLIENT, hello=WITH_TICKET)["keys"]
    id_only = world.find(0, CLIENT, hello=records(client_hello(bytes(32))))["keys"]
    assert len(both) == 2
    assert id_only == both[1:]
    assert both[0] != both[1]


def test_an_id_is_no_ticket_of_the_same_bytes(make) -> None:
    world = make(IDS)
    as_ticket = world.find(0, CLIENT, hello=records(client_hello(b"", extension(35, ID))))
    assert as_ticket["keys"] != world.find(0, CLIENT, hello=WITH_ID)["keys"]


def test_the_fallback_is_asked(make) -> None:
    world = make(Class("ids", type="ssl", fallback="by-ip"), Class("by-ip"))
    made = [world.decide(CLIENT, None) for _ in range(2)]
    assert [(one.node, one.outcome) for one in made] == [(0, "no-key"), (0, "hit")]
    assert (made[1].found_class, world.maps(0)) == (1, {})


# ---- what makes a map ----


def test_a_made_up_id_leaves_nothing(make) -> None:
    world = make(IDS)
    for number in range(200):
        made = world.decide(CLIENT, hello=records(client_hello(bytes([number]) * 32)))
        assert made.outcome == "new"
        assert made.keys == []
        made.again()  # nor does a node that cannot be connected to
    assert world.maps(0) == {}


def test_a_granted_id_is_found_again(make) -> None:
    world = make(IDS)
    first = world.decide(CLIENT, hello=HELLO)
    first.handshake(flight(ID))
    world.decide(CLIENT, hello=HELLO)  # turns round robin
    again = world.decide(CLIENT, hello=WITH_ID)
    assert (again.outcome, again.found_in, again.node) == ("hit", "cache", first.node)
    again.handshake(flight(ID))
    assert list(world.maps(0).values()) == [first.address]


def test_a_granted_ticket_is_found_again(make) -> None:
    world = make(IDS)
    first = world.decide(CLIENT, hello=EMPTY_TICKET)
    first.handshake(flight(b"", TICKET))
    world.decide(CLIENT, hello=EMPTY_TICKET)
    again = world.decide(CLIENT, hello=WITH_TICKET)
    assert (again.outcome, again.node) == ("hit", first.node)


def test_id_and_ticket_of_one_handshake_are_both_learned(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, hello=EMPTY_TICKET).handshake(flight(ID, TICKET))
    assert len(world.maps(0)) == 2


def test_the_echo_beside_a_ticket_is_not_learned(make) -> None:
    world = make(IDS)
    made = world.decide(CLIENT, hello=WITH_TICKET)
    made.handshake(flight(bytes(32)))
    assert world.maps(0) == {}
    made = world.decide(CLIENT, hello=WITH_TICKET)
    made.handshake(flight(bytes(32), b"renewed" * 9))
    assert len(world.maps(0)) == 1  # the new ticket alone
    renewed = records(client_hello(bytes(32), extension(35, b"renewed" * 9)))
    assert world.decide(CLIENT, hello=renewed).outcome == "hit"


def test_another_id_beside_a_ticket_is_a_new_session(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, hello=WITH_TICKET).handshake(flight(ID))
    assert world.decide(CLIENT, hello=WITH_ID).outcome == "hit"


def test_the_echo_of_an_id_without_a_ticket_is_a_session_resumed(make) -> None:
    # Its map was dropped, but the node knew the session: by luck it was the right one.
    world = make(IDS)
    made = world.decide(CLIENT, hello=WITH_ID)
    assert made.outcome == "new"
    made.handshake(flight(ID))
    assert world.decide(CLIENT, hello=WITH_ID).node == made.node


def test_a_refused_resumption_makes_a_new_map_and_leaves_the_old_one(make) -> None:
    world = make(IDS)
    first = world.decide(CLIENT, hello=HELLO)
    first.handshake(flight(ID))
    again = world.decide(CLIENT, hello=WITH_ID)
    again.handshake(flight(b"another" * 4))
    assert set(world.maps(0).values()) == {first.address}
    assert len(world.maps(0)) == 2


@pytest.mark.parametrize("answer", [
    flight(b""),                         # no session that could be resumed
    flight(ID, done=False),              # the client has proved nothing yet
    b"\x15\x03\x03\x00\x02\x02\x28",     # handshake_failure
    flight(ID, done=False) + b"\x15\x03\x03\x00\x02\x02\x28",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"",
])  # fmt: skip
def test_no_handshake_gone_through_grants_anything(make, answer: bytes) -> None:
    world = make(IDS)
    made = world.decide(CLIENT, hello=HELLO)
    made.handshake(answer)
    assert world.maps(0) == {}


def test_tls13_teaches_nothing(make) -> None:
    world = make(IDS)
    one = handshake("1.3", "1.3")
    made = world.decide(CLIENT, hello=one.client)
    made.handshake(one.server)
    assert world.maps(0) == {}
    assert world.decide(CLIENT, hello=one.client).outcome == "new"


@pytest.mark.parametrize("tickets", [True, False])
def test_real_handshakes(make, tickets: bool) -> None:
    world = make(IDS)
    first = handshake(tickets=tickets)
    made = world.decide(CLIENT, hello=first.client)
    made.handshake(first.server)
    again = handshake(tickets=tickets, session=first.session)
    assert again.reused
    found = world.decide(CLIENT, hello=again.client)
    assert (found.outcome, found.node) == ("hit", made.node)
    found.handshake(again.server)
    assert len(world.maps(0)) == 1


def test_a_client_of_tls13_resumes_its_session_of_a_tls12_node(make) -> None:
    world = make(IDS)
    first = handshake("1.2", "1.3")
    made = world.decide(CLIENT, hello=first.client)
    made.handshake(first.server)
    again = handshake("1.2", "1.3", session=first.session)
    assert again.reused
    assert world.decide(CLIENT, hello=again.client).node == made.node


# ---- nodes that fail, and chains ----


def test_a_dead_node_is_forgotten_and_the_new_one_makes_its_own_map(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    state(world, 0, "down")
    moved = world.decide(CLIENT, hello=WITH_ID)
    assert (moved.outcome, moved.previous) == ("node-down", "10.0.0.1:80")
    assert moved.node in (1, 2)
    assert world.maps(0) == {}  # the new node does not know the old session
    moved.handshake(flight(b"fresh" * 5))
    assert list(world.maps(0).values()) == [moved.address]


def test_a_node_that_cannot_be_connected_to_is_forgotten(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    moved = world.decide(CLIENT, hello=WITH_ID).again()
    assert moved.outcome == "connect-failed"
    assert moved.node != 0
    assert world.maps(0) == {}


@pytest.mark.parametrize("flags", [(), ("delete_on_failure",)])
def test_failure_mode_close(make, flags: tuple[str, ...]) -> None:
    world = make(Class("ids", type="ssl", failure_mode="close", flags=flags))
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    state(world, 0, "down")
    assert world.decide(CLIENT, hello=WITH_ID).action == "close"
    assert len(world.maps(0)) == (0 if flags else 1)


def test_a_fallback_follows_the_session(make) -> None:
    world = make(Class("ids", type="ssl", fallback="by-ip"), Class("by-ip"))
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    assert world.decide("192.0.2.77", hello=WITH_ID).node == 0
    assert set(world.maps(1).values()) == {"10.0.0.1:80"}
    assert len(world.maps(1)) == 2
    state(world, 0, "down")
    moved = world.decide(CLIENT, hello=WITH_ID)
    assert (moved.outcome, moved.node != 0) == ("node-down", True)
    assert world.maps(0) == {}
    assert moved.address in world.maps(1).values()


def test_what_the_fallback_found_is_granted_like_any_other(make) -> None:
    world = make(Class("ids", type="ssl", fallback="by-ip"), Class("by-ip"))
    world.decide(CLIENT, hello=HELLO)
    made = world.decide(CLIENT, hello=WITH_ID)
    assert (made.outcome, made.found_class, made.node) == ("hit", 1, 0)
    assert world.maps(0) == {}
    made.handshake(flight(b"granted" * 4))
    assert list(world.maps(0).values()) == ["10.0.0.1:80"]


def test_behind_another_class_its_maps_are_kept_alive_and_never_made(make) -> None:
    world = make(Class("by-ip", fallback="ids"), Class("ids", type="ssl", expiry_ticks=100))
    first = world.decide(CLIENT, hello=HELLO)
    first.handshake(flight(ID))
    for _ in range(3):
        world.now_ticks += 60
        assert world.decide(CLIENT, hello=WITH_ID).outcome == "hit"
    assert world.used_at(1) == [world.now_ticks]
    world.decide(CLIENT, hello=records(client_hello(b"x" * 32)))
    assert len(world.maps(1)) == 1
    state(world, first.node, "down")
    world.decide(CLIENT, hello=WITH_ID)
    assert world.maps(1) == {}


def test_an_expired_map_is_no_session(make) -> None:
    world = make(Class("ids", type="ssl", expiry_ticks=100))
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    world.now_ticks += 101
    made = world.decide(CLIENT, hello=WITH_ID)
    assert (made.outcome, world.maps(0)) == ("expired", {})


def test_looking_only_changes_nothing(make) -> None:
    world = make(IDS)
    world.decide(CLIENT, hello=HELLO).handshake(flight(ID))
    before, used = world.maps(0), world.used_at(0)
    world.now_ticks += 5
    seen = world.decide(CLIENT, hello=WITH_ID, peek=True)
    assert (seen.outcome, seen.node) == ("hit", 0)
    seen.handshake(flight(b"other" * 5))
    assert (world.maps(0), world.used_at(0)) == (before, used)


def test_two_records_of_an_id_are_one(make) -> None:
    world = make(IDS)
    message = client_hello(ID)
    assert (world.find(0, CLIENT, hello=records(message, 1, 7, 40))["keys"]
            == world.find(0, CLIENT, hello=records(message))["keys"])  # fmt: skip
