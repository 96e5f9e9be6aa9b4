"""Session caches against a plain model, near-LRU measured, and every answer of the interface."""

from collections import Counter, OrderedDict
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


def verified(segment: Segment, name: str = "c") -> Cache:
    cache = Cache.open(segment, name)
    cache.verify()
    return cache


class CacheModel(RuleBasedStateMachine):
    """An exact cache of a few maps beside an OrderedDict, the oldest first."""

    SIZE = 6
    EXPIRY = 20
    keys = st.integers(0, 12)
    nodes = st.integers(1, 4)

    def __init__(self) -> None:
        super().__init__()
        self.segment = Segment.create()
        self.probe = Probe(self.segment, "c", self.SIZE)
        self.model: OrderedDict[int, list[int]] = OrderedDict()  # node, used_at, deadline
        self.now = 2**32 - 30  # so that the ticks wrap around in the middle of a run
        self.counts: Counter[str] = Counter(hits=0, misses=0, expiries=0, evictions=0)

    def teardown(self) -> None:
        verified(self.segment)
        self.segment.close()

    def dead(self, key: int, expiry: int) -> bool:
        _, used_at, deadline = self.model[key]
        return bool(
            (expiry and self.now - used_at >= expiry) or (deadline and self.now >= deadline)
        )

    def put(self, key: int, node: int, deadline: int) -> None:
        if key not in self.model and len(self.model) == self.SIZE:
            self.model.popitem(last=False)
            self.counts["evictions"] += 1
        self.model[key] = [node, self.now, deadline]
        self.model.move_to_end(key)

    def tick(self, at: int) -> int:
        return at & 0xFFFFFFFF

    @rule(ticks=st.integers(0, 12))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks

    @rule(key=keys, expiry=st.sampled_from([0, EXPIRY]), renew=st.booleans())
    def lookup(self, key: int, expiry: int, renew: bool) -> None:
        result, node = self.probe.lookup(key, self.tick(self.now), expiry, renew)
        if key not in self.model:
            assert result == "miss"
            self.counts["misses"] += 1
        elif self.dead(key, expiry):
            assert result == "expired"
            if renew:
                self.counts["expiries"] += 1
                del self.model[key]
        else:
            assert (result, node) == ("hit", self.model[key][0])
            self.counts["hits"] += 1
            if renew:
                self.model[key][1] = self.now
                self.model.move_to_end(key)

    @rule(key=keys, node=nodes, life=st.sampled_from([0, 0, 5, 30]))
    def store(self, key: int, node: int, life: int) -> None:
        deadline = self.now + life if life else 0
        deadline += deadline == 2**32  # the one tick that means "none"
        now = self.tick(self.now)
        assert Probe.deadline(now, life) == self.tick(deadline)
        result, previous = self.probe.store(key, node, now, self.tick(deadline))
        if key not in self.model:
            assert result == "new"
        elif self.dead(key, 0):
            assert result == "new"
            self.counts["expiries"] += 1
        elif self.model[key][0] == node:
            assert result == "same"
        else:
            assert (result, previous) == ("moved", self.model[key][0])
        self.put(key, node, deadline)

    @rule(key=keys, node=nodes)
    def claim(self, key: int, node: int) -> None:
        result, holder = self.probe.claim(key, node, self.tick(self.now), self.EXPIRY)
        if key in self.model and not self.dead(key, self.EXPIRY):
            assert (result, holder) == ("hit", self.model[key][0])
            self.put(key, self.model[key][0], self.model[key][2])
            return
        assert result == "new"
        self.counts["expiries"] += key in self.model
        self.put(key, node, 0)

    @rule(key=keys, only=st.one_of(st.none(), nodes))
    def delete(self, key: int, only: int | None) -> None:
        there = key in self.model and only in (None, self.model[key][0])
        assert self.probe.delete(key, only) == ("hit" if there else "miss")
        if there:
            del self.model[key]

    @precondition(lambda self: len(self.model) > 3)
    @rule()
    def flush(self) -> None:
        assert self.probe.flush() == len(self.model)
        self.model.clear()

    @invariant()
    def same_maps_in_the_same_order(self) -> None:
        assert self.probe.order() == [row[0] for row in reversed(self.model.values())]

    @invariant()
    def same_statistics(self) -> None:
        stats = Cache.open(self.segment, "c").stats(self.tick(self.now))
        assert stats.entries == len(self.model)
        assert {name: getattr(stats, name) for name in self.counts} == self.counts
        if self.model:
            assert stats.oldest == self.now - next(iter(self.model.values()))[1]


CacheModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgainstModel = CacheModel.TestCase


def test_sizes_and_memory() -> None:
    assert Cache.bytes_for(0) == 0
    assert Cache.bytes_for(200_000_000) == 0
    assert Cache.bytes_for(1_000_000) <= 100 * 2**20
    for size in (1, 2, 100, 4096, 4097, 32768, 1_000_000, 1_048_577):
        assert Cache.bytes_for(size) % 64 == 0
        assert Cache.bytes_for(size) <= 81 * size + 16384 + 64 * 320


@pytest.mark.parametrize("size", [1, 2, 3, 64, 4096, 4097, 10_000])
def test_exactly_size_maps_fit(segment: Segment, size: int) -> None:
    probe = Probe(segment, "c", size)
    probe.fill(0, size, 5)
    assert verified(segment).stats(5)[:2] == (size, size)
    assert verified(segment).stats(5).evictions == 0
    for number in range(0, size, max(1, size // 50)):
        assert probe.delete(number) == "hit"
        assert probe.store(number, 2, 6) == ("new", None)
    assert verified(segment).stats(6).evictions == 0
    probe.store(size, 1, 6)
    stats = verified(segment).stats(6)
    assert (stats.entries, stats.evictions) == (size, 1)


def test_the_exact_limit_and_the_shards(segment: Segment) -> None:
    assert Probe(segment, "a", 4096).shard_count == 1
    assert Probe(segment, "b", 4097).shard_count == 8
    assert Probe(segment, "c", 1_000_000).shard_count == 64


def test_what_was_freed_in_one_shard_serves_all(segment: Segment) -> None:
    probe = Probe(segment, "c", 5000)
    probe.fill(0, 5000, 1)
    freed = [number for number in range(5000) if probe.shard_of(number) == 3][:40]
    assert [probe.delete(number) for number in freed] == ["hit"] * 40
    others = [number for number in range(9000, 9999) if probe.shard_of(number) != 3][:40]
    assert not set(probe.use(others, 2)) - set(others)
    assert verified(segment).stats(2)[2:] == (1, 0, 40, 0, 0)
    assert verified(segment).stats(2).entries == 5000


def worst_of(errors: list[int], part: float) -> float:
    """The error that `part` of all evictions do not exceed, as a part of the oldest age."""
    seen = 0
    for thousandth, count in enumerate(errors):
        seen += count
        if seen >= part * sum(errors):
            return thousandth / 1000
    raise AssertionError("no evictions")


def test_exact_lru_is_exact(segment: Segment) -> None:
    errors = Probe(segment, "c", 4096).nearness(20_000, 100_000, 50, 1)
    assert errors[0] == sum(errors) > 20_000


def test_near_lru_above_the_exact_limit(segment: Segment) -> None:
    """Evicted maps are those unused for longest, to within a small part of the oldest age."""
    errors = Probe(segment, "c", 100_000).nearness(500_000, 1_000_000, 500, 1)
    assert sum(errors) > 100_000
    assert worst_of(errors, 0.5) <= 0.02
    assert worst_of(errors, 0.99) <= 0.05
    assert worst_of(errors, 1.0) <= 0.10
    verified(segment)


def test_a_busy_map_outlives_a_burst_after_a_quiet_time(segment: Segment) -> None:
    """Busy maps are rarely moved while the cache is old; a burst must not drop them first."""
    size = 8192
    probe = Probe(segment, "c", size)
    probe.fill(0, size, 0)
    busy = list(range(1000))
    for now in range(0, 100_000, 500):
        assert probe.use(busy, now) == []
    for i in range(4):
        probe.fill(10_000 + i * size // 5, size // 5, 100_000 + i)
        assert probe.use(busy, 100_000 + i) == [], i
    verified(segment)


def test_a_hit_within_the_granule_writes_nothing(segment: Segment) -> None:
    probe = Probe(segment, "c", 8192)
    probe.fill(0, 8192, 0)
    probe.lookup(5, 5000)
    probe.lookup(5, 5001)
    before = probe.snapshot()
    assert probe.lookup(5, 5001) == ("hit", 1)
    after = probe.snapshot()
    changed = [at for at in range(len(before)) if before[at] != after[at]]
    assert len(changed) <= 8  # the count of hits, and nothing else


def test_clocks_of_workers_may_differ_a_little(segment: Segment) -> None:
    probe = Probe(segment, "c", 100)
    probe.store(1, 1, 50)
    assert probe.lookup(1, 48, 10) == ("hit", 1)
    assert probe.lookup(1, 59, 10) == ("hit", 1)
    assert probe.lookup(1, 69, 10) == ("expired", None)
    assert probe.lookup(1, 69, 10) == ("miss", None)


def test_two_handles_see_one_cache(segment: Segment) -> None:
    one = Probe(segment, "c", 100)
    with Segment.attach(segment.fd) as other:
        two = Probe(other, "c")
        assert one.claim(1, 7, 1) == ("new", 7)
        assert two.claim(1, 8, 1) == ("hit", 7)


def test_memory_that_is_no_cache_is_refused(segment: Segment) -> None:
    segment.allocate("raw", 1, 100_000)
    with pytest.raises(ValueError, match="open"):
        Probe(segment, "raw")
    with pytest.raises(ValueError, match="not a session cache"):
        Cache.open(segment, "raw")
    with pytest.raises(KeyError):
        Cache.open(segment, "absent")
    with pytest.raises(ValueError, match="cannot have 0 maps"):
        Cache.create(segment, "zero", 0)
