"""Cookies of requests, and what responses set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .rule_words import answer, head, seen, seen_in_answer


def cookie_lines(data):
    return [line for line in data.split(b"\r\n") if line.lower().startswith(b"cookie:")]


def set_cookie_lines(data):
    return [line for line in data.split(b"\r\n") if line.lower().startswith(b"set-cookie:")]


def with_cookies(*fields):
    return b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % b"".join(b"Cookie: %b\r\n" % f for f in fields)


# --- of a request ---


def test_they_are_found_by_name_and_case_counts():
    assert seen(lambda r: r.cookies["sid"]) == "abc"
    assert seen(lambda r: r.cookies.get("SID")) is None
    assert seen(lambda r: (r.cookies["a"], r.cookies.get_all("a"))) == ("1", ["1", "2"])
    assert seen(lambda r: r.cookies.items()) == [("a", "1"), ("sid", "abc"), ("a", "2")]
    assert seen(lambda r: (list(r.cookies), len(r.cookies))) == (["a", "sid"], 2)
    with pytest.raises(KeyError):
        seen(lambda r: r.cookies["none"])


def test_they_are_found_over_all_fields_and_without_quotes():
    received = with_cookies(b'a="x y"; b', b"$Version=1; c=3; =4; d=", b"caf\xe9=\xe9")
    pairs = [("a", "x y"), ("c", "3"), ("d", ""), ("caf\udce9", "\udce9")]
    assert seen(lambda r: r.cookies.items(), received) == pairs
    assert seen(lambda r: r.cookies["caf\udce9"], received) == "\udce9"


def test_one_that_is_set_stands_where_the_first_one_stood():
    def change(request):
        request.cookies["a"] = "new"
        assert request.cookies.items() == [("a", "new"), ("sid", "abc")]
        assert request.cookies["sid"] == "abc"

    assert cookie_lines(head(change)) == [b"Cookie: a=new; sid=abc"]


def test_a_new_one_joins_the_last_field_or_makes_one():
    def change(request):
        request.cookies["new"] = "1"

    received = with_cookies(b"a=1", b"b=2")
    assert cookie_lines(head(change, received)) == [b"Cookie: a=1", b"Cookie: b=2; new=1"]
    assert cookie_lines(head(change, with_cookies())) == [b"Cookie: new=1"]
    assert cookie_lines(head(change, with_cookies(b""))) == [b"Cookie: new=1"]


def test_removed_ones_are_gone_from_every_field():
    def change(request):
        del request.cookies["a"]

    received = with_cookies(b"a=1", b"b=2;a=3 ; c=4", b"z=9;y=8")
    assert cookie_lines(head(change, received)) == [b"Cookie: b=2; c=4", b"Cookie: z=9;y=8"]
    with pytest.raises(KeyError):
        head(change, with_cookies(b"b=1"))


@pytest.mark.parametrize("value", ["a;b", "a b", 'a"b', "a,b", "a\\b", "a\r\nb", "\0", "\x7f"])
def test_values_are_as_the_grammar_wants_them(value):
    def change(request):
        request.cookies["a"] = value

    def change_answer(_, response):
        response.cookies["a"] = value

    with pytest.raises(ValueError, match=r"request\.cookies\['a'\]: byte 0x.*percent-encode"):
        head(change)
    with pytest.raises(ValueError, match=r"response\.cookies\['a'\]: byte 0x.*percent-encode"):
        answer(change_answer)


@pytest.mark.parametrize("name", ["", "a=b", "a;", "a b", "ü", "a\r\n"])
def test_names_are_tokens(name):
    def change(request):
        request.cookies[name] = "x"

    with pytest.raises(ValueError, match=r"request\.cookies"):
        head(change)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_no_cookie_is_too_strange(fields):
    fields = [bytes(c for c in field if c >= 0x20 and c != 0x7F) for field in fields]

    def change(request):
        before = request.cookies.items()
        for name, _ in before:
            assert request.cookies[name] == dict(reversed(before))[name]
        request.cookies["new"] = "1"
        for name in request.cookies.keys():  # noqa: SIM118
            if name != "new":
                del request.cookies[name]
        assert request.cookies.items() == [("new", "1")]

    assert b"new=1" in head(change, with_cookies(*fields))


# --- of a response ---


def test_what_is_set_is_found_by_name():
    assert seen_in_answer(lambda r: list(r.cookies)) == ["sid", "other"]
    assert seen_in_answer(lambda r: [c.value for c in r.cookies.get_all("sid")]) == ["abc", "def"]
    assert seen_in_answer(lambda r: (r.cookies["sid"].name, len(r.cookies))) == ("sid", 2)
    assert seen_in_answer(lambda r: r.cookies.get("SID")) is None
    assert seen_in_answer(lambda r: repr(r.cookies["other"])) == "SetCookie('other=1')"


def test_attributes_are_a_mapping():
    def look(response):
        first, second = response.cookies.get_all("sid")
        return (first["path"], "HttpOnly" in first, first["httponly"], first.get("Domain", "-"),
                second["Secure"], "Secure" in first)  # fmt: skip

    assert seen_in_answer(look) == ("/", True, True, "-", True, False)
    with pytest.raises(KeyError):
        seen_in_answer(lambda r: r.cookies["sid"]["Domain"])


def test_attributes_can_be_gone_through():
    received = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/a;path = /b; Foo=;;bar\r\n\r\n"

    def look(response):
        cookie = response.cookies["a"]
        assert (list(cookie), cookie.values()) == (cookie.keys(), [v for _, v in cookie.items()])
        return dict(cookie), len(cookie)

    assert seen_in_answer(look, received) == ({"path": "/b", "Foo": "", "bar": True}, 3)
    bare = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\n\r\n"
    assert seen_in_answer(lambda r: list(r.cookies["a"]), bare) == []
    assert seen_in_answer(lambda r: bool(r.cookies["a"]), bare) is True


def test_attributes_are_changed_where_they_stand():
    def change(_, response):
        first, second = response.cookies.get_all("sid")
        first["Partitioned"] = True
        first["PATH"] = "/x"
        first["Max-Age"] = 60
        second["Secure"] = False
        del second["Path"]
        with pytest.raises(KeyError):
            del second["Path"]

    assert set_cookie_lines(answer(change)) == [
        b"Set-Cookie: sid=abc; PATH=/x; HttpOnly; Partitioned; Max-Age=60",
        b"Set-Cookie: sid=def",
        b"set-cookie: other=1",
    ]


def test_of_a_repeated_attribute_one_stays():
    received = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/a;path=/b; Foo=;;bar\r\n\r\n"
    assert seen_in_answer(lambda r: r.cookies["a"]["Path"], received) == "/b"

    def change(_, response):
        response.cookies["a"]["Path"] = "/"

    line = b"Set-Cookie: a=1; Path=/; Foo=;;bar"
    assert set_cookie_lines(answer(change, received)) == [line]


def test_values_change_and_attributes_stay():
    def change(_, response):
        response.cookies["sid"].value = "one"
        response.cookies["other"] = "two"
        response.cookies["new"] = "three"

    assert set_cookie_lines(answer(change)) == [
        b"Set-Cookie: sid=one; Path=/; HttpOnly",
        b"Set-Cookie: sid=def; Path=/app; secure",
        b"Set-Cookie: other=two",
        b"Set-Cookie: new=three",
    ]


def test_set_makes_the_whole_cookie():
    def change(_, response):
        response.cookies.set(
            "sid", "x", path="/p", domain="example.com", max_age=5, secure=True, http_only=True,
            same_site="Lax", partitioned=True,
        )  # fmt: skip
        response.cookies.set("theme", "dark", path=None)
        response.cookies.expire("other")

    assert set_cookie_lines(answer(change)) == [
        b"Set-Cookie: sid=x; Path=/p; Domain=example.com; Max-Age=5; Secure; HttpOnly; "
        b"SameSite=Lax; Partitioned",
        b"Set-Cookie: other=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b"Set-Cookie: theme=dark",
    ]


def test_a_cookie_can_be_kept_from_the_client():
    def change(_, response):
        cookie = response.cookies["sid"]
        del response.cookies["sid"]
        with pytest.raises(KeyError):
            cookie["Path"] = "/"
        with pytest.raises(KeyError):
            del response.cookies["sid"]

    assert set_cookie_lines(answer(change)) == [b"set-cookie: other=1"]


@pytest.mark.parametrize("value", ["a;b", "a\r\nb", "\0"])
def test_attributes_cannot_end_their_field(value):
    def change(_, response):
        response.cookies["sid"]["Path"] = value

    def make(_, response):
        response.cookies.set("sid", "x", path=value)

    for rule in change, make:
        with pytest.raises(ValueError, match=r"response\.cookies\['sid'\]"):
            answer(rule)


@pytest.mark.parametrize("value", [[], 1.5, b"x", 1 << 60])
def test_attributes_of_other_types_are_refused(value):
    def change(_, response):
        response.cookies["sid"]["Max-Age"] = value

    with pytest.raises((TypeError, ValueError), match=r"response\.cookies\['sid'\]\['Max-Age'\]"):
        answer(change)


def test_nothing_is_changed_by_looking():
    def look(request, response=None):
        subject = response or request
        assert subject.cookies.items()
        assert subject.cookies.get("sid")

    assert head(look) == b""
    assert answer(look) == b""
