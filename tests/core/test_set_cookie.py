"""Inserted cookies in responses: when, with what, and what shared caches may keep."""

import pytest

from fastlb._core._testing_message import Desk
from fastlb._core._testing_parts import read_token
from fastlb._core.shm import Segment
from tests.core.plans import KEYS, TAIL, Class, Setting, get
from tests.core.test_address import MAPPED

NOW = 1800000000
COOKIE = Class("shop", type="transparent")
NAME = COOKIE.cookie_name
OURS = "delete_on_failure", "hide_cookie", "protect_cache"
POST = 3


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


class Exchange:
    """A request of a client without a session, and the node's answer to it."""

    def __init__(self, segment: Segment, *classes: Class, request: bytes | None = None) -> None:
        self.setting = Setting(classes=list(classes) or [COOKIE])
        self.world = self.setting.world(segment)
        self.desk = Desk(self.world)
        self.request(request or get())

    def request(self, head: bytes) -> None:
        self.desk.load(head)
        self.made = self.world.decide("192.0.2.1", head)
        self.desk.decided(self.made)

    def answer(self, *fields: str, status: str = "200 OK") -> list[str]:
        head = "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()
        return self.desk.response(head).decode().split("\r\n")[1:-2]

    def cookie(self, *fields: str, **more) -> str | None:
        """Our cookie's value in the answer."""
        found = [line for line in self.answer(*fields, **more)
                 if line.startswith(f"Set-Cookie: {NAME}=")]  # fmt: skip
        assert len(found) <= 1
        return found[0].split("=", 1)[1] if found else None


def token(value: str) -> tuple:
    return read_token(KEYS[1], KEYS[2], value.split(";")[0].encode())


def node(number: int) -> bytes:
    return MAPPED + bytes([10, 0, 0, number])


# ---- when it is written ----


@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "404 No", "500 Oh", "302 Found",
                                    "204 None", "101 Switching"])  # fmt: skip
def test_a_new_session_gets_one_with_any_status(segment: Segment, status: str) -> None:
    value = Exchange(segment).cookie(status=status)
    assert value is not None
    assert value.endswith(TAIL)
    assert token(value) == (node(1), 80, COOKIE.id, 0, 0)


def test_one_that_came_is_not_written_again(segment: Segment) -> None:
    exchange = Exchange(segment)
    value = exchange.cookie()
    exchange.request(get(f"Cookie: {NAME}={value.split(';')[0]}"))
    assert exchange.made.outcome == "hit"
    assert exchange.answer("A: b") == ["A: b"]


def test_a_request_without_class_gets_none(segment: Segment) -> None:
    exchange = Exchange(segment, Class("by-ip"))
    assert exchange.answer(f"Set-Cookie: {NAME}=x", "A: b") == [f"Set-Cookie: {NAME}=x", "A: b"]


def test_dates(segment: Segment) -> None:
    cls = Class("shop", type="transparent", timeout_s=1600, tail="; Path=/")
    exchange = Exchange(segment, cls)
    assert token(exchange.cookie())[3:] == (NOW, NOW)
    old = exchange.setting.cookie("10.0.0.2:80", first_seen=NOW - 9000, last_seen=NOW - 500)
    exchange.request(get(f"Cookie: {NAME}={old}"))
    # The first date stays, the last one is now, the node is the session's.
    assert token(exchange.cookie()) == (node(2), 80, cls.id, NOW - 9000, NOW)


def test_dates_that_no_limit_asks_for_are_taken_out(segment: Segment) -> None:
    exchange = Exchange(segment)
    dated = exchange.setting.cookie("10.0.0.2:80", first_seen=NOW, last_seen=NOW)
    exchange.request(get(f"Cookie: {NAME}={dated}"))
    assert token(exchange.cookie()) == (node(2), 80, COOKIE.id, 0, 0)


def test_after_retries_there_is_one_of_the_node_that_answered(segment: Segment) -> None:
    exchange = Exchange(segment)
    exchange.desk.decided(exchange.made.again())
    assert token(exchange.cookie())[0] == node(3)


def test_it_is_counted(segment: Segment) -> None:
    exchange = Exchange(segment)
    exchange.answer()
    assert exchange.desk.class_counts(0) == {"cookies_set": 1, "ended": 0, "foreign_cookies": 0}


# ---- the node's own cookie of our name ----


FOREIGN = f"Set-Cookie: {NAME}=anything; Path=/"
PAST = [
    f"Set-Cookie: {NAME}=; Max-Age=0",
    f"Set-Cookie: {NAME}=x; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    f"set-cookie:{NAME}=x; max-age=-1",
]


def test_a_foreign_one_is_taken_out_and_counted(segment: Segment) -> None:
    exchange = Exchange(segment)
    lines = exchange.answer("Set-Cookie: a=b", FOREIGN, "Set-Cookie: c=d")
    assert FOREIGN not in lines
    assert [line for line in lines if NAME not in line] == ["Set-Cookie: a=b", "Set-Cookie: c=d"]
    assert len(lines) == 3
    assert exchange.desk.class_counts(0)["foreign_cookies"] == 1


def test_a_foreign_one_is_taken_out_of_an_established_sessions_answer_too(segment: Segment) -> None:
    exchange = Exchange(segment)
    exchange.request(get(f"Cookie: {NAME}={exchange.setting.cookie('10.0.0.2:80')}"))
    assert exchange.answer(FOREIGN, FOREIGN) == []
    assert exchange.desk.class_counts(0)["foreign_cookies"] == 2


@pytest.mark.parametrize("other", [NAME.lower(), NAME + "x", NAME[:-1], "K-" + NAME])
def test_other_names_pass(segment: Segment, other: str) -> None:
    line = f"Set-Cookie: {other}=x"
    assert line in Exchange(segment).answer(line)


def test_preserved(segment: Segment) -> None:
    exchange = Exchange(segment, Class("shop", type="transparent", flags=(*OURS, "preserve")))
    assert exchange.answer(FOREIGN) == [FOREIGN]
    assert exchange.desk.class_counts(0) == {"cookies_set": 0, "ended": 0, "foreign_cookies": 0}


@pytest.mark.parametrize("flags", [OURS, (*OURS, "preserve"), (*OURS, "every_response")])
@pytest.mark.parametrize("line", PAST)
def test_the_application_ends_the_session(segment: Segment, line: str, flags: tuple) -> None:
    exchange = Exchange(
        segment, Class("shop", type="transparent", flags=flags, fallback="by-ip"), Class("by-ip")
    )
    assert len(exchange.world.maps(1)) == 1
    assert exchange.answer(line, "A: b") == [line, "A: b"]
    assert exchange.desk.class_counts(0) == {"cookies_set": 0, "ended": 1, "foreign_cookies": 0}
    # The fallback must not bring it back.
    assert exchange.world.maps(1) == {}


def test_ended_and_foreign_in_one_answer(segment: Segment) -> None:
    exchange = Exchange(segment)
    assert exchange.answer(FOREIGN, PAST[0], FOREIGN) == [PAST[0]]


def test_a_cookie_that_lasts_does_not_end_it(segment: Segment) -> None:
    lasts = f"Set-Cookie: {NAME}=x; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    exchange = Exchange(segment)
    lines = exchange.answer(lasts)
    assert lasts not in lines
    assert len(lines) == 1


# ---- shared caches ----


PRIVATE = "Cache-Control: private"
VALIDATORS = ["ETag: \"1\"", "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT"]  # fmt: skip

SAFE = ["private", "no-store", "no-cache", "max-age=0", "s-maxage=0", "PRIVATE", "public, no-store",
        "max-age=60, private", 'no-cache="set-cookie"', 'no-cache="a, Set-Cookie"', "Max-Age=0",
        "max-age=60 ,\tno-cache", 'foo="a,b", private', 'private="set-cookie", max-age=60',
        "s-maxage=0, max-age=60", "no-store, s-maxage=60"]  # fmt: skip
FRESH = ["max-age=60", "public", "s-maxage=60", "public, max-age=60", "MAX-AGE=1", "max-age=00",
         'private="x-other", max-age=9', 'no-cache="x-other", public', 'foo="private", max-age=3',
         "privateer, max-age=60", "max-age=0, s-maxage=60", "s-maxage=60, max-age=0"]  # fmt: skip


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
