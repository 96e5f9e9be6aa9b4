"""Attributes of the application's cookie: read, limited, carried in a value, written as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_followed import carried, carry, equal, read, reset, text
from fastlb._core._testing_parts import token
from fastlb._core.plan import CLASS_FLAGS

NOW = 1800000000
KEY = bytes(range(16))
TOKEN = token(KEY, KEY, "10.0.0.1", 80, 7)
ALL = sum(value for name, value in CLASS_FLAGS.items() if name.startswith("follows_"))
PLAIN = (b"/", b"", 0, False, False, 0)
STRICT, LAX, NONE = 1, 2, 3
TEN_YEARS = 3660 * 86400


def changed(**more):
    names = ("path", "domain", "expires", "secure", "partitioned", "same_site")
    return tuple(more.get(name, plain) for name, plain in zip(names, PLAIN, strict=True))


@pytest.mark.parametrize(("attributes", "expected"), [
    ("", PLAIN),
    ("; Path=/", PLAIN),
    ("; Path=/shop", changed(path=b"/shop")),
    ("; path=/a; PATH=/b", changed(path=b"/b")),
    ("; Path=", PLAIN),
    ("; Path=shop", PLAIN),
    ('; Path="/shop"', changed(path=b"/shop")),
    ("; Path=/" + "p" * 99, changed(path=b"/" + b"p" * 99)),
    ("; Path=/" + "p" * 100, PLAIN),
    # What could not be carried is not followed: "/" is where it is sent to, too.
    ("; Path=/a b", PLAIN),
    ("; Path=/a,b", PLAIN),
    ("; Path=/a@b", PLAIN),
    ("; Path=/a\\b", PLAIN),
    ("; Path=/\xe9", PLAIN),
    ("; Domain=example.com", changed(domain=b"example.com")),
    ("; Domain=.example.com", changed(domain=b"example.com")),
    ("; Domain=", PLAIN),
    ("; Domain=.", PLAIN),
    ("; Domain=exa mple.com", PLAIN),
    ("; Domain=a@b", PLAIN),
    ("; Domain=" + "d" * 80, changed(domain=b"d" * 80)),
    ("; Domain=" + "d" * 81, PLAIN),
    ("; Secure", changed(secure=True)),
    ("; secure=whatever", changed(secure=True)),
    ("; SameSite=Strict", changed(same_site=STRICT)),
    ("; SameSite=lax", changed(same_site=LAX)),
    ("; SameSite=None; Secure; Partitioned",
     changed(secure=True, partitioned=True, same_site=NONE)),
    ("; SameSite=Sometimes", PLAIN),
    ("; HttpOnly; Priority=High", PLAIN),
    ("; Max-Age=60", changed(expires=NOW + 60)),
    ("; Max-Age=0", PLAIN),
    ("; Max-Age=-1", PLAIN),
    ("; Max-Age=x", PLAIN),
    ("; Max-Age=99999999999999999999", changed(expires=NOW + TEN_YEARS)),
    ("; Expires=Fri, 15 Jan 2027 08:01:00 GMT", changed(expires=NOW + 60)),
    ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT", PLAIN),
    ("; Expires=Fri, 31 Dec 9999 23:59:59 GMT", changed(expires=NOW + TEN_YEARS)),
    ("; Max-Age=60; Expires=Fri, 31 Dec 9999 23:59:59 GMT", changed(expires=NOW + 60)),
])  # fmt: skip
def test_what_a_set_cookie_says(attributes: str, expected: tuple) -> None:
    assert read(f"SID=1{attributes}".encode("latin-1")) == expected


def test_without_anything_to_follow() -> None:
    assert reset(False) == PLAIN
    assert reset(True) == changed(secure=True)


FULL = b"SID=1; Path=/shop; Domain=.example.com; Max-Age=60; Secure; SameSite=None; Partitioned"


@pytest.mark.parametrize(("flags", "expected"), [
    ([], b""),
    (["path"], b"; Path=/shop"),
    (["domain"], b"; Domain=example.com"),
    (["age"], b"; Max-Age=60"),
    (["secure"], b"; Secure; Partitioned"),
    (["same_site"], b"; SameSite=None"),
    (["path", "domain", "age", "secure", "same_site"],
     b"; Path=/shop; Domain=example.com; Max-Age=60; Secure; SameSite=None; Partitioned"),
])  # fmt: skip
def test_only_what_the_class_follows_is_written(flags: list[str], expected: bytes) -> None:
    assert text(FULL, sum(CLASS_FLAGS[f"follows_{flag}"] for flag in flags)) == expected


@pytest.mark.parametrize(("set_cookie", "expected"), [
    (b"SID=1", b"; Path=/"),
    (b"SID=1; SameSite=Lax", b"; Path=/; SameSite=Lax"),
    (b"SID=1; SameSite=Strict", b"; Path=/; SameSite=Strict"),
    (b"SID=1; Max-Age=0", b"; Path=/"),
])  # fmt: skip
def test_text(set_cookie: bytes, expected: bytes) -> None:
    assert text(set_cookie, ALL) == expected


def test_the_longest_text_has_room() -> None:
    longest = b"SID=1; Path=/%s; Domain=%s; Max-Age=999999999; Secure; SameSite=Strict; Partitioned"
    assert len(text(longest % (b"p" * 99, b"d" * 80), ALL)) > 240


def test_age_is_what_is_left_of_it() -> None:
    assert text(b"SID=1; Max-Age=60", ALL, later_s=59) == b"; Path=/; Max-Age=1"
    assert text(b"SID=1; Max-Age=60", ALL, later_s=60) == b"; Path=/"


@pytest.mark.parametrize(("one", "other", "same"), [
    (b"a=1", b"a=2; Path=/; HttpOnly", True),
    (b"a=1; Max-Age=5", b"a=1", True),
    (b"a=1; Domain=x.y", b"a=1; Domain=.x.y", True),
    (b"a=1; Path=/a", b"a=1; Path=/b", False),
    (b"a=1; Path=/a", b"a=1; Path=/a/", False),
    (b"a=1; Domain=x.y", b"a=1", False),
    (b"a=1; Secure", b"a=1", False),
    (b"a=1; Secure; Partitioned", b"a=1; Secure", False),
    (b"a=1; SameSite=Lax", b"a=1", False),
])  # fmt: skip
def test_the_same_cookie(one: bytes, other: bytes, same: bool) -> None:
    assert equal(one, other) is same
    assert equal(other, one) is same


# ---- carried ----


def test_nothing_to_carry_is_the_token_alone() -> None:
    assert carry(KEY, TOKEN, b"SID=1; Path=/; HttpOnly") == TOKEN
    assert carried(KEY, TOKEN) == (TOKEN, PLAIN)


paths = st.text("abcXYZ019/.-_~%!$&'()*+=:", max_size=99).map(lambda t: b"/" + t.encode())
domains = st.text("abcXYZ019.-_", min_size=1, max_size=80).map(str.encode)


@given(paths, st.none() | domains, st.none() | st.integers(1, TEN_YEARS), st.booleans(),
       st.booleans(), st.sampled_from([b"", b"Strict", b"Lax", b"None"]))  # fmt: skip
def test_round_trip(path, domain, age, secure: bool, partitioned: bool, site: bytes) -> None:
    set_cookie = b"SID=1; Path=" + path
    set_cookie += b"; Domain=" + domain if domain else b""
    set_cookie += b"; Max-Age=%d" % age if age else b""
    set_cookie += (b"; Secure" if secure else b"") + (b"; Partitioned" if partitioned else b"")
    set_cookie += b"; SameSite=" + site if site else b""
    value = carry(KEY, TOKEN, set_cookie)
    assert carried(KEY, value) == (TOKEN, read(set_cookie))
    assert not set(value) & set(b' ",;\\')
    assert all(0x21 <= byte < 0x7F for byte in value)


VALUE = carry(KEY, TOKEN, FULL)


@pytest.mark.parametrize("at", range(len(VALUE)))
def test_no_change_of_one_byte_is_accepted(at: int) -> None:
    for byte in {VALUE[at] ^ 1, VALUE[at] ^ 0x20, ord("."), ord("/"), ord("@"), 0} - {VALUE[at]}:
        changed = VALUE[:at] + bytes([byte]) + VALUE[at + 1 :]
        found = carried(KEY, changed)
        # Without its first dot nothing is carried, and the token is too long to be one.
        assert found is None or len(found[0]) > 63 or found[0] != TOKEN


def test_cut_and_joined_ones_are_refused() -> None:
    for at in range(len(TOKEN) + 1, len(VALUE)):
        assert carried(KEY, VALUE[:at]) is None
    assert carried(KEY, VALUE + b"0") is None
    assert carried(KEY, VALUE + b"." + b"0" * 16) is None
    assert carried(bytes(16), VALUE) is None
    other = token(KEY, KEY, "10.0.0.2", 80, 7)
    # The attributes belong to this token.
    assert carried(KEY, VALUE.replace(TOKEN, other)) is None
    assert carried(KEY, TOKEN + b"." + b"x" * 60000) is None
    assert carried(KEY, carry(KEY, b"x" * 63, FULL)) is not None
    assert carried(KEY, carry(KEY, b"x" * 64, FULL)) is None


@given(st.binary(max_size=300))
def test_garbage(value: bytes) -> None:
    found = carried(KEY, value)
    assert found is None or (found == (value, PLAIN) and b"." not in value)
