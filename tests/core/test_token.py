"""Cookie values: every form comes back, nothing else is taken."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_parts import read_token, token

MAC = bytes(range(16))
STREAM = bytes(range(16, 32))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAPPED = b"\0" * 10 + b"\xff\xff"

addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(0, 2**128 - 1)
)
words = st.integers(0, 2**32 - 1)
dates = st.just((0, 0)) | st.tuples(words, words)


def packed(ip: str) -> bytes:
    address = ip_address(ip)
    return MAPPED + address.packed if address.version == 4 else address.packed


FORMS = [
    token(MAC, STREAM, ip, 8080, 0xDEADBEEF, *seen)
    for ip in ("192.0.2.1", "2001:db8::1")
    for seen in ((), (1800000000, 1800000100))
]


@given(addresses, st.integers(0, 65535), words, dates)
def test_round_trip(ip, port: int, cls: int, seen: tuple[int, int]) -> None:
    text = token(MAC, STREAM, str(ip), port, cls, *seen)
    assert read_token(MAC, STREAM, text) == (packed(str(ip)), port, cls, *seen)
    assert set(text.decode()) <= set(ALPHABET)


def test_lengths_of_the_four_forms() -> None:
    assert [len(text) for text in FORMS] == [36, 47, 52, 63]


def test_one_node_has_one_value_while_there_are_no_dates() -> None:
    assert token(MAC, STREAM, "192.0.2.1", 80, 1) == token(MAC, STREAM, "192.0.2.1", 80, 1)


@given(addresses, addresses)
def test_values_tell_nothing_about_addresses(one, other) -> None:
    text = urlsafe_b64decode(token(MAC, STREAM, str(one), 80, 7) + b"===")
    assert one.packed not in text
    if one.version == other.version and one != other:
        beside = urlsafe_b64decode(token(MAC, STREAM, str(other), 80, 7) + b"===")
        # Neither the tag nor the encrypted part have much in common.
        assert sum(a == b for a, b in zip(text, beside, strict=True)) < len(text) // 2


@pytest.mark.parametrize("text", FORMS)
def test_no_changed_character_is_taken(text: bytes) -> None:
    for at in range(len(text)):
        for byte in {*ALPHABET.encode(), 0, ord("="), ord("+"), ord("/"), ord(" "), 0xFF}:
            changed = text[:at] + bytes([byte]) + text[at + 1 :]
            if changed != text:
                assert read_token(MAC, STREAM, changed) is None


@given(addresses, st.integers(0, 65535), words, dates, st.integers(0, 62), st.integers(0, 255))
def test_no_single_byte_change_is_ever_taken(
    ip, port: int, cls: int, seen: tuple[int, int], at: int, byte: int
) -> None:
    text = token(MAC, STREAM, str(ip), port, cls, *seen)
    at %= len(text)
    changed = text[:at] + bytes([byte]) + text[at + 1 :]
    assert (read_token(MAC, STREAM, changed) is not None) == (changed == text)


@pytest.mark.parametrize("text", FORMS)
def test_no_changed_bit_is_taken(text: bytes) -> None:
    data = urlsafe_b64decode(text + b"==="[: -len(text) % 4])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert read_token(MAC, STREAM, urlsafe_b64encode(changed).rstrip(b"=")) is None


@pytest.mark.parametrize("text", FORMS)
def test_no_part_and_no_extension_is_taken(text: bytes) -> None:
    for count in range(len(text)):
        assert read_token(MAC, STREAM, text[:count]) is None
        assert read_token(MAC, STREAM, text[count + 1 :]) is None
    for more in (b"A", b"AA", b"=", b"==", b"A" * 11, b"A" * 16, b"A" * 27, text, b"A" * 10000):
        assert read_token(MAC, STREAM, text + more) is None
        assert read_token(MAC, STREAM, more + text) is None


@pytest.mark.parametrize("one", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_tag_of_one_with_the_rest_of_another_is_not_taken(one: bytes, other: bytes) -> None:
    if one != other:
        # The tag is the first 16 bytes: 21 characters and a part of the 22nd.
        for at in (16, 20, 21, 22, 23, 24):
            assert read_token(MAC, STREAM, one[:at] + other[at:]) is None


@given(st.binary(max_size=80) | st.text(ALPHABET, min_size=36, max_size=63).map(str.encode))
def test_what_nobody_made_is_not_taken(text: bytes) -> None:
    assert read_token(MAC, STREAM, text) is None


@settings(max_examples=50)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.booleans())
def test_other_keys_are_not_taken(mac: bytes, stream: bytes, known: bool) -> None:
    for text in FORMS:
        if known:
            assert read_token(MAC, STREAM, text) is not None
        if mac != MAC:
            assert read_token(mac, STREAM, text) is None
        if stream != STREAM:
            assert read_token(MAC, stream, text) is None
        if mac != MAC and stream != STREAM:
            assert read_token(mac, stream, text) is None
    assert read_token(STREAM, MAC, FORMS[0]) is None


@pytest.mark.parametrize("text", FORMS)
def test_a_known_value_is_no_other_one(text: bytes) -> None:
    """Values that were read before are found without their hash: only just these."""
    first = read_token(MAC, STREAM, text)
    assert read_token(MAC, STREAM, text) == first
    for length in (36, 47, 52, 63):
        if length != len(text):
            assert read_token(MAC, STREAM, (text + bytes(63))[:length]) is None
    assert read_token(bytes(16), bytes(16), bytes(len(text))) is None
    # Many others, which fall into the same places of the table.
    others = [token(MAC, STREAM, "198.51.100.7", port, 5) for port in range(2000)]
    for port, other in enumerate(others):
        assert read_token(MAC, STREAM, other)[1:3] == (port, 5)
        assert read_token(MAC, STREAM, other)[1:3] == (port, 5)
    assert read_token(MAC, STREAM, text) == first


def test_bits_that_no_writer_sets_are_refused() -> None:
    # 35 bytes leave two bits in the last of 47 characters.
    text = FORMS[1].decode()
    last = ALPHABET.index(text[-1])
    assert last % 4 == 0
    for bits in (1, 2, 3):
        other = text[:-1] + ALPHABET[last + bits]
        assert read_token(MAC, STREAM, other.encode()) is None
