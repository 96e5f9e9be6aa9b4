"""What nodes are told of the client and of the way, field by field of `forwarded_fields`.

X-Forwarded-For and -Proto, which are there by default: also in test_request.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_message import Desk
from fastlb._core.shm import Segment
from tests.core.plans import Setting, get

PEER = "192.0.2.1"
ALL = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via")
TRUSTED = [("192.0.2.0", 24)]
FORGED = [
    "X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil",
    "Forwarded: for=1.1.1.1", "Via: 1.1 evil",
]  # fmt: skip


@pytest.fixture(scope="module")
def segment():
    with Segment.create() as made:
        yield made


@pytest.fixture
def told(segment: Segment):
    """The lines that the node gets after the request line."""

    def lines(head: bytes, *fields: str, peer: str = PEER, **more) -> list[str]:
        world = Setting(forwarded_fields=fields, **more).world(segment)
        desk = Desk(world, peer)
        desk.decided(world.decide(peer or "::", head))
        desk.load(head)
        out = desk.request(head)
        assert out != "full"
        return out.decode("latin-1").split("\r\n")[1:-2]

    return lines


def fields_of(lines: list[str], name: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in lines
            if line.partition(":")[0].lower() == name]  # fmt: skip


def test_what_is_not_asked_for_passes_as_it_came(told) -> None:
    assert told(get(*FORGED)) == ["Host: www.example.com", *FORGED]
    for one in ALL:
        lines = told(get(*FORGED), one)
        assert [line for line in lines if line.partition(":")[0].lower() != one] == [
            "Host: www.example.com",
            *(line for line in FORGED if line.partition(":")[0].lower() != one),
        ]


@pytest.mark.parametrize(("name", "value"), [
    ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "www.example.com"),
    ("forwarded", "for=192.0.2.1;proto=http;host=www.example.com"), ("via", "1.1 fastlb"),
])  # fmt: skip
def test_each_field_alone(told, name: str, value: str) -> None:
    lines = told(get("A: b"), name)
    assert lines[:2] == ["Host: www.example.com", "A: b"]
    assert len(lines) == 3
    assert fields_of(lines, name) == [value]


def test_a_stranger_is_not_believed(told) -> None:
    assert told(get(*FORGED), *ALL) == [
        "Host: www.example.com", "X-Forwarded-For: 1.1.1.1, 192.0.2.1", "Via: 1.1 evil, 1.1 fastlb",
        "X-Forwarded-Proto: http", "X-Forwarded-Host: www.example.com",
        "Forwarded: for=192.0.2.1;proto=http;host=www.example.com",
    ]  # fmt: skip


def test_a_trusted_proxy_is(told) -> None:
    assert told(get(*FORGED), *ALL, trusted=TRUSTED) == [
        "Host: www.example.com", "X-Forwarded-For: 1.1.1.1, 192.0.2.1", "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: evil",
        "Forwarded: for=1.1.1.1, for=192.0.2.1;proto=http;host=www.example.com",
        "Via: 1.1 evil, 1.1 fastlb",
    ]  # fmt: skip


def test_lists_of_several_lines_grow_at_their_end(told) -> None:
    head = get("Forwarded: for=a", "Via: 1.1 a", "B: c", "forwarded: for=b", "VIA: 1.1 b")
    assert told(head, "forwarded", "via", trusted=TRUSTED) == [
        "Host: www.example.com", "Forwarded: for=a", "Via: 1.1 a", "B: c",
        "forwarded: for=b, for=192.0.2.1;proto=http;host=www.example.com", "VIA: 1.1 b, 1.1 fastlb",
    ]  # fmt: skip


def test_an_empty_list_begins(told) -> None:
    assert told(get("Forwarded:", "Via: "), "forwarded", "via", trusted=TRUSTED)[1:] == [
        "Forwarded:for=192.0.2.1;proto=http;host=www.example.com", "Via: 1.1 fastlb",
    ]  # fmt: skip


@pytest.mark.parametrize(("peer", "host", "element"), [
    ("2001:db8::1", "a.b", 'for="[2001:db8::1]";proto=http;host=a.b'),
    ("::ffff:10.0.0.1", "a:80", 'for=10.0.0.1;proto=http;host="a:80"'),
    ("10.0.0.1", "[::1]:8080", 'for=10.0.0.1;proto=http;host="[::1]:8080"'),
    ("", "a", "for=unknown;proto=http;host=a"),
    ("10.0.0.1", "a,b;c=(d)", 'for=10.0.0.1;proto=http;host="a,b;c=(d)"'),
])  # fmt: skip
def test_elements_are_quoted_where_they_must(told, peer: str, host: str, element: str) -> None:
    lines = told(get(f"Host: {host}"), "forwarded", peer=peer)
    assert fields_of(lines, "forwarded") == [element]


def test_https_is_told(told) -> None:
    lines = told(get(), *ALL, protocol="https")
    assert fields_of(lines, "forwarded") == ["for=192.0.2.1;proto=https;host=www.example.com"]
    assert fields_of(lines, "x-forwarded-proto") == ["https"]


def test_the_host_is_the_one_that_counts(told) -> None:
    head = b"GET http://b.example:81/ HTTP/1.1\r\nHost: a\r\n\r\n"
    lines = told(head, "x-forwarded-host", "forwarded")
    assert fields_of(lines, "host") == ["b.example:81"]


def test_a_1_0_request_without_host(told) -> None:
    lines = told(get("X-Forwarded-Host: evil", version="1.0"), *ALL)
    assert fields_of(lines, "x-forwarded-host") == []
    assert fields_of(lines, "forwarded") == ["for=192.0.2.1;proto=http"]
    assert fields_of(lines, "via") == ["1.0 fastlb"]


@pytest.mark.parametrize("trusted", [[], TRUSTED])
@pytest.mark.parametrize("name", ALL)
def test_listing_a_field_in_connection_does_not_remove_ours(told, name: str, trusted) -> None:
    for listed in (f"close, {name}", f"{name.upper()}, x"):
        lines = told(get(f"Connection: {listed}", *FORGED), *ALL, trusted=trusted)
        (value,) = fields_of(lines, name)
        assert "evil" not in value
        assert "1.1.1.1" not in value
        assert "gopher" not in value


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x_forwarded-FOR", "X-Forwarded_Proto",
                                  "X_FORWARDED_HOST"])  # fmt: skip
@pytest.mark.parametrize("trusted", [[], TRUSTED])
def test_what_a_cgi_program_takes_for_ours_goes(told, name: str, trusted) -> None:
    field = f"{name}: forged"
    assert field not in told(get("A: b", field), *ALL, trusted=trusted)
    assert field in told(get("A: b", field))


values = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0", min_codepoint=32,
                               exclude_categories=["Cc"]), max_size=10)  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from([*ALL, "X_Forwarded_For", "connection", "a"]), values),
             max_size=8),
    st.lists(st.sampled_from(ALL), unique=True), st.booleans(),
)  # fmt: skip
def test_whatever_a_client_says(segment: Segment, sent: list, asked: list, trusted: bool) -> None:
    head = get(*(f"{name}: {value}" for name, value in sent))
    world = Setting(forwarded_fields=tuple(asked), trusted=TRUSTED if trusted else []).world(
        segment
    )
    desk = Desk(world, PEER)
    desk.decided(world.decide(PEER, head))
    desk.load(head)
    out = desk.request(head)
    desk.load(out)
    lines = out.decode("latin-1").split("\r\n")[1:-2]
    if "x-forwarded-for" in asked:
        assert ", ".join(fields_of(lines, "x-forwarded-for")).split(",")[-1].strip() == PEER
    if "x-forwarded-proto" in asked and not trusted:
        assert fields_of(lines, "x-forwarded-proto") == ["http"]
    if "x-forwarded-host" in asked and not trusted:
        assert fields_of(lines, "x-forwarded-host") == ["www.example.com"]
    if "forwarded" in asked:
        element = "for=192.0.2.1;proto=http;host=www.example.com"
        got = fields_of(lines, "forwarded")
        assert got[-1].endswith(element)
        assert trusted or got == [element]
    if "via" in asked:
        assert fields_of(lines, "via")[-1].endswith("1.1 fastlb")
