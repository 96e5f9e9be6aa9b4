"""Cookies: reading them, taking them out, Set-Cookie and its dates."""

import datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_cookie as core

PAIRS = [
    # name, value of Cookie, [(name, value, as it stands)]
    ("one pair", b"a=b", [(b"a", b"b", b"a=b")]),
    ("two pairs", b"a=b; c=d", [(b"a", b"b", b"a=b"), (b"c", b"d", b"c=d")]),
    ("no space", b"a=b;c=d", [(b"a", b"b", b"a=b"), (b"c", b"d", b"c=d")]),
    ("much space", b" \ta = b\t; c\t=\td ", [(b"a", b"b", b"a = b"), (b"c", b"d", b"c\t=\td")]),
    ("empty value", b"a=; c=d", [(b"a", b"", b"a="), (b"c", b"d", b"c=d")]),
    ("empty name", b"=b", [(b"", b"b", b"=b")]),
    ("no equals", b"ab; c=d", [(b"", b"ab", b"ab"), (b"c", b"d", b"c=d")]),
    ("more equals", b"a=b=c==", [(b"a", b"b=c==", b"a=b=c==")]),
    ("empty pieces", b";; a=b ; ;c=d;", [(b"a", b"b", b"a=b"), (b"c", b"d", b"c=d")]),
    ("empty text", b"", []),
    ("only separators", b" ; ;, ", []),
    ("quoted value", b'a="b c"', [(b"a", b"b c", b'a="b c"')]),
    ("quotes empty", b'a=""', [(b"a", b"", b'a=""')]),
    ("one quote", b'a="; b=c', [(b"a", b'"', b'a="'), (b"b", b"c", b"b=c")]),
    ("quote inside", b'a=b"c"d', [(b"a", b'b"c"d', b'a=b"c"d')]),
    (
        "semicolon quoted",
        b'a="x; b=c; d="',
        [(b"a", b'"x', b'a="x'), (b"b", b"c", b"b=c"), (b"d", b'"', b'd="')],
    ),
    ("comma separates", b"a=b, c=d", [(b"a", b"b", b"a=b"), (b"c", b"d", b"c=d")]),
    ("comma bare", b"a=b,c=d", [(b"a", b"b", b"a=b"), (b"c", b"d", b"c=d")]),
    ("comma inside", b"a=1,2,3; c=d", [(b"a", b"1,2,3", b"a=1,2,3"), (b"c", b"d", b"c=d")]),
    ("comma last", b"a=b,", [(b"a", b"b,", b"a=b,")]),
    ("comma quoted", b'a="1, b=2"; c=d', [(b"a", b"1, b=2", b'a="1, b=2"'), (b"c", b"d", b"c=d")]),
    ("comma after", b'a="1", c="2"', [(b"a", b"1", b'a="1"'), (b"c", b"2", b'c="2"')]),
    ("comma token", b"a=b, (c)=d", [(b"a", b"b, (c)=d", b"a=b, (c)=d")]),
    (
        "old version",
        b'$Version="1"; a="b"; $Path="/"; $Domain="x"; c=d',
        [(b"a", b"b", b'a="b"; $Path="/"; $Domain="x"'), (b"c", b"d", b"c=d")],
    ),
    (
        "old commas",
        b'$Version=1, a=b, $Port="80", c=d',
        [(b"a", b"b", b'a=b, $Port="80"'), (b"c", b"d", b"c=d")],
    ),
    ("dollar name", b"a=b; $c=d", [(b"a", b"b", b"a=b"), (b"$c", b"d", b"$c=d")]),
    ("dollar first", b"$Path=/; a=b", [(b"a", b"b", b"a=b")]),
    ("eight bit", b"a=\xe4\xff; b=c", [(b"a", b"\xe4\xff", b"a=\xe4\xff"), (b"b", b"c", b"b=c")]),
]


@pytest.mark.parametrize(
    ("value", "wanted"), [c[1:] for c in PAIRS], ids=[c[0].replace(" ", "-") for c in PAIRS]
)
def test_pairs(value: bytes, wanted: list[tuple[bytes, bytes, bytes]]) -> None:
    assert core.pairs(value) == wanted


def request(*lines: bytes) -> bytes:
    fields = b"".join(b"Cookie: %s\r\n" % line for line in lines)
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"X: y\r\n\r\n"


def test_find() -> None:
    data = request(b"a=1; SRV=2", b"srv=3", b'SRV = "4"; SRVX=5; XSRV=6; SRV')
    assert core.find(data, b"SRV") == ((1, b"2", False), 2)
    assert core.find(data, b"SRV", 1) == ((3, b"4", True), 2)
    assert core.find(data, b"SRV", 2) == (None, 2)
    assert core.find(data, b"srv") == ((2, b"3", False), 1)
    assert core.find(data, b"missing") == (None, 0)
    assert core.find(request(), b"SRV") == (None, 0)


CUTS = [
    # name, Cookie lines, names to take out, how many, Cookie lines left
    ("nothing there", [b"a=1; b=2"], [b"c"], 0, [b"a=1; b=2"]),
    ("the only", [b"x=1"], [b"x"], 1, []),
    ("the first", [b"x=1; a=2"], [b"x"], 1, [b"a=2"]),
    ("the last", [b"a=2; x=1"], [b"x"], 1, [b"a=2"]),
    ("the middle", [b"a=2; x=1; b=3"], [b"x"], 1, [b"a=2; b=3"]),
    ("middle tight", [b"a=2;x=1;  b=3"], [b"x"], 1, [b"a=2;  b=3"]),
    ("two together", [b"a=2; x=1; y=1; b=3"], [b"x", b"y"], 2, [b"a=2; b=3"]),
    ("first two", [b"x=1; y=1; b=3"], [b"x", b"y"], 2, [b"b=3"]),
    ("last two", [b"b=3; x=1; y=1"], [b"x", b"y"], 2, [b"b=3"]),
    ("both ends", [b"x=1; b=3; x=2"], [b"x"], 2, [b"b=3"]),
    ("every other", [b"x=1; a=1; x=2; b=2; x=3; c=3"], [b"x"], 3, [b"a=1; b=2; c=3"]),
    ("all of", [b"x=1; y=2"], [b"x", b"y"], 2, []),
    ("several lines", [b"x=1", b"a=2; x=3", b"b=4"], [b"x"], 2, [b"a=2", b"b=4"]),
    ("empty pieces", [b"a=2; ; x=1; ; b=3"], [b"x"], 1, [b"a=2; b=3"]),
    ("leading pieces", [b"; ; x=1; b=3"], [b"x"], 1, [b"b=3"]),
    ("trailing semicolon", [b"a=2; x=1;"], [b"x"], 1, [b"a=2"]),
    ("only semicolons", [b";x=1;;"], [b"x"], 1, []),
    ("odd spaces", [b"a = 2 ; x = 1 ; b\t=\t3"], [b"x"], 1, [b"a = 2; b\t=\t3"]),
    ("with quotes", [b'a="2"; x="1"; b="3"'], [b"x"], 1, [b'a="2"; b="3"']),
    ("with commas", [b"a=2, x=1, b=3"], [b"x"], 1, [b"a=2, b=3"]),
    (
        "old attributes",
        [b'$Version=1; x=1; $Path="/"; b=3; $Path="/b"'],
        [b"x"],
        1,
        [b'$Version=1; b=3; $Path="/b"'],
    ),
    ("old last", [b"$Version=1; a=1; x=1; $Path=/"], [b"x"], 1, [b"$Version=1; a=1"]),
    ("old only", [b"$Version=1; x=1; $Path=/"], [b"x"], 1, []),
    ("bare pieces", [b"bare; x=1; more"], [b"x"], 1, [b"bare; more"]),
    ("other case", [b"X=1; x=2"], [b"x"], 1, [b"X=1"]),
    ("same twice", [b"a=1; a=1; x=1"], [b"x"], 1, [b"a=1; a=1"]),
]


@pytest.mark.parametrize(
    ("lines", "names", "count", "left"),
    [c[1:] for c in CUTS],
    ids=[c[0].replace(" ", "-") for c in CUTS],
)
def test_cut(lines: list[bytes], names: list[bytes], count: int, left: list[bytes]) -> None:
    assert core.without(request(*lines), names) == (count, request(*left))


def test_more_cookies_than_cuts() -> None:
    line = b"; ".join(b"x=%d; a%d=1" % (i, i) for i in range(70))
    assert core.without(request(line), [b"x"]) == "full"
    assert core.without(request(b"x=1; " * 500 + b"a=b"), [b"x"]) == (500, request(b"a=b"))


plain_names = st.sampled_from([b"a", b"b", b"x", b"y", b"xy"])
plain_values = st.sampled_from([b"", b"1", b'"q"', b"x=1", b"v w", b"1,2", b"\xe4"])
cookie_lines = st.lists(
    st.lists(st.tuples(plain_names, plain_values), min_size=1, max_size=6), max_size=3
)


@given(cookie_lines, st.lists(plain_names, min_size=1, max_size=2, unique=True))
@settings(max_examples=300)
def test_what_stays_is_untouched(
    lines: list[list[tuple[bytes, bytes]]], names: list[bytes]
) -> None:
    given_lines = [b"; ".join(b"%s=%s" % pair for pair in line) for line in lines]
    left = [[b"%s=%s" % pair for pair in line if pair[0] not in names] for line in lines]
    wanted = [b"; ".join(line) for line in left if line]
    taken = sum(pair[0] in names for line in lines for pair in line)
    assert core.without(request(*given_lines), names) == (taken, request(*wanted))


@given(
    st.lists(
        st.sampled_from([b"a", b"x", b"=", b";", b" ", b",", b'"', b"$Path", b"$Version", b"\t"]),
        max_size=30,
    ).map(b"".join)
)
@example(b"a;x=;,a")  # the comma that was left between the two made one of them
@settings(max_examples=300)
def test_any_text(text: bytes) -> None:
    text = text.strip(b" \t")
    before = core.pairs(text)
    assert core.find(request(text), b"x")[1] == sum(name == b"x" for name, _, _ in before)
    count, after = core.without(request(text), [b"x"])
    assert count == sum(name == b"x" for name, _, _ in before)
    left = after.partition(b"Cookie: ")[2].partition(b"\r\n")[0]
    stayed = [pair for pair in before if pair[0] != b"x"]
    assert core.pairs(left) == stayed
    if not stayed and count:
        assert b"Cookie" not in after
    if count == 0:
        assert after == request(text)


# Set-Cookie


def parsed(value: bytes, *keys: str) -> tuple[object, ...]:
    cookie = core.set_cookie(value)
    return tuple(cookie[key] for key in keys)


def test_set_cookie_in_full() -> None:
    cookie = core.set_cookie(
        b"id=a3f; Domain=.example.com; PATH=/x; Max-Age=60; Expires=Wed, 09 Jun 2021 10:18:14 GMT; "
        b"Secure; httponly; SameSite=Lax; Partitioned; Unknown=1"
    )
    assert cookie["name"] == b"id"
    assert cookie["value"] == b"a3f"
    assert (cookie["domain"], cookie["path"]) == (b".example.com", b"/x")
    assert (cookie["max_age_s"], cookie["expires_s"]) == (60, 1623233894)
    assert cookie["same_site"] == "lax"
    assert cookie["flags"] == {"secure", "http-only", "partitioned", "max-age", "expires"}
    assert cookie["attributes"].startswith(b"; Domain=")


SET_COOKIES = [
    # name, text, what to look at, value
    ("plain one", b"a=b", ("name", "value", "attributes"), (b"a", b"b", b"")),
    ("with spaces", b" a = b ; Path = /x ", ("name", "value", "path"), (b"a", b"b", b"/x")),
    ("quoted value", b'a="b c"; Path=/', ("value", "flags"), (b"b c", {"quoted"})),
    ("empty value", b"a=; Path=/", ("value", "path"), (b"", b"/")),
    ("comma value", b"a=1,2; Path=/", ("value",), (b"1,2",)),
    ("comma pair", b"a=1, b=2; Path=/", ("value", "path"), (b"1", b"/")),
    ("last path", b"a=b; Path=/x; Path=/y", ("path",), (b"/y",)),
    ("empty domain", b"a=b; Domain=x; Domain=", ("domain",), (b"x",)),
    ("age junk", b"a=b; Max-Age=1x", ("flags",), (set(),)),
    ("age negative", b"a=b; Max-Age=-1", ("max_age_s",), (-1,)),
    ("age huge", b"a=b; Max-Age=" + b"9" * 60, ("max_age_s",), (1 << 40,)),
    ("age sign", b"a=b; Max-Age=-", ("flags",), (set(),)),
    ("date junk", b"a=b; Expires=never", ("flags",), (set(),)),
    ("site strict", b"a=b; SameSite=STRICT", ("same_site",), ("strict",)),
    ("site none", b"a=b; samesite=None", ("same_site",), ("none",)),
    ("site other", b"a=b; SameSite=x", ("same_site",), ("unknown",)),
    ("site absent", b"a=b", ("same_site",), ("absent",)),
    ("flag valued", b"a=b; Secure=no; HttpOnly=", ("flags",), ({"secure", "http-only"},)),
    ("empty attributes", b"a=b;;; ;Secure;", ("flags",), ({"secure"},)),
    ("value equals", b"a=b==; Path=/", ("value",), (b"b==",)),
]


@pytest.mark.parametrize(
    ("text", "keys", "wanted"),
    [c[1:] for c in SET_COOKIES],
    ids=[c[0].replace(" ", "-") for c in SET_COOKIES],
)
def test_set_cookie(text: bytes, keys: tuple[str, ...], wanted: tuple[object, ...]) -> None:
    assert parsed(text, *keys) == wanted


@pytest.mark.parametrize("text", [b"", b"a", b"=b", b" =b; Path=/", b"; a=b", b"a; b=c"])
def test_set_cookie_ignored(text: bytes) -> None:
    assert core.set_cookie(text) is None


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        (b"a=b", False),
        (b"a=; Max-Age=0", True),
        (b"a=; Max-Age=-5", True),
        (b"a=; Max-Age=5", False),
        (b"a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        (b"a=; Expires=Thu, 01 Jan 2037 00:00:00 GMT", False),
        (b"a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5", False),
        (b"a=; Max-Age=0; Expires=Thu, 01 Jan 2037 00:00:00 GMT", True),
        (b"a=; Max-Age=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
    ],
)
def test_expired(text: bytes, gone: bool) -> None:
    assert core.expired(text, 1_700_000_000) is gone


DATES = [
    ("rfc form", b"Wed, 09 Jun 2021 10:18:14 GMT", 1623233894),
    ("netscape form", b"Wed, 09-Jun-2021 10:18:14 GMT", 1623233894),
    ("rfc850 form", b"Wednesday, 09-Jun-21 10:18:14 GMT", 1623233894),
    ("asctime form", b"Wed Jun  9 10:18:14 2021", 1623233894),
    ("any order", b"10:18:14 2021 Jun 9", 1623233894),
    ("long month", b"9 June 2021 10:18:14", 1623233894),
    ("short time", b"9 Jun 2021 1:8:4", 1623200884),
    ("century old", b"1 Jan 70 00:00:00", 0),
    ("century new", b"1 Jan 69 00:00:00", 3124224000),
    ("before epoch", b"31 Dec 1969 23:59:59", -1),
    ("first year", b"1 Jan 1601 00:00:00", -11644473600),
    ("leap day", b"29 Feb 2024 00:00:00", 1709164800),
    ("after digits", b"9th Jun 2021 10:18:14GMT", 1623233894),
    ("no leap", b"29 Feb 2023 00:00:00", None),
    ("no leap1900", b"29 Feb 1900 00:00:00", None),
    ("day many", b"31 Apr 2024 00:00:00", None),
    ("day none", b"0 Apr 2024 00:00:00", None),
    ("hour many", b"1 Apr 2024 24:00:00", None),
    ("minute many", b"1 Apr 2024 00:60:00", None),
    ("second many", b"1 Apr 2024 00:00:60", None),
    ("year low", b"1 Jan 1600 00:00:00", None),
    ("no time", b"9 Jun 2021", None),
    ("no year", b"9 Jun 10:18:14", None),
    ("no month", b"9 2021 10:18:14", None),
    ("empty text", b"", None),
    ("time digits", b"9 Jun 2021 100:18:14", None),
]


@pytest.mark.parametrize(
    ("text", "wanted"), [c[1:] for c in DATES], ids=[c[0].replace(" ", "-") for c in DATES]
)
def test_date(text: bytes, wanted: int | None) -> None:
    assert core.date(text) == wanted


@given(
    st.datetimes(
        datetime.datetime(1601, 1, 1),
        datetime.datetime(9999, 12, 31),
        timezones=st.just(datetime.UTC),
    )
)
@settings(max_examples=200)
def test_every_date(moment: datetime.datetime) -> None:
    moment = moment.replace(microsecond=0)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    seconds = (moment - epoch) // datetime.timedelta(seconds=1)
    assert core.date(format_datetime(moment, usegmt=True).encode()) == seconds
