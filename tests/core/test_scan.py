"""The scanners: every version stops at the same byte, and none reads past the end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_head as core

ALLOWED = {
    "name": set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
    "value": {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)),
    "target": set(range(0x21, 0x7F)) - set(b"#"),
    "pair": set(range(0x100)) - set(b";,"),
}
VERSIONS = ("plain", "sse2")


def expected_stop(kind: str, data: bytes, start: int) -> int:
    return next((i for i in range(start, len(data)) if data[i] not in ALLOWED[kind]), len(data))


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_byte_at_every_place(kind: str, version: str) -> None:
    filler = b"a" * 40
    for byte in range(256):
        for place in (0, 1, 15, 16, 17, 31, 39):
            data = filler[:place] + bytes([byte]) + filler[place:39]
            assert core.scan(kind, version, data) == expected_stop(kind, data, 0)


@pytest.mark.parametrize("version", ["plain", "stops"])
def test_every_byte_stops_values(version: str) -> None:
    for byte in range(256):
        for place in (0, 1, 63, 64, 70, 130, 599):
            data = b"a" * place + bytes([byte]) + b"a" * (599 - place)
            wanted = [] if byte in ALLOWED["value"] else [place]
            assert core.stops(version, data) == wanted


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 300, 1000])
@pytest.mark.parametrize("kind", ALLOWED)
def test_runs_to_the_end(kind: str, size: int) -> None:
    assert {core.scan(kind, version, b"x" * size) for version in VERSIONS} == {size}
    assert core.stops("stops", b"x" * size) == []


texts = st.one_of(
    st.binary(max_size=700),
    st.lists(
        st.sampled_from(
            [
                b"a",
                b"bb-cc",
                b"\t",
                b"\r\n",
                b"\x7f",
                b"\xff",
                b";",
                b",",
                b"#",
                b"x" * 70,
                b"y" * 300,
            ]
        ),
        max_size=20,
    ).map(b"".join),
)


@given(data=texts, start=st.integers(0, 64))
@settings(max_examples=200)
def test_versions_agree(data: bytes, start: int) -> None:
    start = min(start, len(data))
    for kind in ALLOWED:
        wanted = expected_stop(kind, data, start)
        assert {core.scan(kind, version, data, start) for version in VERSIONS} == {wanted}
    wanted_all = [i for i in range(start, len(data)) if data[i] not in ALLOWED["value"]]
    assert core.stops("plain", data, start) == wanted_all
    assert core.stops("stops", data, start) == wanted_all
