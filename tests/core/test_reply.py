"""fastlb's own answers."""

import re
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_message import Desk, reason, redirect_loops
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get, state

HEAD = 2
STATUSES = [400, 408, 413, 414, 417, 431, 500, 501, 502, 503, 504, 505]


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


@pytest.fixture
def desk(segment: Segment) -> Desk:
    desk = Desk(Setting().world(segment))
    desk.load(get())
    return desk


def parts(raw: bytes) -> tuple[str, dict[str, str], str]:
    head, body = raw.decode().split("\r\n\r\n", 1)
    first, *lines = head.split("\r\n")
    names = [line.split(": ", 1)[0] for line in lines]
    assert len(set(names)) == len(names)
    return first, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("status", STATUSES)
def test_every_answer_is_whole(desk: Desk, status: int) -> None:
    desk.set(status=status)
    first, fields, body = parts(desk.reply())
    assert first == f"HTTP/1.1 {status} {reason(status)}"
    assert reason(status) != "Error"
    assert fields["Content-Length"] == str(len(body))
    assert fields["Cache-Control"] == "no-store"
    assert body.count(f"{status} {reason(status)}") == 2
    assert ("Retry-After" in fields) == (status == 503)
    assert "Location" not in fields


def test_a_status_without_a_phrase_has_a_page(desk: Desk) -> None:
    desk.set(status=499)
    first, fields, body = parts(desk.reply())
    assert (first, fields["Content-Length"]) == ("HTTP/1.1 499 Error", str(len(body)))


def test_an_answer_to_head_has_no_page_but_its_length(desk: Desk) -> None:
    desk.set(status=502)
    page = parts(desk.reply())[1]["Content-Length"]
    desk.method(HEAD)
    _, fields, body = parts(desk.reply())
    assert (fields["Content-Length"], body) == (page, "")


@pytest.mark.parametrize(("persists", "minor", "connection"), [
    (True, 1, None), (False, 1, "close"), (True, 0, "keep-alive"), (False, 0, "close"),
])  # fmt: skip
def test_connection(desk: Desk, persists: bool, minor: int, connection: str | None) -> None:
    desk.set(status=400, client_persists=persists, version_minor=minor)
    assert parts(desk.reply())[1].get("Connection") == connection


# ---- pages of the configuration ----

PAGES = [(503, "text/plain", b"sorry"), (502, "text/html", b"x" * 300_000), (400, "a/b", b"")]


@pytest.fixture
def with_pages(segment: Segment) -> Desk:
    desk = Desk(Setting(error_pages=PAGES, retry_after=120).world(segment))
    desk.load(get())
    return desk


@pytest.mark.parametrize(("status", "type_", "page"), PAGES)
def test_a_page_of_the_configuration_is_sent(
    with_pages: Desk, status: int, type_: str, page: bytes
) -> None:
    with_pages.set(status=status)
    first, fields, body = parts(with_pages.reply())
    assert first == f"HTTP/1.1 {status} {reason(status)}"
    assert (fields["Content-Type"], body) == (type_, page.decode())
    assert fields["Content-Length"] == str(len(page))
    assert fields["Cache-Control"] == "no-store"
    assert fields.get("Retry-After") == ("120" if status == 503 else None)
    with_pages.method(HEAD)
    _, fields, body = parts(with_pages.reply())
    assert (fields["Content-Length"], body) == (str(len(page)), "")


def test_other_statuses_have_fastlbs_own(with_pages: Desk, desk: Desk) -> None:
    for status in (504, 408):
        with_pages.set(status=status)
        desk.set(status=status)
        pages = [parts(one.reply())[1:] for one in (with_pages, desk)]
        for fields, _ in pages:
            del fields["Date"]
        assert pages[0] == pages[1]


def test_for_want_of_memory_there_is_fastlbs_own(with_pages: Desk) -> None:
    with_pages.set(status=502)
    assert parts(with_pages.reply(configured=False))[2].count("502 Bad Gateway") == 2


def test_a_client_without_a_virtual_server_is_not_told_of_another(with_pages: Desk) -> None:
    with_pages.set(status=503, server=False, refused=1)
    _, fields, body = parts(with_pages.reply())
    assert body.count("503 Service Unavailable") == 2
    assert fields["Retry-After"] == "1"


def failed(
    segment: Segment,
    mode: str,
    *flags: str,
    url: str = "/sorry?a=b",
    tail: str = "; Path=/",
    target: str = "/",
):
    """A desk whose session's node is down."""
    cls = Class("shop", type="transparent", failure_mode=mode, flags=flags, redirect_url=url,
                tail=tail, fallback="by-ip")  # fmt: skip
    setting = Setting(classes=[cls, Class("by-ip")], decision=[("0.0.0.0", 0)])
    world = setting.world(segment)
    desk = Desk(world)
    state(world, 0, "down")
    request = get(f"Cookie: {cls.cookie_name}={setting.cookie('10.0.0.1:80')}", target=target)
    desk.load(request)
    desk.decided(world.decide("192.0.2.1", request))
    return cls, desk


@pytest.mark.parametrize("url", ["/sorry?a=b", "https://status.example.com/", "/" + "x" * 7000])
def test_a_redirect(segment: Segment, url: str) -> None:
    _, desk = failed(segment, "redirect", url=url)
    desk.set(status=302)
    first, fields, _ = parts(desk.reply())
    assert first == "HTTP/1.1 302 Found"
    assert fields["Location"] == url
    assert fields["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in fields
    assert fields["X-FastLB-Decision"] == "outcome=node-down; found-in=cookie; class=shop"


@pytest.mark.parametrize(("mode", "status"), [("redirect", 302), ("close", 503)])
def test_a_deleted_session_loses_its_cookie(segment: Segment, mode: str, status: int) -> None:
    tail = "; Path=/; Secure; Max-Age=3600"
    cls, desk = failed(segment, mode, "delete_on_failure", tail=tail)
    desk.set(status=status)
    cookie = parts(desk.reply())[1]["Set-Cookie"]
    assert cookie.startswith(f"{cls.cookie_name}={tail}")
    # The last attribute of a name counts (RFC 6265 5.3).
    assert re.findall("Max-Age=([0-9]+)", cookie)[-1] == "0"
    assert "Expires=Thu, 01 Jan 1970 00:00:00 GMT" in cookie


def test_other_answers_leave_the_cookie_alone(segment: Segment) -> None:
    _, desk = failed(segment, "new-node", "delete_on_failure")
    desk.set(status=502)
    assert "Set-Cookie" not in parts(desk.reply())[1]


def test_a_refused_request_has_no_decision(segment: Segment) -> None:
    desk = Desk(Setting(decision=[("0.0.0.0", 0)]).world(segment))
    desk.set(status=400, refused=1)
    assert "X-FastLB-Decision" not in parts(desk.reply())[1]


@pytest.mark.parametrize(("url", "host", "target", "loops"), [
    ("/sorry", "a.example", "/sorry", True),
    ("/sorry", "a.example", "/sorry?again=1", True),
    ("/sorry?x", "a.example", "/sorry", True),
    ("/sorry#top", "a.example", "/sorry", True),
    ("/sorry", "a.example", "/sorry/", False),
    ("/sorry", "a.example", "/", False),
    ("/sorry", "a.example", "http://a.example/sorry", True),
    ("http://a.example/sorry", "a.example", "/sorry", True),
    ("http://A.Example:80/sorry", "a.example", "/sorry", True),
    ("https://b.example/sorry", "a.example", "/sorry", False),
    ("https://b.example/sorry", "a.example", "http://b.example/sorry", True),
    ("http://a.example", "a.example", "/", True),
    ("http://a.example/", "a.example", "http://a.example", True),
    ("http://a.example?x", "a.example", "/?y", True),
    ("/go?to=http://x/", "a.example", "/go", True),
    ("", "", "", True),
])  # fmt: skip
def test_redirects_that_lead_back(url: str, host: str, target: str, loops: bool) -> None:
    assert redirect_loops(url.encode(), host.encode(), target.encode()) == loops


# ---- %{path} ----


def location(url: str, target: str) -> str:
    with Segment.create() as segment:
        _, desk = failed(segment, "redirect", url=url, target=target)
        desk.set(status=302)
        return parts(desk.reply())[1]["Location"]


BACK = "/sorry?from=%{path}"


@pytest.mark.parametrize(("target", "value"), [
    ("/", "/"),
    ("/shop/cart", "/shop/cart"),
    ("/a?b=c&d=e+f", "/a%3Fb%3Dc%26d%3De%2Bf"),
    ("/a%20b", "/a%2520b"),
    ("/%{path}", "/%25%7Bpath%7D"),
    ("//evil.example/", "//evil.example/"),
    ("/a;v=1:@!$'()*,~-._", "/a%3Bv%3D1:@!$'()*,~-._"),
    ('/"<script>', "/%22%3Cscript%3E"),
    ("http://www.example.com/x?y", "/x%3Fy"),
    ("http://www.example.com", "/"),
    ("http://www.example.com?y", "/%3Fy"),
    ("http://www.example.com:80/", "/"),
])  # fmt: skip
def test_what_was_asked_stands_in_the_query(target: str, value: str) -> None:
    assert location(BACK, target) == f"/sorry?from={value}"
    if target.startswith("/"):
        assert unquote(value) == target


@pytest.mark.parametrize(("url", "expected"), [
    ("/sorry?%{path}", "/sorry?/x"),
    ("/sorry?a=%{path}&b=%{path}&c#d", "/sorry?a=/x&b=/x&c#d"),
    ("https://s.example/?x=1&u=%{path}#top", "https://s.example/?x=1&u=/x#top"),
    ("/sorry?100%&x=y", "/sorry?100%&x=y"),
    ("/sorry?%{pat", "/sorry?%{pat"),
    ("/sorry?from=%{path", "/sorry?from=%{path"),
])  # fmt: skip
def test_the_rest_of_the_url_is_kept_as_written(url: str, expected: str) -> None:
    assert location(url, "/x") == expected


def test_a_path_that_is_too_long_is_left_out() -> None:
    fits = "/" + "x" * 4095
    assert location(BACK + "&z=1", fits) == f"/sorry?from={fits}&z=1"
    for target in (fits + "x", "/" + "?" * 1366, "/" + "x" * 7000):
        assert location(BACK + "&z=1", target) == "/sorry?from="
    half = "/" + "x" * 2100
    assert location(BACK + "&to=%{path}", half) == f"/sorry?from={half}&to="


targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"))


@settings(max_examples=60)
@given(rest=targets)
def test_any_target_comes_back_whole_from_the_query(rest: str) -> None:
    found = location(BACK + "&last=1", "/" + rest)
    assert parse_qs(found.partition("?")[2], strict_parsing=True) == {
        "from": ["/" + rest], "last": ["1"],
    }  # fmt: skip


@pytest.mark.parametrize("target", ["/sorry", "/sorry?from=/x", "/sorry?from=/sorry%3Ffrom"])
def test_the_page_itself_is_known_whatever_its_query(target: str) -> None:
    assert redirect_loops(BACK.encode(), b"a.example", target.encode())
    assert redirect_loops(b"http://a.example" + BACK.encode(), b"a.example", target.encode())
    assert not redirect_loops(BACK.encode(), b"a.example", b"/x?/sorry")
