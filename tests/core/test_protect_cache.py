"""What shared caches may keep of a response that gets a cookie of ours."""

import pytest

from fastlb._core.shm import Segment
from tests.core.plans import Class, get
from tests.core.test_set_cookie import NAME, Exchange

POST = 3
PRIVATE = "Cache-Control: private"
VALIDATORS = ["ETag: \"1\"", "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT"]  # fmt: skip

SAFE = ["private", "no-store", "no-cache", "max-age=0", "s-maxage=0", "PRIVATE", "public, no-store",
        "max-age=60, private", 'no-cache="set-cookie"', 'no-cache="a, Set-Cookie"', "Max-Age=0",
        "max-age=60 ,\tno-cache", 'foo="a,b", private', 'private="set-cookie", max-age=60',
        "s-maxage=0, max-age=60", "no-store, s-maxage=60"]  # fmt: skip
FRESH = ["max-age=60", "public", "s-maxage=60", "public, max-age=60", "MAX-AGE=1", "max-age=00",
         'private="x-other", max-age=9', 'no-cache="x-other", public', 'foo="private", max-age=3',
         "privateer, max-age=60", "max-age=0, s-maxage=60", "s-maxage=60, max-age=0"]  # fmt: skip


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


@pytest.mark.parametrize("value", SAFE)
def test_what_shared_caches_keep_away_from_stays(segment: Segment, value: str) -> None:
    lines = Exchange(segment).answer(f"Cache-Control: {value}", VALIDATORS[0])
    assert f"Cache-Control: {value}" in lines
    assert PRIVATE not in lines or value == "private"


@pytest.mark.parametrize("value", FRESH)
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "500 Oh"])
def test_what_shared_caches_would_keep_becomes_private(
    segment: Segment, value: str, status: str
) -> None:
    lines = Exchange(segment).answer(f"Cache-Control: {value}", "A: b", status=status)
    # Replaced, not appended: a client that sees both may take the wrong one.
    assert [line for line in lines if line.startswith("Cache-Control")] == [PRIVATE]
    assert "A: b" in lines


def test_several_lines_are_one_list(segment: Segment) -> None:
    lines = Exchange(segment).answer("Cache-Control: max-age=60", "cache-control: no-store")
    assert PRIVATE not in lines
    lines = Exchange(segment).answer("Cache-Control: max-age=60", "cache-control: public")
    assert [line for line in lines if "ache-" in line] == [PRIVATE]


@pytest.mark.parametrize("status", ["200 OK", "404 No", "301 Moved"])
@pytest.mark.parametrize("validator", VALIDATORS)
def test_validators_make_it_storable(segment: Segment, status: str, validator: str) -> None:
    assert PRIVATE in Exchange(segment).answer(validator, status=status)


@pytest.mark.parametrize("status", ["302 Found", "500 Oh", "403 No"])
@pytest.mark.parametrize("validator", VALIDATORS)
def test_other_statuses_need_an_explicit_age(segment: Segment, status: str, validator: str) -> None:
    assert PRIVATE not in Exchange(segment).answer(validator, status=status)
    assert PRIVATE in Exchange(segment).answer(
        "Expires: Thu, 01 Jan 2099 00:00:00 GMT", status=status
    )


def test_a_plain_answer_stays(segment: Segment) -> None:
    assert len(Exchange(segment).answer("A: b")) == 2


def test_without_a_cookie_of_ours_nothing_is_protected(segment: Segment) -> None:
    exchange = Exchange(segment)
    exchange.request(get(f"Cookie: {NAME}={exchange.setting.cookie('10.0.0.2:80')}"))
    assert exchange.answer("Cache-Control: public") == ["Cache-Control: public"]


def test_protection_can_be_switched_off(segment: Segment) -> None:
    exchange = Exchange(segment, Class("shop", type="transparent", flags=("hide_cookie",)))
    assert "Cache-Control: public" in exchange.answer("Cache-Control: public")


def test_only_get_and_head_are_stored(segment: Segment) -> None:
    exchange = Exchange(segment)
    exchange.desk.method(POST)
    assert "Cache-Control: max-age=60" in exchange.answer("Cache-Control: max-age=60")
