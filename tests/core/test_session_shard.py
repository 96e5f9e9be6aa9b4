"""Shards: one for caches with exact order, several above, and keys spread over them."""

from collections import Counter

from fastlb._core._testing_session_cache import Probe
from fastlb._core.shm import Segment


def probe(size: int) -> Probe:
    return Probe(Segment.create(window=1 << 30), "shards", size)


def test_small_caches_are_one_shard_and_exact() -> None:
    cache = probe(4096)
    assert cache.shard_count == 1
    for number in range(4096):
        cache.store(number, 1, number)
    cache.lookup(0, 5000)
    cache.store(5000, 1, 5001)
    assert cache.lookup(1, 5002, renew=False)[0] != cache.lookup(0, 5002, renew=False)[0]


def test_large_caches_have_several_and_keys_spread_over_all() -> None:
    cache = probe(50_000)
    assert cache.shard_count > 1
    counts = Counter(cache.shard_of(number) for number in range(20_000))
    assert len(counts) == cache.shard_count
    fair = 20_000 / cache.shard_count
    assert all(0.7 * fair < count < 1.3 * fair for count in counts.values())


def test_capacity_is_the_caches_and_not_a_shards() -> None:
    cache = probe(6000)
    for number in range(6000):
        cache.store(number, 1, 1)
    assert len(cache.maps()) == 6000
