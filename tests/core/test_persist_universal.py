"""The `universal` method in decisions: maps made on requests, learned from responses, ended."""

import pytest

from tests.core.plans import Class, changed, get, nodes, state

CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
USER = Class("shop", type="universal", key=[("header", "X-User")])
SID = Class("shop", type="universal", key=[("cookie", "SID")], learn=[("cookie", "SID")])
ALICE, BOB = get("X-User: alice"), get("X-User: bob")
MODES = {"new-node": "forward", "redirect": "redirect", "close": "close"}


def cookie(value: str) -> bytes:
    return get(f"Cookie: SID={value}")


def sets(*lines: str) -> bytes:
    return "\r\n".join(
        ["HTTP/1.1 200 OK", *(f"Set-Cookie: {one}" for one in lines), "", ""]
    ).encode()


def homes(world) -> list[str]:
    return sorted(world.maps(0).values())


# ---- on the request ----


def test_a_key_keeps_its_node_wherever_it_comes_from(make) -> None:
    world = make(USER)
    first = world.decide(CLIENT, ALICE)
    assert (first.outcome, first.node, homes(world)) == ("new", 0, ["10.0.0.1:80"])
    again = world.decide(OTHER, ALICE)
    assert (again.outcome, again.found_in, again.node) == ("hit", "cache", 0)
    assert (world.decide(CLIENT, BOB).node, world.decide(CLIENT, BOB).node) == (1, 1)


def test_without_a_key_nothing_is_remembered(make) -> None:
    world = make(USER)
    made = [world.decide(CLIENT, get()) for _ in range(4)]
    assert [one.node for one in made] == [0, 1, 2, 0]
    assert {one.outcome for one in made} == {"no-key"}
    assert homes(world) == []


def test_without_a_key_the_fallback_is_asked(make) -> None:
    world = make(changed(USER, fallback="by-ip"), Class("by-ip"))
    world.decide(CLIENT, ALICE)
    lost = world.decide(CLIENT, get())
    assert (lost.outcome, lost.found_class, lost.node, lost.keys) == ("hit", 1, 0, [1])
    assert len(world.maps(0)) == 1


def test_a_map_expires_and_is_renewed_by_use(make) -> None:
    world = make(changed(USER, expiry_ticks=100))
    outcomes = []
    for pause in (0, 90, 90, 100):
        world.now_ticks += pause
        outcomes.append(world.decide(CLIENT, ALICE).outcome)
    assert outcomes == ["new", "hit", "hit", "expired"]


def test_looking_only_makes_no_map(make) -> None:
    world = make(USER)
    assert world.decide(CLIENT, ALICE, peek=True).outcome == "new"
    assert homes(world) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("why", ["down", "disabled", "refused"])
def test_failure_modes(make, mode: str, delete: bool, why: str) -> None:
    flags = ("delete_on_failure",) if delete else ()
    world = make(changed(USER, failure_mode=mode, flags=flags))
    world.decide(CLIENT, ALICE)
    if why != "refused":
        state(world, 0, why)
    made = world.decide(CLIENT, ALICE)
    if why == "refused":
        made.again()
    outcome = {"down": "node-down", "disabled": "node-disabled", "refused": "connect-failed"}[why]
    assert (made.action, made.outcome, made.previous) == (MODES[mode], outcome, "10.0.0.1:80")
    state(world, 0, "up")
    if mode == "new-node":
        assert made.node != 0
        assert homes(world) == [f"10.0.0.{made.node + 1}:80"]
        assert world.decide(CLIENT, ALICE).node == made.node
    else:
        assert homes(world) == ([] if delete else ["10.0.0.1:80"])
        assert world.decide(CLIENT, ALICE).outcome == ("new" if delete else "hit")


def test_a_repeated_cookie_is_counted_in_the_decision(make) -> None:
    world = make(SID)
    made = world.decide(CLIENT, get("Cookie: SID=; SID=a"))
    assert (made.duplicates, len(made.keys)) == (True, 1)
    assert world.decide(CLIENT, cookie("a")).outcome == "hit"
    assert world.decide(CLIENT, cookie("a")).duplicates is False


# ---- from the response ----


def test_the_id_that_the_response_sets_is_known_at_once(make) -> None:
    world = make(SID)
    for _ in range(2):
        login = world.decide(CLIENT, get())
    assert (login.outcome, login.node) == ("no-key", 1)
    login.learn(sets("SID=abc; Path=/; HttpOnly"))
    assert homes(world) == ["10.0.0.2:80"]
    again = world.decide(OTHER, cookie("abc"))
    assert (again.outcome, again.node) == ("hit", 1)


def test_an_unknown_id_is_bound_by_its_request_too(make) -> None:
    """The application may not set its cookie again; nobody must be sent round and round."""
    world = make(SID)
    assert world.decide(CLIENT, cookie("old")).outcome == "new"
    again = [world.decide(CLIENT, cookie("old")) for _ in range(3)]
    assert {(one.outcome, one.node) for one in again} == {("hit", 0)}


def test_an_id_that_changes_at_login_stays_on_its_node(make) -> None:
    world = make(SID)
    world.decide(OTHER, get())
    request = world.decide(CLIENT, cookie("anonymous"))
    request.learn(sets("SID=alice; Path=/"))
    assert homes(world) == ["10.0.0.2:80"] * 2
    assert world.decide(CLIENT, cookie("alice")).node == request.node


def test_the_node_that_sets_an_id_has_its_session(make) -> None:
    world = make(SID)
    assert world.decide(CLIENT, cookie("a")).node == 0
    world.decide(CLIENT, get()).learn(sets("SID=a"))  # another node says so
    assert world.decide(CLIENT, cookie("a")).node == 1


def test_logging_out_ends_the_session(make) -> None:
    world = make(SID)
    world.decide(CLIENT, cookie("a")).learn(sets("SID=deleted; Max-Age=0"))
    assert homes(world) == []
    made = world.decide(CLIENT, cookie("a"))
    made.learn(sets("SID=deleted; Max-Age=0; Path=/old", "SID=b; Path=/"))
    assert len(homes(world)) == 1
    assert world.decide(CLIENT, cookie("b")).outcome == "hit"


def test_logging_out_ends_it_in_the_fallbacks_too(make) -> None:
    world = make(changed(SID, fallback="by-ip"), Class("by-ip"))
    made = world.decide(CLIENT, cookie("a"))
    assert len(world.maps(1)) == 1
    made.learn(sets("SID=; Max-Age=0"))
    assert (homes(world), world.maps(1)) == ([], {})


def test_a_learned_id_after_a_failover_names_the_node_that_answered(make) -> None:
    world = make(SID)
    made = world.decide(CLIENT, get()).again()
    assert made.tried == [0]
    made.learn(sets("SID=a"))
    assert world.decide(CLIENT, cookie("a")).node == made.node != 0


def test_a_class_behind_the_first_learns(make) -> None:
    world = make(Class("by-ip", fallback="shop"), SID)
    world.decide(CLIENT, get()).learn(sets("SID=a"))
    found = world.decide(OTHER, cookie("a"))
    assert (found.outcome, found.found_class, found.node) == ("hit", 1, 0)


def test_a_header_teaches_it(make) -> None:
    header = [("header", "X-Session")]
    world = make(Class("shop", type="universal", key=header, learn=header), nodes=nodes(2))
    world.decide(CLIENT, get()).learn(b"HTTP/1.1 200 OK\r\nX-Session: s1\r\n\r\n")
    assert world.decide(OTHER, get("x-session: s1")).outcome == "hit"
