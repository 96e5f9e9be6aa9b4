"""The regions of the segment, and what happens to a session cache whose size changes."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from fastlb import segment as module
from fastlb._core import rule_shared
from fastlb._core._testing_session_cache import Probe
from fastlb._core.shm import SharedMemoryError
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.errors import StartError
from fastlb.segment import SharedSegment

LIMITS = (Path(__file__).parents[1] / "fastlb/_core/limits.pxd").read_text()


def config(classes: str) -> Config:
    text = '[virtual_servers.a]\nlisten = "127.0.0.1:80"\npool = "web"\n'
    text += f'[pools.web]\nnodes = ["127.0.0.1:81"]\n{classes}'
    found = check_text(text, Path("x")).config
    assert found is not None
    return found


def ip(size: int, name: str = "c") -> str:
    return f'[persistence."{name}"]\ntype = "ip"\nsize = {size}\n'


@pytest.fixture
def shared():
    one = SharedSegment(2)
    yield one
    one.close()


def names(shared: SharedSegment) -> set[str]:
    return {name for name, *_ in shared.segment.regions()}


def test_bounds_are_those_of_the_core() -> None:
    core = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", LIMITS)}
    assert core["TICK_MS"] == module.TICK_MS
    assert core["SHM_NAME_BYTES_MAX"] == module.REGION_NAME_BYTES_MAX


def test_regions_of_nodes_workers_and_classes(shared: SharedSegment) -> None:
    cfg = config(ip(100) + '[persistence.d]\ntype = "transparent"\n')
    stores = shared.prepare(cfg)
    assert names(shared) == {"nodes", "worker.0", "worker.1", "class.c", "reserve.d"}
    assert stores.caches["c"].cache.stats(0).size == 100
    assert stores.reservations["d"].size == 4096
    offset, count = stores.caches["c"].place
    assert shared.segment.find("class.c") == (offset, count)


def test_a_class_without_reservations_has_no_region(shared: SharedSegment) -> None:
    shared.prepare(config('[persistence.d]\ntype = "transparent"\nreserve = "0s"\n'))
    assert "reserve.d" not in names(shared)


def test_what_did_not_change_is_kept(shared: SharedSegment) -> None:
    first = shared.prepare(config(ip(100)))
    assert shared.adopt(first) == set()
    again = shared.prepare(config(ip(100) + ip(50, "e")))
    assert again.caches["c"] is first.caches["c"]
    assert shared.adopt(again) == set()


def test_another_size_is_another_region_and_the_maps_move(
    shared: SharedSegment, tmp_path: Path
) -> None:
    stores = shared.prepare(config(ip(100)))
    shared.adopt(stores)
    old = stores.caches["c"]
    probe = Probe(shared.segment, "class.c")
    for number in range(50):
        probe.store(number, number, shared.now())
    new = shared.prepare(config(ip(200)))
    assert new.caches["c"].region == "class.c#1"
    shared.copy_maps(old, new.caches["c"], tmp_path, "c")
    assert new.caches["c"].cache.stats(shared.now()).entries == 50
    assert {row.key for row in new.caches["c"].cache.entries(0)} == {
        row.key for row in old.cache.entries(0)
    }
    assert shared.adopt(new) == {"class.c"}
    assert list(tmp_path.iterdir()) == []
    shared.remove(["class.c"])
    assert "class.c" not in names(shared)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ('type = "universal"\nkey = "header:X"', 'type = "j2ee"', "class"),
        ('type = "transparent"', 'type = "cookie"\ncookie = "SID"', "reserve"),
    ],
)
def test_another_type_is_another_region(
    shared: SharedSegment, before: str, after: str, kind: str
) -> None:
    shared.adopt(shared.prepare(config(f"[persistence.c]\n{before}\n")))
    changed = shared.prepare(config(f"[persistence.c]\n{after}\n"))
    assert changed.regions() == {f"{kind}.c#1"}
    assert shared.adopt(changed) == {f"{kind}.c"}


def test_a_discarded_preparation_leaves_nothing(shared: SharedSegment) -> None:
    shared.adopt(shared.prepare(config(ip(100))))
    before = names(shared)
    shared.discard(shared.prepare(config(ip(200) + ip(30, "e"))))
    assert names(shared) == before


def test_the_longest_name_has_a_region(shared: SharedSegment) -> None:
    long = "n" * 63
    shared.prepare(config(ip(16, long) + ip(16, long[:-1] + "m")))
    assert len([name for name in names(shared) if name.startswith("class.")]) == 2


def test_memory_that_cannot_be_had_is_one_line(
    shared: SharedSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = module.Cache.create

    class Short:
        bytes_for = staticmethod(module.Cache.bytes_for)

        @staticmethod
        def create(*arguments: object) -> object:
            if arguments[1] == "class.e":
                raise SharedMemoryError("only 5 bytes of memory are available")
            return create(*arguments)

    monkeypatch.setattr(module, "Cache", Short)
    with pytest.raises(StartError) as caught:
        shared.prepare(config(ip(100) + ip(50, "e")))
    assert caught.value.lines == ["only 5 bytes of memory are available [FLB-S023]"]
    assert "class.c" not in names(shared)


def test_the_clock_counts_ticks_from_the_segments_start(shared: SharedSegment) -> None:
    assert shared.now() < 100
    shared.epoch_ms -= 250
    assert 2 <= shared.now() < 102


def with_rules(entries: int = 65536) -> Config:
    """No rule is loaded: a configuration that names one is enough here."""
    cfg = config("")
    servers = {
        name: structs.replace(server, rules=("m:f",))
        for name, server in cfg.virtual_servers.items()
    }
    rules = structs.replace(cfg.rules, shared=entries)
    return structs.replace(cfg, virtual_servers=servers, rules=rules)


def test_rules_tables_are_there_when_a_rule_is(shared: SharedSegment) -> None:
    assert shared.prepare(config("")).shared_place == (0, 0)
    stores = shared.prepare(with_rules())
    assert shared.segment.find("rules.shared") == stores.shared_place
    assert stores.shared is not None
    assert stores.shared.size == 65536
    shared.discard(stores)
    assert "rules.shared" not in names(shared)


def test_rules_tables_are_kept_over_reloads(shared: SharedSegment) -> None:
    first = shared.prepare(with_rules())
    assert shared.adopt(first) == set()
    again = shared.prepare(with_rules())
    assert again.shared is first.shared
    assert shared.adopt(again) == set()
    assert shared.adopt(shared.prepare(config(""))) == {"rules.shared"}


def test_rules_tables_of_another_size_have_the_same_entries(shared: SharedSegment) -> None:
    first = shared.prepare(with_rules())
    shared.adopt(first)
    assert first.shared is not None
    first.shared.use()
    try:
        table = rule_shared.shared("t")
        table.incr("a", 5)
        second = shared.prepare(with_rules(2000))
        assert second.shared is not None
        shared.copy_shared(second)
        assert shared.adopt(second) == {"rules.shared"}
        assert second.shared.use()
        shared.remove({"rules.shared"})
        assert table.incr("a") == 6
        shared.copy_shared(second)  # of the same region: nothing happens
        assert second.shared.stats() == (1, 0)
    finally:
        rule_shared.use_none()
