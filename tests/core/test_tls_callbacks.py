"""The core's answers to the TLS library; what they do in handshakes is in test_tls_contexts.py."""

import ctypes

import pytest

from fastlb import tls_addresses
from fastlb._core.tls_callbacks import Staple, select_protocol_address, staple_address

tls_addresses.load()
OK, ALERT_FATAL, NONE = 0, 2, 3
SELECT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_ubyte), ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p,
)(select_protocol_address())  # fmt: skip


def select(offered: bytes) -> tuple[int, bytes]:
    """What the library is told of this list of names."""
    chosen, length = ctypes.c_void_p(), ctypes.c_ubyte()
    result = SELECT(None, chosen, length, offered, len(offered), None)
    return result, ctypes.string_at(chosen, length.value) if result == OK else b""


def names(*several: bytes) -> bytes:
    return b"".join(bytes((len(name),)) + name for name in several)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (names(b"http/1.1"), b"http/1.1"),
        (names(b"http/1.0", b"http/1.1"), b"http/1.1"),
        (names(b"h2", b"http/1.0"), b"http/1.0"),
        (names(b"a" * 255, b"", b"http/1.1"), b"http/1.1"),
    ],
)
def test_a_protocol_of_ours_is_chosen(offered: bytes, chosen: bytes) -> None:
    assert select(offered) == (OK, chosen)


@pytest.mark.parametrize(
    "offered",
    [
        b"", b"\0", b"\x08", names(b"h2"), names(b"http/1.1x"), names(b"xhttp/1.1"),
        b"\x09http/1.1", b"\x08http/1.", b"\xff" + names(b"http/1.1"), b"\x03h2\x08http/1.1",
    ],
)  # fmt: skip
def test_all_else_is_an_alert(offered: bytes) -> None:
    """Also lists whose lengths do not add up, which the library never hands over."""
    assert select(offered) == (ALERT_FATAL, b"")


def test_without_a_response_nothing_is_stapled() -> None:
    staple = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(staple_address())
    assert staple(None, None) == NONE
    assert staple(None, Staple(b"old", 1).address) == NONE


def test_responses_have_places_of_their_own() -> None:
    several = [Staple(bytes(size), 0) for size in (1, 100, 65536)]
    assert len({one.address for one in several}) == 3
