"""The workers' counters in shared memory, summed."""

from collections.abc import Callable, Iterable
from typing import Any

from fastlb._core import stats
from fastlb.segment import SharedSegment
from fastlb.slots import Slots, Taken

Counters = dict[str, Any]


class Reader:
    """Sums the workers' counters; those of a slot begin at zero when it is handed out again."""

    def __init__(self, segment: SharedSegment, slots: Slots) -> None:
        self.segment = segment
        self.slots = slots
        self._before: dict[tuple[str, int], Counters] = {}

    def begin(self, taken: Taken) -> None:
        """Notes where the counters of newly taken slots stand."""
        for key in taken.nodes:
            self._note("node", self.slots.nodes.used[key])
        for name in taken.pools:
            self._note("pool", self.slots.pools.used[name])
        for name in taken.classes:
            self._note("class", self.slots.classes.used[name])
        for name in taken.virtual_servers:
            self._note("virtual_server", self.slots.virtual_servers.used[name])
        for name in taken.rules:
            self._note("rule", self.slots.rules.used[name])

    def node(self, slot: int) -> Counters:
        return self._since("node", slot)

    def pool(self, slot: int) -> Counters:
        return self._since("pool", slot)

    def persistence(self, slot: int) -> Counters:
        return self._since("class", slot)

    def virtual_server(self, slot: int) -> Counters:
        return self._since("virtual_server", slot)

    def rule(self, slot: int) -> Counters:
        return self._since("rule", slot)

    def worker(self, index: int) -> Counters:
        return stats.read_worker(self.segment.address(self.segment.counters[index]))

    def noted(self) -> list[tuple[str, int, Counters]]:
        """What `begin` has noted, for another control process."""
        return [(kind, slot, counters) for (kind, slot), counters in self._before.items()]

    def restore(self, noted: Iterable[tuple[str, int, Counters]]) -> None:
        """Goes on as another control process did."""
        self._before = {(kind, slot): counters for kind, slot, counters in noted}

    def _note(self, kind: str, slot: int) -> None:
        counters = self._sum(kind, slot)
        self._before.pop((kind, slot), None)
        if not _is_zero(counters):
            self._before[kind, slot] = counters

    def _since(self, kind: str, slot: int) -> Counters:
        now = self._sum(kind, slot)
        before = self._before.get((kind, slot))
        return now if before is None else combined(now, before, lambda a, b: max(a - b, 0))

    def _sum(self, kind: str, slot: int) -> Counters:
        read: Callable[[list[int], int], Counters] = getattr(stats, f"read_{kind}")
        return read([self.segment.address(offset) for offset in self.segment.counters], slot)


def _is_zero(reading: Any) -> bool:
    if isinstance(reading, dict):
        return all(map(_is_zero, reading.values()))
    if isinstance(reading, list):
        return all(map(_is_zero, reading))
    return not reading


def combined(left: Any, right: Any, with_: Callable[[int, int], int]) -> Any:
    """Two readings of the same shape, number by number."""
    if isinstance(left, dict):
        return {key: combined(left[key], right[key], with_) for key in left}
    if isinstance(left, list):
        return [combined(a, b, with_) for a, b in zip(left, right, strict=True)]
    return with_(left, right)
