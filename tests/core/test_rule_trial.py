"""Calls outside of any worker."""

import gc

import pytest

from fastlb import testing
from fastlb._core.rule_trial import Trial

from .rule_words import HEAD, run, trial


def test_it_takes_a_plan_and_a_kind():
    with pytest.raises(ValueError, match="not a plan"):
        Trial("request", b"x" * 5000)
    with pytest.raises(KeyError):
        Trial("other", testing.request().plan())


@pytest.mark.parametrize(
    "head",
    [b"", b"GET / HTTP/1.1\r\nHost: h\r\n", b"GET / HTTP/1.1\r\n\r\n", HEAD + b"more",
     b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n"],
)  # fmt: skip
def test_heads_are_whole_and_right(head):
    with pytest.raises(ValueError, match=r"request"):
        trial(head=head or b"\r\n")


def test_what_it_shows_can_be_read_as_long_as_it_is_held():
    made = trial()
    request = made.show_request()
    headers = request.headers
    cookies = made.show_request().cookies
    del made, request
    gc.collect()
    assert headers["Host"] == "www.example.com"
    assert cookies["sid"] == "abc"
    with pytest.raises(AttributeError, match="cannot be changed"):
        headers.add("X", "y")


def test_each_run_begins_anew():
    made = trial()
    assert run(lambda request: setattr(request, "pool", "api"), made) == {"pool": "api"}
    assert run(lambda request: None, made) == {}
    assert made.time(10) > 0
