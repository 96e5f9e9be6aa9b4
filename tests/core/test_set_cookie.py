"""Inserted cookies in responses: when, and with what.

What shared caches may keep of them is in test_protect_cache.
"""

import pytest

from fastlb._core._testing_followed import carried, carry
from fastlb._core._testing_message import Desk
from fastlb._core._testing_parts import read_token
from fastlb._core.shm import Segment
from tests.core.plans import KEYS, TAIL, Class, Setting, get
from tests.core.test_address import MAPPED

NOW = 1800000000
COOKIE = Class("shop", type="transparent")
NAME = COOKIE.cookie_name
OURS = "delete_on_failure", "hide_cookie", "protect_cache"


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


# ---- beside the application's cookie ----


APP = "PHPSESSID"
K = f"K-{APP}-{COOKIE.id:08x}"
FOLLOWS = tuple(f"follows_{each}" for each in ("path", "domain", "secure", "same_site", "age"))
SET = f"Set-Cookie: {APP}=1"
DELETED = f"Set-Cookie: {APP}=deleted; Max-Age=0"


def beside(*flags: str, **more) -> Class:
    more = {"tail": "; HttpOnly", "flags": (*OURS, *FOLLOWS, *flags)} | more
    return Class("shop", type="cookie", session_cookie=APP, names=[(K, -1)], **more)


class Beside(Exchange):
    """Of a client that may have both cookies."""

    def __init__(self, segment: Segment, cls: Class | None = None, *more: Class) -> None:
        super().__init__(segment, cls or beside(), *more)

    def ours(self, node: str = "10.0.0.2:80", **dates) -> str:
        return self.setting.cookie(node, **dates)

    def both(self, value: str | None = None, app: str = "1") -> None:
        value = self.ours() if value is None else value
        self.request(get(f"Cookie: {APP}={app}; {K}={value}"))

    def lines(self, *fields: str, **more) -> list[str]:
        """Our lines in the answer, without their names; every other line is passed on."""
        answer = self.answer(*fields, **more)
        mine = [line for line in answer if line.startswith(f"Set-Cookie: {K}=")]
        others = [line for line in answer if line not in mine and "Connection:" not in line]
        assert others == [line for line in fields if K not in line]
        return [line.partition("=")[2] for line in mine]

    def line(self, *fields: str, **more) -> str:
        (only,) = self.lines(*fields, **more)
        return only


def attributes(line: str) -> str:
    return line.partition(";")[2].strip()


def beside_token(line: str) -> tuple:
    text = line.split(";")[0].split(".")[0]
    return read_token(KEYS[1], KEYS[2], text.encode())


GONE = "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"


def test_nothing_without_the_applications_cookie(segment: Segment) -> None:
    exchange = Beside(segment)
    assert exchange.lines("A: b") == []
    assert exchange.lines("Set-Cookie: other=1", f"Set-Cookie: {APP.lower()}=1") == []
    exchange.request(get(f"Cookie: {K}={exchange.ours()}"))
    assert exchange.lines("A: b") == []
    assert exchange.desk.class_counts(0)["cookies_set"] == 0


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "500 Oh", "101 Switching"])
def test_the_application_begins_a_session(segment: Segment, status: str) -> None:
    exchange = Beside(segment)
    line = exchange.line(SET, status=status)
    assert beside_token(line) == (node(1), 80, COOKIE.id, 0, 0)
    assert attributes(line) == "Path=/; HttpOnly"
    assert exchange.desk.class_counts(0) == {"cookies_set": 1, "ended": 0, "foreign_cookies": 0}


def test_a_changed_id_keeps_ours_as_it_is(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.both()
    assert exchange.made.outcome == "hit"
    assert exchange.lines(f"Set-Cookie: {APP}=2; Path=/; HttpOnly") == []
    assert exchange.lines("A: b") == []


@pytest.mark.parametrize("value", ["x", "", "{foreign}", "{expired}"])
def test_a_session_whose_cookie_of_ours_is_of_no_use_is_bound_anew(segment, value: str) -> None:
    other = Class("other", type="transparent")
    exchange = Beside(segment, beside(timeout_s=100), other)
    expired = exchange.ours(first_seen=NOW - 999, last_seen=NOW - 999)
    value = value.format(foreign=exchange.setting.cookie("10.0.0.2:80", "other"), expired=expired)
    exchange.both(value)
    assert exchange.made.outcome in ("tampered", "other-class", "expired")
    # The application does not set its cookie again: this is the only chance.
    assert beside_token(exchange.line("A: b"))[:3] == (node(2), 80, COOKIE.id)
    assert len(exchange.lines(f"Set-Cookie: {APP}=2")) == 1


def test_a_lost_one_is_written_again(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.request(get(f"Cookie: {APP}=1"))
    assert len(exchange.lines()) == 1


def test_a_session_whose_node_failed_is_bound_to_the_new_one(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.both()
    exchange.desk.decided(exchange.made.again())
    assert beside_token(exchange.line("A: b"))[0] != node(2)


def test_dates_are_renewed_without_the_application(segment: Segment) -> None:
    exchange = Beside(segment, beside(timeout_s=1600, tail="; Max-Age=1600"))
    exchange.both(exchange.ours(first_seen=NOW - 9000, last_seen=NOW - 500))
    assert beside_token(exchange.line()) == (node(2), 80, COOKIE.id, NOW - 9000, NOW)
    exchange.both(exchange.ours(first_seen=NOW - 9000, last_seen=NOW - 50))
    assert exchange.lines() == []


def test_every_response(segment: Segment) -> None:
    exchange = Beside(segment, beside("every_response"))
    exchange.both()
    assert len(exchange.lines("A: b")) == 1
    exchange.request(get())
    assert exchange.lines("A: b") == []


def test_a_session_that_the_fallback_knew(segment: Segment) -> None:
    exchange = Beside(segment, beside(fallback="by-ip"), Class("by-ip"))
    exchange.request(get(f"Cookie: {APP}=1"))
    assert (exchange.made.outcome, exchange.made.found_class) == ("hit", 1)
    # Ours may just have been dropped from this one request.
    assert exchange.lines("A: b") == []
    # But a session that begins here is bound here.
    assert beside_token(exchange.line(SET))[0] == node(exchange.made.node + 1)


def test_a_class_behind_the_one_that_knew_the_session_writes_nothing(segment: Segment) -> None:
    first = Class("by-ip", fallback="shop")
    exchange = Exchange(segment, first, beside())
    exchange.request(get())
    assert exchange.made.found_class == 0
    assert exchange.answer(SET) == [SET]


# ---- its attributes ----


@pytest.mark.parametrize(("theirs", "ours"), [
    ("", "Path=/; HttpOnly"),
    ("; Path=/", "Path=/; HttpOnly"),
    ("; Path=/shop; HttpOnly", "Path=/shop; HttpOnly"),
    ("; Domain=.example.com", "Path=/; Domain=example.com; HttpOnly"),
    ("; Secure; SameSite=None", "Path=/; Secure; SameSite=None; HttpOnly"),
    ("; samesite=strict", "Path=/; SameSite=Strict; HttpOnly"),
    ("; Max-Age=60", "Path=/; Max-Age=60; HttpOnly"),
    ("; Expires=Fri, 15 Jan 2027 08:01:00 GMT", "Path=/; Max-Age=60; HttpOnly"),
    ("; Path=relative; Domain=no good; SameSite=x; Priority=High", "Path=/; HttpOnly"),
])  # fmt: skip
def test_ours_lives_where_and_as_long_as_theirs(segment, theirs: str, ours: str) -> None:
    assert attributes(Beside(segment).line(SET + theirs)) == ours


def test_what_the_class_says_counts(segment: Segment) -> None:
    tail = "; Path=/; Domain=a.b; Max-Age=9; Secure; SameSite=Lax"
    exchange = Beside(segment, beside(flags=OURS, tail=tail))
    theirs = f"{SET}; Path=/x; Domain=c.d; Max-Age=5; SameSite=None"
    line = exchange.line(theirs)
    assert attributes(line) == tail[2:]
    assert "." not in line.split(";")[0]
    # Nor is it a reason to write ours again.
    exchange.both(line.split(";")[0])
    assert exchange.lines(theirs) == []


def test_secure_by_default_where_there_is_nothing_to_follow(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.setting.protocol = "https"
    exchange.world = exchange.setting.world(segment)
    exchange.desk = Desk(exchange.world)
    exchange.request(get(f"Cookie: {APP}=1"))
    assert attributes(exchange.line()) == "Path=/; Secure; HttpOnly"
    # The application's own choice is followed.
    assert attributes(exchange.line(SET)) == "Path=/; HttpOnly"


FULL = "; Path=/shop; Domain=.example.com; Secure; SameSite=None; Max-Age=600"
FULL_OURS = "Path=/shop; Domain=example.com; Max-Age=600; Secure; SameSite=None; HttpOnly"


def test_attributes_are_kept_when_ours_is_written_again(segment: Segment) -> None:
    """Else there would be two, and the one with the longer path, of the dead node, would count."""
    exchange = Beside(segment)
    value = exchange.line(SET + FULL).split(";")[0]
    exchange.both(value)
    assert exchange.lines("A: b") == []
    exchange.desk.decided(exchange.made.again())
    moved = exchange.line("A: b")
    assert attributes(moved) == FULL_OURS
    assert beside_token(moved)[0] != node(1)
    assert carried(KEYS[1], moved.split(";")[0].encode())[1][0] == b"/shop"


def test_attributes_that_a_client_made_up_are_not_taken(segment: Segment) -> None:
    exchange = Beside(segment)
    forged = carry(bytes(16), exchange.ours().encode(), b"x=1; Path=/evil").decode()
    exchange.both(forged)
    assert exchange.made.outcome == "tampered"
    assert attributes(exchange.line()) == "Path=/; HttpOnly"


def test_other_attributes_of_theirs_are_followed_later_too(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.both()
    assert attributes(exchange.line(f"{SET}; Path=/shop")) == "Path=/shop; HttpOnly"
    exchange.both(exchange.line(f"{SET}; Path=/shop").split(";")[0])
    assert exchange.lines(f"Set-Cookie: {APP}=2; Path=/shop") == []


def test_an_age_of_theirs_is_followed_each_time(segment: Segment) -> None:
    exchange = Beside(segment)
    for _ in range(2):
        line = exchange.line(f"{SET}; Max-Age=60")
        assert attributes(line) == "Path=/; Max-Age=60; HttpOnly"
        exchange.both(line.split(";")[0])
    assert exchange.lines("A: b") == []


# ---- the application ends the session ----


@pytest.mark.parametrize("line", [
    DELETED, f"Set-Cookie: {APP}=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/",
    f"Set-Cookie: {APP}=x; max-age=-5", f"Set-Cookie: {APP}=; Path=/", f'Set-Cookie: {APP}=""',
])  # fmt: skip
def test_ours_ends_with_theirs(segment: Segment, line: str) -> None:
    exchange = Beside(segment, beside(fallback="by-ip"), Class("by-ip"))
    exchange.both("x" if "max-age" in line else None)
    exchange.world.put(1, "192.0.2.1", f"10.0.0.{exchange.made.node + 1}", 80)
    assert attributes(exchange.line(line)) == f"Path=/; HttpOnly; {GONE}"
    assert exchange.desk.class_counts(0) == {"cookies_set": 0, "ended": 1, "foreign_cookies": 0}
    assert exchange.world.maps(1) == {}


def test_it_ends_where_it_was_written(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.both(exchange.line(SET + FULL).split(";")[0])
    # A sloppy logout: the browser keeps theirs, but ours is what we know.
    assert attributes(exchange.line(DELETED)) == \
        f"Path=/shop; Domain=example.com; Secure; SameSite=None; HttpOnly; {GONE}"  # fmt: skip


def test_else_where_theirs_ends(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.request(get(f"Cookie: {APP}=1", target="/shop/cart?a"))
    line = exchange.line(f"{DELETED}; Path=/shop")
    assert attributes(line) == f"Path=/shop; HttpOnly; {GONE}"


@pytest.mark.parametrize("target", ["/shop", "/shop?/legacy", "http://www.example.com/shop",
                                    "/legacyshop", "/"])  # fmt: skip
def test_the_end_of_theirs_at_another_path_is_not_that_of_this_session(segment, target) -> None:
    exchange = Beside(segment, beside(fallback="by-ip"), Class("by-ip"))
    exchange.request(get(f"Cookie: {APP}=1; {K}={exchange.ours()}", target=target))
    exchange.world.put(1, "192.0.2.1", "10.0.0.2", 80)
    assert exchange.lines(f"{DELETED}; Path=/legacy") == []
    assert exchange.lines(f"Set-Cookie: {APP}=; Path=/legacy") == []
    assert exchange.desk.class_counts(0)["ended"] == 0
    assert len(exchange.world.maps(1)) == 1
    assert GONE in exchange.line(f"{DELETED}; Path=/")
    assert exchange.world.maps(1) == {}


def test_a_session_that_is_bound_anew_gets_ours_all_the_same(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.request(get(f"Cookie: {APP}=1", target="/shop"))
    assert beside_token(exchange.line(f"{DELETED}; Path=/legacy"))[0] == node(
        exchange.made.node + 1
    )


def test_what_never_began_does_not_end(segment: Segment) -> None:
    exchange = Beside(segment, beside(fallback="by-ip"), Class("by-ip"))
    maps = exchange.world.maps(1)
    assert exchange.lines(DELETED) == []
    assert exchange.desk.class_counts(0)["ended"] == 0
    assert exchange.world.maps(1) == maps != {}


@pytest.mark.parametrize(("fields", "said"), [
    ([DELETED, SET], "set"),
    ([SET, DELETED], "ended"),
    ([SET, f"{DELETED}; Path=/old"], "set"),
    ([f"{SET}; Path=/a", f"{DELETED}; Path=/a"], "ended"),
    ([f"{SET}; Path=/b", f"{DELETED}; Path=/b"], "absent"),
    ([f"{DELETED}; Path=/old"], "absent"),
    ([DELETED, f"{DELETED}; Path=/old"], "ended"),
    ([f"{SET}; Domain=a.b", DELETED], "set"),
    ([f"{DELETED}; Path=/old", f"{DELETED}; Path=/"], "ended"),
    ([DELETED, "Set-Cookie: x=1", SET, "Set-Cookie: y=; Max-Age=0"], "set"),
    (["Set-Cookie: =1", "Set-Cookie: nonsense", SET], "set"),
    ([SET] * 40, "set"),
])  # fmt: skip
def test_the_last_of_several_counts_and_all_pass(segment, fields: list[str], said: str) -> None:
    exchange = Beside(segment)
    exchange.request(get(f"Cookie: {APP}=1", target="/a"))
    assert (GONE in exchange.line(*fields)) == (said == "ended")


# ---- the node's own cookie of our name ----


OURS_FOREIGN = f"Set-Cookie: {K}=anything; Path=/"
OURS_PAST = f"Set-Cookie: {K}=; Max-Age=0"


def test_one_of_our_name_is_taken_out_here_too(segment: Segment) -> None:
    exchange = Beside(segment)
    exchange.both()
    assert exchange.lines(OURS_FOREIGN, "A: b") == []
    assert exchange.desk.class_counts(0)["foreign_cookies"] == 1
    assert "anything" not in exchange.line(OURS_FOREIGN, f"{SET}; Path=/x")


def test_the_application_may_end_it_by_our_cookie(segment: Segment) -> None:
    exchange = Beside(segment, beside(fallback="by-ip"), Class("by-ip"))
    for fields in ([OURS_PAST], [OURS_PAST, SET], [OURS_PAST, DELETED]):
        exchange.both(exchange.ours("10.0.0.1:80"))
        assert len(exchange.world.maps(1)) == 1
        assert exchange.answer(*fields) == fields
        assert exchange.world.maps(1) == {}
    assert exchange.desk.class_counts(0) == {"cookies_set": 0, "ended": 3, "foreign_cookies": 0}


def test_preserved_beside(segment: Segment) -> None:
    exchange = Beside(segment, beside("preserve"))
    assert exchange.answer(OURS_FOREIGN, SET) == [OURS_FOREIGN, SET]


# ---- caches, and answers of our own ----


PRIVATE = "Cache-Control: private"


def test_what_shared_caches_would_keep_becomes_private_beside(segment: Segment) -> None:
    exchange = Beside(segment)
    assert PRIVATE in exchange.answer(SET, "Cache-Control: public")
    assert PRIVATE not in exchange.answer("Set-Cookie: x=1", "Cache-Control: public")
    exchange.both()
    assert PRIVATE in exchange.answer(DELETED, "Cache-Control: public")
    assert PRIVATE not in exchange.answer("Cache-Control: public")


@pytest.mark.parametrize("mode", ["close", "redirect"])
def test_an_answer_of_our_own_ends_it_where_it_was_written(segment: Segment, mode: str) -> None:
    exchange = Beside(segment, beside(failure_mode=mode))
    exchange.both(exchange.line(f"{SET}; Path=/shop; Secure").split(";")[0])
    exchange.desk.decided(exchange.made.again())
    exchange.desk.set(status=302 if mode == "redirect" else 503)
    lines = exchange.desk.reply().decode().split("\r\n")
    (line,) = [one for one in lines if one.startswith("Set-Cookie:")]
    assert line == f"Set-Cookie: {K}=; Path=/shop; Secure; HttpOnly; {GONE}"


def test_sixteen_of_them_have_room(segment: Segment) -> None:
    tail = "; HttpOnly; X=" + "x" * 820
    chain = [Class(f"c{n}", type="cookie", session_cookie=APP, tail=tail,
                   names=[(f"K-{APP}-{n:08x}", -1)], flags=(*OURS, *FOLLOWS),
                   fallback=f"c{n + 1}" if n < 15 else "") for n in range(16)]  # fmt: skip
    exchange = Exchange(segment, *chain)
    theirs = f"{SET}; Path=/{'p' * 99}; Domain={'d' * 80}; Max-Age=999999999; Secure; Partitioned"
    lines = exchange.answer(f"{theirs}; SameSite=Strict")
    assert len(lines) == 17
