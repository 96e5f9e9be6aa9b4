"""Header fields, query and log fields as mappings; and headers against a model."""

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastlb import rule

from .rule_words import HEAD, answer, head, run, seen, seen_in_answer

FRAMING = (
    "Content-Length", "Transfer-Encoding", "Connection", "keep-alive", "Proxy-Connection", "TE",
    "Trailer", "Upgrade",
)  # fmt: skip


def lines(data):
    return data.removesuffix(b"\r\n\r\n").split(b"\r\n")


# --- header fields ---


def test_names_are_found_whatever_their_case():
    assert seen(lambda r: (r.headers["host"], r.headers["HOST"])) == ("www.example.com",) * 2
    assert seen(lambda r: r.headers["X-SAME"]) == "one"
    assert seen(lambda r: r.headers.get_all("x-same")) == ["one", "two"]
    assert seen(lambda r: r.headers.get("missing")) is None
    assert seen(lambda r: r.headers.get("missing", 5)) == 5
    assert seen(lambda r: ("Accept" in r.headers, "missing" in r.headers)) == (True, False)


def test_a_name_that_is_not_there_is_a_key_error():
    with pytest.raises(KeyError, match="missing"):
        seen(lambda r: r.headers["missing"])


def test_values_come_without_white_space_around_them():
    assert seen(lambda r: r.headers["User-Agent"]) == "spaced"


def test_each_name_counts_once_and_items_has_all_pairs():
    names = ["Host", "User-Agent", "X-Same", "accept", "Cookie", "X-Raw"]
    assert seen(lambda r: list(r.headers)) == names
    assert seen(lambda r: len(r.headers)) == 6
    assert seen(lambda r: r.headers.items())[2:5] == [
        ("X-Same", "one"), ("accept", "*/*"), ("x-same", "two"),
    ]  # fmt: skip
    assert seen(lambda r: dict(r.headers))["X-Same"] == "one"


def test_bytes_that_are_no_utf_8_come_back_as_they_were():
    assert seen(lambda r: r.headers["X-Raw"]) == "caf\udce9 ü"

    def copy(request):
        request.headers["X-Copy"] = request.headers["X-Raw"]

    assert b"X-Copy: caf\xe9 \xc3\xbc\r\n" in head(copy)


def test_a_set_field_stands_where_the_first_one_stood():
    def change(request):
        request.headers["X-SAME"] = " new "

    assert lines(head(change)) == [
        b"GET /shop/cart?id=5&x=a%20b HTTP/1.1", b"Host: www.example.com",
        b"User-Agent:  spaced ", b"X-SAME: new", b"accept: */*", b"Cookie: a=1; sid=abc; a=2",
        b"X-Raw: caf\xe9 \xc3\xbc",
    ]  # fmt: skip


def test_added_ones_stand_at_the_end_and_removed_ones_are_gone():
    def change(request):
        request.headers.add("x-same", "three")
        request.headers.add("New", "")
        del request.headers["accept"]
        assert request.headers.get_all("X-Same") == ["one", "two", "three"]
        assert request.headers["new"] == ""
        assert "accept" not in request.headers

    expected = HEAD.replace(b"accept: */*\r\n", b"")
    assert head(change) == expected[:-2] + b"x-same: three\r\nNew: \r\n\r\n"


def test_removing_takes_all_of_a_name():
    def change(request):
        del request.headers["X-Same"]

    assert head(change) == HEAD.replace(b"X-Same: one\r\n", b"").replace(b"x-same: two\r\n", b"")

    def again(request):
        del request.headers["X-Same"]
        del request.headers["X-Same"]

    with pytest.raises(KeyError):
        head(again)


@pytest.mark.parametrize("name", FRAMING)
def test_what_frames_a_message_is_not_for_rules(name):
    def put(request):
        request.headers[name] = "x"

    def add(request):
        request.headers.add(name, "x")

    def remove(request):
        del request.headers[name]

    for change in put, add, remove:
        with pytest.raises(ValueError, match="belongs to the connection or frames"):
            head(change)


def test_host_is_one_and_a_host():
    def put(request):
        request.headers["host"] = "Shop.example.com:8080"

    def remove(request):
        del request.headers["Host"]

    def add(request):
        request.headers.add("Host", "second")

    assert lines(head(put))[1] == b"Host: Shop.example.com:8080"
    for change, words in (remove, "needs its Host"), (add, "one Host"):
        with pytest.raises(ValueError, match=words):
            head(change)


@pytest.mark.parametrize("host", ["", "a b", "a@b", "a/b", "a:99999", "[::1"])
def test_a_wrong_host_is_refused(host):
    def change(request):
        request.headers["Host"] = host

    with pytest.raises(ValueError, match=r"request\.headers\['Host'\]: expected a host"):
        head(change)


def test_the_host_of_an_absolute_target_is_changed_in_both_places():
    received = b"GET http://one.example/a?b HTTP/1.1\r\nHost: one.example\r\n\r\n"

    def change(request):
        assert request.host == "one.example"
        request.host = "two.example:81"
        assert request.host == "two.example"

    assert head(change, received) == (
        b"GET http://two.example:81/a?b HTTP/1.1\r\nHost: two.example:81\r\n\r\n"
    )


@pytest.mark.parametrize("bad", ["\r\nX: 1", "a\nb", "a\rb", "a\0b", "\x7f", "\x1b[0m", "a\x0bb"])
def test_no_control_character_gets_into_a_value(bad):
    def put(request):
        request.headers["X-New"] = bad

    def add(response):
        response.headers.add("X-New", bad)

    with pytest.raises(ValueError, match=r"request\.headers\['X-New'\]: byte 0x"):
        head(put)
    with pytest.raises(ValueError, match=r"response\.headers\['X-New'\]: byte 0x"):
        answer(lambda _, response: add(response))


@pytest.mark.parametrize("bad", ["", "a b", "a:", "a\r\nb", "ä", "a\0", "(a)"])
def test_no_name_that_is_not_a_token(bad):
    def change(request):
        request.headers[bad] = "x"

    with pytest.raises(ValueError, match=r"request\.headers: "):
        head(change)


def test_there_is_an_end_to_what_rules_add():
    def change(request):
        for number in range(10_000):
            request.headers.add("X", str(number))

    with pytest.raises(ValueError, match="128 fields"):
        head(change)


def test_a_head_that_became_too_long_is_the_rules_failure():
    def change(request):
        request.headers["X"] = "x" * 50_000

    with pytest.raises(ValueError, match=r"request: what the rule made of it .*head-too-long"):
        head(change)


def test_a_response_has_headers_of_its_own():
    def change(_, response):
        response.headers["Server"] = "fastlb"
        del response.headers["Set-Cookie"]

    assert answer(change) == (b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nServer: fastlb\r\n\r\n")
    assert seen_in_answer(lambda r: r.headers["server"]) == "nginx"


# --- against a model ---

NAMES = st.sampled_from(["X-Same", "x-same", "Accept", "X-New", "X-RAW", "x-other", "Missing"])
VALUES = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]),
    max_size=20,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("add"), NAMES, VALUES),
        st.tuples(st.just("del"), NAMES, st.just("")),
    ),
    max_size=12,
)


def apply_to_model(pairs, step):
    kind, name, value = step
    value = value.strip(" \t")
    same = [i for i, (known, _) in enumerate(pairs) if known.lower() == name.lower()]
    if kind == "add" or (kind == "set" and not same):
        pairs.append((name, value))
    elif kind == "set":
        pairs[same[0]] = (name, value)
    if kind != "add":
        for i in reversed(same[1:] if kind == "set" else same):
            del pairs[i]
    return bool(same)


def apply_step(headers, step):
    kind, name, value = step
    if kind == "set":
        headers[name] = value
    elif kind == "add":
        headers.add(name, value)
    else:
        del headers[name]


def parsed(data):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return event


@settings(max_examples=60, deadline=None)
@given(STEPS)
@example([("set", "X-Same", "a"), ("add", "x-same", "b"), ("del", "X-SAME", "")])
def test_any_sequence_of_edits_is_that_of_a_simple_list(steps):
    model = seen(lambda r: r.headers.items())

    def change(request):
        for step in steps:
            if step[0] == "del" and step[1] not in request.headers:
                with pytest.raises(KeyError):
                    apply_step(request.headers, step)
                continue
            apply_step(request.headers, step)
            apply_to_model(model, step)
            assert request.headers.items() == model

    changed = head(change) or HEAD
    encoded = [(n.lower().encode(), v.encode("utf-8", "surrogateescape")) for n, v in model]
    assert [(bytes(n), bytes(v)) for n, v in parsed(changed).headers] == encoded


SETTERS = {
    "headers": lambda r, t: r.headers.__setitem__("X-New", t),
    "add": lambda r, t: r.headers.add("X-New", t),
    "name": lambda r, t: r.headers.__setitem__(t, "x"),
    "cookie": lambda r, t: r.cookies.__setitem__("new", t),
    "cookie name": lambda r, t: r.cookies.__setitem__(t, "x"),
    "query": lambda r, t: r.query.__setitem__("new", t),
    "query name": lambda r, t: r.query.__setitem__(t, "x"),
    "path": lambda r, t: setattr(r, "path", t),
    "raw_path": lambda r, t: setattr(r, "raw_path", t),
    "raw_query": lambda r, t: setattr(r, "raw_query", t),
    "target": lambda r, t: setattr(r, "target", t),
    "method": lambda r, t: setattr(r, "method", t),
    "host": lambda r, t: setattr(r, "host", t),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SETTERS)), st.text(max_size=30))
@example("path", "/a\r\nX: 1")
@example("raw_path", "/ HTTP/1.1\r\nX: 1\r\n\r\n")
@example("method", "GET / HTTP/1.1\r\nX:")
@example("headers", "x\r\n\r\nGET / HTTP/1.1")
@example("name", "Content-Length")
def test_whatever_is_set_no_other_field_comes_of_it(setter, text):
    names = {b"host", b"user-agent", b"x-same", b"accept", b"cookie", b"x-raw", b"x-new"}
    if setter == "name":
        names.add(text.lower().encode("utf-8", "surrogatepass"))
    try:
        changed = head(lambda request: SETTERS[setter](request, text))
    except (ValueError, TypeError):
        return
    if changed:
        event = parsed(changed)
        assert {bytes(name) for name, _ in event.headers} <= names
        assert len(event.headers) <= 8


# --- the query ---


def test_parameters_are_decoded():
    received = b"GET /?a=1&b=x+y%26&a=2&flag&=empty&%C3%BC=%FF HTTP/1.1\r\nHost: h\r\n\r\n"
    pairs = [("a", "1"), ("b", "x y&"), ("a", "2"), ("flag", ""), ("", "empty"), ("ü", "\udcff")]
    assert seen(lambda r: r.query.items(), received) == pairs
    assert seen(lambda r: r.query.get_all("a"), received) == ["1", "2"]
    assert seen(lambda r: list(r.query), received) == ["a", "b", "flag", "", "ü"]
    assert seen(lambda r: r.query.get("c", "none"), received) == "none"


def test_changes_leave_the_other_parameters_as_they_were_written():
    received = b"GET /p?a=%7e&&b=1&c=+&b=2 HTTP/1.1\r\nHost: h\r\n\r\n"

    def change(request):
        request.query["b"] = "x y/&="
        request.query.add("ü", "1")
        del request.query["c"]

    assert lines(head(change, received))[0] == b"GET /p?a=%7e&&b=x%20y/%26%3D&%C3%BC=1 HTTP/1.1"


def test_a_query_comes_and_goes():
    received = b"GET /p HTTP/1.1\r\nHost: h\r\n\r\n"

    def come(request):
        request.query["a"] = "1"

    def go(request):
        request.query["a"] = "1"
        del request.query["a"]

    assert lines(head(come, received))[0] == b"GET /p?a=1 HTTP/1.1"
    assert lines(head(go, received))[0] == b"GET /p HTTP/1.1"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_no_query_is_too_strange(raw):
    raw = bytes(byte for byte in raw if 0x20 < byte < 0x7F and byte != 0x23)
    received = b"GET /?%b HTTP/1.1\r\nHost: h\r\n\r\n" % raw
    names = seen(lambda r: [r.query[name] for name in r.query], received)
    assert len(names) <= raw.count(b"&") + 1


# --- the log ---


def test_log_fields_are_members_of_json():
    def fields(request):
        request.log["user"] = 'a"\\\n\x7fü'
        request.log["n"] = 5
        request.log["f"] = 1.5
        request.log["b"] = True
        request.log["raw"] = "\udcff"
        request.log["gone"] = 1
        request.log["gone"] = None
        assert dict(request.log.items())["n"] == 5
        assert len(request.log) == 5

    log = b'"user":"a\\"\\\\\\n\\u007f\xc3\xbc","n":5,"f":1.5,"b":true,"raw":"\xef\xbf\xbd"'
    assert run(fields)["log"] == log


@pytest.mark.parametrize("value", [[], {}, b"x", object(), 1j])
def test_other_values_are_not_logged(value):
    def fields(request):
        request.log["x"] = value

    with pytest.raises(TypeError, match=r"log\['x'\]: expected str, int, float or bool"):
        run(fields)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 5000, "x" * 3000, "\ud800"])
def test_values_that_are_no_json_or_too_long_are_refused(value):
    def fields(request):
        request.log["x"] = value

    with pytest.raises(ValueError, match=r"log"):
        run(fields)


def test_what_is_logged_has_an_end():
    def fields(request):
        for number in range(1000):
            request.log[f"field{number}"] = "x" * 20

    with pytest.raises(ValueError, match="2048 is the most"):
        run(fields)


# --- what is no view of anything ---


@pytest.mark.parametrize(
    "kind", [rule.Headers, rule.Query, rule.Cookies, rule.SetCookies, rule.Log]
)
def test_views_that_nobody_got_have_ended(kind):
    view = kind.__new__(kind)
    assert "has ended" in repr(view)
    with pytest.raises(rule.RuleEnded):
        view["x"]
    with pytest.raises(rule.RuleEnded):
        list(view)
    with pytest.raises(rule.RuleEnded):
        view["x"] = "y"
    with pytest.raises(rule.RuleEnded):
        del view["x"]
