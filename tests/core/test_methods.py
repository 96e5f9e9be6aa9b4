"""The tables of the methods: each type of the configuration has its row and its parts."""

import pytest

from fastlb.config import CLASS_TYPES
from tests.core.plans import Class, get


@pytest.mark.parametrize("name", CLASS_TYPES)
def test_every_type_reads_requests(make, name: str) -> None:
    """A row in another's place would read another's session."""
    world = make(Class("one", type=name, key=[("source", "")], session_cookie="SID"))
    for data in (get(), None):
        found = world.find(0, "192.0.2.1", data)
        known = name in ("ip", "hash", "universal")
        assert (found["kind"] != "nothing") == known
    assert world.decide("192.0.2.1", get()).action == "forward"


@pytest.mark.parametrize(("name", "field"), [
    ("j2ee", "JSESSIONID=A1"), ("asp", "ASP.NET_SessionId=abcdefghijklmnopqrstuvwx"),
])  # fmt: skip
def test_types_that_read_responses(make, name: str, field: str) -> None:
    world = make(Class("one", type=name))
    keys, ended = world.learn(0, f"HTTP/1.1 200 OK\r\nSet-Cookie: {field}\r\n\r\n".encode())
    assert (len(keys), ended) == (1, False)
    assert world.find(0, "192.0.2.1", get(f"Cookie: {field}"))["keys"] == keys
