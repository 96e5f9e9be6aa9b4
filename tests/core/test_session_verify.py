"""The structural check: whole caches pass, and damage in any list is found."""

import pytest

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache, CacheDamagedError
from fastlb._core.shm import Segment


def filled(size: int = 64) -> tuple[Segment, Probe]:
    segment = Segment.create(window=1 << 30)
    cache = Probe(segment, "verify", size)
    for number in range(size):
        cache.store(number, number % 3, number)
    return segment, cache


def test_a_whole_cache_passes_full_half_and_empty() -> None:
    segment, cache = filled()
    Cache.open(segment, "verify").verify()
    for number in range(0, 64, 2):
        cache.delete(number)
    Cache.open(segment, "verify").verify()
    cache.flush()
    Cache.open(segment, "verify").verify()


def test_damage_to_the_entries_is_found() -> None:
    """Each entry's links in turn, cut to a wrong place (the last 64 x 64 bytes are entries)."""
    segment, cache = filled()
    image = cache.snapshot()
    start = len(image) - 64 * 64
    found = 0
    for entry in range(64):
        damaged = bytearray(image)
        # Bytes 36..48 of an entry are its three links (session_shard.pxd); 0xFFFFFFF0 is none.
        damaged[start + entry * 64 + 36 : start + entry * 64 + 48] = b"\xf0\xff\xff\xff" * 3
        cache.overwrite(bytes(damaged))
        try:
            Cache.open(segment, "verify").verify()
        except CacheDamagedError:
            found += 1
        finally:
            cache.overwrite(image)
    assert found == 64


def test_the_error_names_the_cache() -> None:
    segment, cache = filled()
    image = bytearray(cache.snapshot())
    image[-64 * 64 :] = bytes(64 * 64)
    cache.overwrite(bytes(image))
    with pytest.raises(CacheDamagedError, match="verify"):
        Cache.open(segment, "verify").verify()
