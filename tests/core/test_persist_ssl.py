"""TLS session ids, where there is no ClientHello: nothing that could be a key."""

import pytest

from tests.core.plans import Class, get

CLIENT = "192.0.2.1"


@pytest.mark.parametrize("data", [None, get(), get("Cookie: ssl=1")])
def test_an_http_request_has_none(make, data: bytes | None) -> None:
    world = make(Class("ids", type="ssl"))
    found = world.find(0, CLIENT, data)
    assert (found["kind"], found["outcome"], found["keys"]) == ("nothing", "no-key", [])


def test_the_fallback_is_asked(make) -> None:
    world = make(Class("ids", type="ssl", fallback="by-ip"), Class("by-ip"))
    made = [world.decide(CLIENT, None) for _ in range(2)]
    assert [(one.node, one.outcome) for one in made] == [(0, "no-key"), (0, "hit")]
    assert (made[1].found_class, world.maps(0)) == (1, {})
