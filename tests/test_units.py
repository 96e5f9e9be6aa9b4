"""How values are written."""

import ipaddress
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb.errors import Invalid
from fastlb.units import (
    BYTES,
    MILLISECONDS,
    Duration,
    Inet,
    InetAddress,
    Key,
    KeyPart,
    Listen,
    Networks,
    Pattern,
    Size,
    UnixAddress,
    Workers,
    quantity,
    quoted,
    written_quantity,
)

DURATION = Duration("10ms", "2h", zero="never")
SIZE = Size("16B", "1GiB")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("5s", 5000), ("30m", 1_800_000), ("2h", 7_200_000), ("0s", 0), ("0h", 0)],
)
def test_duration(text: str, milliseconds: int) -> None:
    assert DURATION.read(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "count"), [("16B", 16), ("16KiB", 16384), ("1MiB", 1 << 20), ("1GiB", 1 << 30)]
)
def test_size(text: str, count: int) -> None:
    assert SIZE.read(text) == count


@pytest.mark.parametrize(
    ("form", "value", "code", "meant"),
    [
        (DURATION, "5 s", "FLB-C020", "5s"),
        (DURATION, "5 seconds", "FLB-C020", "5s"),
        (DURATION, "5S", "FLB-C020", "5s"),
        (DURATION, 5, "FLB-C020", "5s"),
        (DURATION, "1.5s", "FLB-C020", ""),
        (DURATION, "-1s", "FLB-C020", ""),
        (DURATION, "1d", "FLB-C020", ""),
        (DURATION, "", "FLB-C020", ""),
        (DURATION, "\u0665s", "FLB-C020", ""),
        (DURATION, "9" * 40 + "s", "FLB-C020", ""),
        (DURATION, "5s\n", "FLB-C020", "5s"),
        (DURATION, 1.5, "FLB-C014", ""),
        (DURATION, True, "FLB-C014", ""),
        (DURATION, [], "FLB-C014", ""),
        (DURATION, "9ms", "FLB-C015", ""),
        (DURATION, "121m", "FLB-C015", ""),
        (SIZE, "16KB", "FLB-C021", "16KiB"),
        (SIZE, "16k", "FLB-C021", "16KiB"),
        (SIZE, "16", "FLB-C021", "16B"),
        (SIZE, 64, "FLB-C021", "64B"),
        (SIZE, "1TiB", "FLB-C021", ""),
        (SIZE, "0B", "FLB-C015", ""),
        (SIZE, "2GiB", "FLB-C015", ""),
    ],
)
def test_quantity_refused(form: Duration | Size, value: object, code: str, meant: str) -> None:
    with pytest.raises(Invalid) as caught:
        form.read(value)
    assert caught.value.message.code == code
    assert (f'(did you mean "{meant}"?)' in str(caught.value)) == bool(meant)


@given(st.integers(0, 10**12), st.sampled_from([MILLISECONDS, BYTES]))
def test_quantity_round_trip(value: int, factors: dict[str, int]) -> None:
    assert quantity(written_quantity(value, factors), factors) == value


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("10.0.0.1:8080", "10.0.0.1", 8080),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[::]:65535", "::", 65535),
    ],
)
def test_inet(text: str, ip: str, port: int) -> None:
    address = Inet().read(text)
    assert address == InetAddress(ipaddress.ip_address(ip), port)
    assert Inet().write(address) == quoted(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("10.0.0.1", "FLB-C023"),
        ("[::1]", "FLB-C023"),
        ("::1", "FLB-C023"),
        ("2001:db8::1:80", "FLB-C023"),
        ("10.0.0.1:0", "FLB-C024"),
        ("10.0.0.1:65536", "FLB-C024"),
        ("10.0.0.1:", "FLB-C024"),
        ("10.0.0.1:+80", "FLB-C024"),
        ("10.0.0.1:80\n", "FLB-C022"),
        ("10.0.0.1:\u0668\u0660", "FLB-C024"),
        ("10.0.0:80", "FLB-C022"),
        ("010.0.0.1:80", "FLB-C022"),
        ("[10.0.0.1]:80", "FLB-C022"),
        ("[fe80::1%eth0]:80", "FLB-C022"),
        ("localhost:80", "FLB-C022"),
        (":80", "FLB-C022"),
        ("", "FLB-C022"),
        ("unix:/run/x.sock", "FLB-C022"),
    ],
)
def test_inet_refused(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        Inet().read(text)
    assert caught.value.message.code == code


def test_listen_unix() -> None:
    path = "/" + "x" * 106
    assert Listen().read(f"unix:{path}") == UnixAddress(path)
    assert Listen().write(UnixAddress("/run/a")) == '"unix:/run/a"'


@pytest.mark.parametrize("path", ["", "run/a", "/" + "x" * 107, "/a\0b"])
def test_listen_unix_refused(path: str) -> None:
    with pytest.raises(Invalid):
        Listen().read(f"unix:{path}")


def test_network() -> None:
    assert Networks().read("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert Networks().read("::1") == ipaddress.ip_network("::1/128")
    with pytest.raises(Invalid, match=r'did you mean "10\.0\.0\.0/8"'):
        Networks().read("10.1.2.3/8")
    with pytest.raises(Invalid, match="is not a network"):
        Networks().read("10.0.0.0/33")


ANY_KEY = Key("header", "cookie", "query", "path", "host", "sni", "source", "source+destination")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("header:X-User", [("header", "X-User")]),
        ("path:2", [("path", "2")]),
        ("host", [("host", "")]),
        ("source+destination", [("source", ""), ("destination", "")]),
        (["source", "header:User-Agent"], [("source", ""), ("header", "User-Agent")]),
    ],
)
def test_key(value: object, parts: list[tuple[str, str]]) -> None:
    assert ANY_KEY.read(value) == tuple(parts)


@pytest.mark.parametrize(
    "value",
    [
        "header",
        "header:",
        "header:X User",
        "host:x",
        "path:0",
        "path:x",
        "souce",
        "",
        [],
        [[]],
        7,
        "destination",
        "cookie:a;b",
        "query:a&b",
    ],
)
def test_key_refused(value: object) -> None:
    with pytest.raises(Invalid):
        ANY_KEY.read(value)


@pytest.mark.parametrize("value", [
    "header:X-User", "host", ["source", "header:User-Agent"], "source+destination",
    ["source+destination", "cookie:a"], ["query:s[]%5B?/", "source+destination", "source"],
])  # fmt: skip
def test_a_key_is_written_as_it_is_read(value: str | list[str]) -> None:
    written = ANY_KEY.write(ANY_KEY.read(value))
    assert tomllib.loads(f"on = {written}")["on"] == value


@pytest.mark.parametrize("name", ["a b", "a&b", "a=b", "a#b", "é", "a\n"])
def test_a_name_that_no_query_has(name: str) -> None:
    with pytest.raises(Invalid):
        ANY_KEY.read(f"query:{name}")


def test_key_of_too_many_parts() -> None:
    assert len(ANY_KEY.read(["host"] * 16)) == 16
    with pytest.raises(Invalid, match="a key of 17 parts"):
        ANY_KEY.read(["source+destination", *["host"] * 15])


def test_key_of_one_place_only() -> None:
    learn = Key("header", "cookie", many=False)
    assert learn.read("cookie:SID") == (KeyPart("cookie", "SID"),)
    with pytest.raises(Invalid):
        learn.read(["cookie:SID"])
    with pytest.raises(Invalid):
        learn.read("source+destination")


def test_workers() -> None:
    form = Workers(64, auto=lambda: 7)
    assert form.read("auto") == 7
    assert form.read(64) == 64
    for wrong in (0, 65, True, "two", 1.0):
        with pytest.raises(Invalid):
            form.read(wrong)


def test_a_pattern_matches_the_whole_text() -> None:
    with pytest.raises(Invalid):
        Pattern("[a-z]+", "letters").read("abc\n")
