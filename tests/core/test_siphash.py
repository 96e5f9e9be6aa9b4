"""SipHash-2-4 against the published vectors, a plain implementation, and itself in parts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_siphash import hash64, hash128, hash_parts
from fastlb._core.siphash import keyed_hash

# The authors' test vectors: key 00..0f, input 00..(n-1) for the n-th line.
KEY = bytes(range(16))
VECTORS_64 = """
310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785
b7877127e09427cf 8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab
6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1
"""
VECTORS_128 = """
a3817f04ba25a8e66df67214c7550293 da87c1d86b99af44347659119b22fc45
8177228da4a45dc7fca38bdef60affe4 9c70b60c5267a94e5f33b6b02985ed51
f88164c12d9c8faf7d0f6e7c7bcd5579 1368875980776f8854527a07690e9627
14eeca338b208613485ea0308fd7a15e a1f1ebbed8dbc153c0b84aa61ff08239
3b62a9ba6258f5610f83e264f31497b4 264499060ad9baabc47f8b02bb6d71ed
00110dc378146956c95447d3f3d0fbba 0151c568386b6677a2b4dc6f81e5dc18
d626b266905ef35882634df68532c125 9869e247e9c08b10d029934fc4b952f7
31fcefac66d7de9c7ec7485fe4494902 5493e99933b0a8117e08ec0f97cfc3d9
"""

MASK = (1 << 64) - 1


def plain_siphash(key: bytes, data: bytes, wide: bool) -> bytes:
    """The paper's description, line by line: the judge of the fast one."""
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]
    if wide:
        v[1] ^= 0xEE

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, turn in ((0, 1, 13), (2, 3, 16)):
                v[a] = (v[a] + v[b]) & MASK
                v[b] = ((v[b] << turn | v[b] >> (64 - turn)) & MASK) ^ v[a]
            v[0] = (v[0] << 32 | v[0] >> 32) & MASK
            for a, b, turn in ((2, 1, 17), (0, 3, 21)):
                v[a] = (v[a] + v[b]) & MASK
                v[b] = ((v[b] << turn | v[b] >> (64 - turn)) & MASK) ^ v[a]
            v[2] = (v[2] << 32 | v[2] >> 32) & MASK

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE if wide else 0xFF
    rounds(4)
    out = (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    if wide:
        v[1] ^= 0xDD
        rounds(4)
        out += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return out


@pytest.mark.parametrize("count", range(16))
def test_published_vectors(count: int) -> None:
    data = bytes(range(count))
    assert hash64(KEY, data).hex() == VECTORS_64.split()[count]
    assert hash128(KEY, data).hex() == VECTORS_128.split()[count]
    assert plain_siphash(KEY, data, False).hex() == VECTORS_64.split()[count]
    assert plain_siphash(KEY, data, True).hex() == VECTORS_128.split()[count]


@given(key=st.binary(min_size=16, max_size=16), data=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_equals_the_plain_implementation(key: bytes, data: bytes) -> None:
    assert hash64(key, data) == plain_siphash(key, data, False)
    assert hash128(key, data) == plain_siphash(key, data, True)


@pytest.mark.parametrize("offset", range(1, 9))
def test_unaligned_input(offset: int) -> None:
    data = bytes(range(200, 256))
    assert hash128(KEY, bytes(offset) + data, offset) == hash128(KEY, data)
    assert hash64(KEY, bytes(offset) + data, offset) == hash64(KEY, data)


@given(parts=st.lists(st.binary(max_size=30), max_size=12))
@settings(max_examples=100, deadline=None)
def test_parts_equal_the_whole(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert hash_parts(KEY, list(parts), True) == hash128(KEY, whole)
    assert hash_parts(KEY, list(parts), False) == hash64(KEY, whole)


def test_byte_by_byte_equals_the_whole() -> None:
    for count in range(40):
        data = bytes(range(count))
        assert hash_parts(KEY, [bytes([b]) for b in data], True) == hash128(KEY, data)


def test_an_integer_part_is_its_eight_little_endian_bytes() -> None:
    for head in range(9):
        parts = [bytes(head), 0x0102030405060708, b"tail"]
        assert hash_parts(KEY, parts, True) == hash128(
            KEY, bytes(head) + bytes([8, 7, 6, 5, 4, 3, 2, 1]) + b"tail"
        )


def test_every_bit_of_key_and_input_matters() -> None:
    data = bytes(range(20))
    seen = {hash128(KEY, data)}
    for bit in range(128):
        key = (int.from_bytes(KEY, "little") ^ (1 << bit)).to_bytes(16, "little")
        seen.add(hash128(key, data))
    for bit in range(160):
        changed = (int.from_bytes(data, "little") ^ (1 << bit)).to_bytes(20, "little")
        seen.add(hash128(KEY, changed))
    assert len(seen) == 1 + 128 + 160


def test_the_control_planes_edge_is_the_same_hash() -> None:
    assert keyed_hash(KEY, b"") == hash128(KEY, b"")
    assert keyed_hash(KEY, bytes(range(15))) == hash128(KEY, bytes(range(15)))
    with pytest.raises(ValueError, match="16 bytes"):
        keyed_hash(b"short", b"")
