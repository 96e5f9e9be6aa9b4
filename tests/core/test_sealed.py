"""Encrypted cookie values: every form comes back, nothing else is taken, and most cost no AES."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_sealed import acquisitions, decrypt, seal, unseal

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def passphrase(number: int) -> tuple[bytes, bytes]:
    """Keys as they come from a passphrase."""
    return bytes(range(number, number + 64)), bytes(range(number + 64, number + 80))


OLD, NEW, THIRD = passphrase(1), passphrase(2), passphrase(3)

addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(1 << 100, 2**128 - 1)
)
words = st.integers(0, 2**32 - 1)
dates = st.just((0, 0)) | st.tuples(words, words)
FORMS = [
    seal([NEW], ip, 8080, 0xDEADBEEF, *seen)
    for ip in ("192.0.2.1", "2001:db8::1")
    for seen in ((), (1800000000, 1800000100))
]


def text_of(ip, port: int) -> str:
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


@given(addresses, st.integers(0, 65535), words, dates)
def test_round_trip(ip, port: int, cls: int, seen: tuple[int, int]) -> None:
    text = seal([NEW, OLD], str(ip), port, cls, *seen)
    assert unseal([NEW, OLD], text) == (0, text_of(ip, port), cls, *seen)
    assert unseal([THIRD, OLD, NEW], text) == (2, text_of(ip, port), cls, *seen)
    assert set(text.decode()) <= set(ALPHABET)


def test_the_four_forms_have_four_lengths() -> None:
    assert [len(text) for text in FORMS] == [47, 58, 63, 74]


def test_it_is_the_cipher_text_of_what_the_documentation_says() -> None:
    data = urlsafe_b64decode(FORMS[1] + b"==")
    plain = decrypt(NEW[0], data[8:])
    assert plain == bytes.fromhex("02 efbeadde 901f c0000201 00d2496b 64d2496b")


def test_one_node_has_one_value_and_the_first_passphrase_makes_it() -> None:
    text = seal([NEW, OLD], "192.0.2.1", 80, 1)
    assert seal([NEW], "192.0.2.1", 80, 1) == text
    assert seal([OLD, NEW], "192.0.2.1", 80, 1) != text


@pytest.mark.parametrize("keys", [[], [OLD], [OLD, THIRD]])
@pytest.mark.parametrize("known", [False, True])
def test_a_passphrase_that_is_not_there_any_more_reads_nothing(keys: list, known: bool) -> None:
    text = seal([NEW], "192.0.2.1", 81, 1 + known)
    if known:
        assert unseal([NEW], text) is not None
    assert unseal(keys, text) is None
    assert unseal([*keys, NEW], text) == (len(keys), "192.0.2.1:81", 1 + known, 0, 0)


@given(st.integers(0, 3), st.integers(0, 73), st.integers(0, 255))
@settings(max_examples=400)
def test_no_single_byte_change_is_ever_accepted(form: int, at: int, byte: int) -> None:
    text = FORMS[form]
    at %= len(text)
    changed = text[:at] + bytes([byte]) + text[at + 1 :]
    assert (unseal([NEW, OLD], changed) is None) == (changed != text)


@pytest.mark.parametrize("text", FORMS)
def test_no_changed_character_is_taken(text: bytes) -> None:
    for at in range(len(text)):
        for byte in ALPHABET.encode():
            changed = text[:at] + bytes([byte]) + text[at + 1 :]
            assert (unseal([NEW], changed) is None) == (changed != text)


@pytest.mark.parametrize("text", FORMS)
def test_no_changed_bit_part_or_extension_is_taken(text: bytes) -> None:
    data = urlsafe_b64decode(text + b"==="[: -len(text) % 4])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert unseal([NEW], urlsafe_b64encode(changed).rstrip(b"=")) is None
    for count in range(len(text)):
        assert unseal([NEW], text[:count]) is None
        assert unseal([NEW], text[count + 1 :]) is None
    for more in (b"A", b"=", b"A" * 5, b"A" * 11, b"A" * 16, b"A" * 27, text, b"A" * 10000):
        assert unseal([NEW], text + more) is None
        assert unseal([NEW], more + text) is None


@given(st.binary(max_size=90) | st.text(ALPHABET, min_size=47, max_size=74).map(str.encode))
def test_what_nobody_made_is_not_taken(text: bytes) -> None:
    assert unseal([NEW, OLD], text) is None


def test_a_known_value_and_one_just_made_cost_no_encryption() -> None:
    text = seal([NEW], "198.51.100.1", 80, 77)
    before = acquisitions()
    for _ in range(50):
        assert seal([NEW], "198.51.100.1", 80, 77) == text
        assert unseal([OLD, NEW], text) == (1, "198.51.100.1:80", 77, 0, 0)
    assert acquisitions() == before


def test_an_unknown_value_is_decrypted_once() -> None:
    text = seal([NEW], "198.51.100.2", 80, 78)
    for port in range(40000):  # so many that the place is somebody else's now
        seal([NEW], "198.51.100.2", port, 79)
    before = acquisitions()
    assert unseal([NEW], text) == (0, "198.51.100.2:80", 78, 0, 0)
    assert acquisitions() == before + 1
    assert unseal([NEW], text) == (0, "198.51.100.2:80", 78, 0, 0)
    assert acquisitions() == before + 1


def test_a_flood_of_wrong_values_takes_no_gil_and_displaces_nothing() -> None:
    good = [seal([NEW], "198.51.100.3", port, 80) for port in range(50)]
    seen = [unseal([NEW], text) for text in good]
    known = [text for text in good if _is_known(text)]  # two may have the same place
    assert len(known) > 40
    before = acquisitions()
    for number in range(10000):
        wrong = urlsafe_b64encode(number.to_bytes(35, "big")).rstrip(b"=")
        assert unseal([NEW, OLD], wrong) is None
        forged = bytearray(good[number % 50])
        forged[number % 47] ^= 1 + number % 3
        assert unseal([NEW, OLD], bytes(forged)) is None
    assert all(map(_is_known, known))
    assert acquisitions() == before
    assert [unseal([NEW], text) for text in good] == seen


def _is_known(text: bytes) -> bool:
    before = acquisitions()
    assert unseal([NEW], text) is not None
    return acquisitions() == before


def test_a_right_mark_before_what_the_cipher_refuses() -> None:
    """Who has the mark's key alone makes no value."""
    other = (bytes(64), NEW[1])
    text = seal([other], "198.51.100.4", 80, 81)
    # Its entry among the known ones would answer: both keys of a passphrase come together.
    for port in range(40000):
        seal([OLD], "198.51.100.4", port, 82)
    before = acquisitions()
    assert unseal([NEW], text) is None
    assert acquisitions() == before + 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.booleans()), max_size=60))
@settings(max_examples=40)
def test_tables_against_a_model(steps: list[tuple[int, int, bool]]) -> None:
    keys = [NEW, OLD, THIRD]
    made: dict[bytes, tuple] = {}
    for number, port, forget in steps:
        key = number % 3
        text = seal([keys[key]], "203.0.113.1", port, number)
        meaning = (f"203.0.113.1:{port}", number, 0, 0)
        assert made.setdefault(text, (key, *meaning)) == (key, *meaning)
        for known, (owner, *rest) in list(made.items())[-5:]:
            left = [one for one in keys if not forget or one is not keys[owner]]
            assert unseal(left, known) == (None if forget else (owner, *rest))
