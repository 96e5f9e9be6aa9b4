"""The control plane's view of a session cache, and its state file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlb._core import session_store
from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache, StateFileError
from fastlb._core.shm import Segment

SECRET = b"secret's mark 16"


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    wall = [1_000_000.0]
    monkeypatch.setattr(session_store.time, "time", lambda: wall[0])
    return wall


def saved(segment: Segment, path: Path, size: int = 100, maps: int = 60) -> Probe:
    """A cache of `maps` maps, used at ticks 0, 1, 2 …, saved at tick 1000."""
    probe = Probe(segment, "old", size)
    for number in range(maps):
        probe.store(number, number, number)
    assert Cache.open(segment, "old").save(path, "shop", 1000, SECRET) == maps
    return probe


def test_entries_show_hash_node_and_ages(segment: Segment) -> None:
    cache = Cache.create(segment, "c", 100)
    probe = Probe(segment, "c")
    probe.store(1, 1, 10, 200)
    probe.store(2, 2, 20)
    probe.lookup(1, 30)
    rows = sorted(cache.entries(50), key=lambda row: row.idle)
    assert [row.key for row in rows] == [Probe.key_bytes(1), Probe.key_bytes(2)]
    assert [(row.idle, row.age, row.remaining) for row in rows] == [(20, 40, 150), (30, 30, None)]
    assert [row.port for row in rows] == [8, 15]


def test_delete_by_hash_and_by_node(segment: Segment) -> None:
    cache = Cache.create(segment, "c", 100)
    probe = Probe(segment, "c")
    for number in range(30):
        probe.store(number, number % 3, 1)
    assert cache.delete(Probe.key_bytes(0))
    assert not cache.delete(Probe.key_bytes(0))
    row = next(row for row in cache.entries(1) if row.key == Probe.key_bytes(1))
    assert cache.delete_address(row.ip, row.port + 1) == 0
    assert cache.delete_address(row.ip, row.port) == 10
    other = next(cache.entries(1))
    removed = cache.delete_address(other.ip)
    assert removed in (9, 10)
    assert cache.flush() == 19 - removed
    assert cache.stats(1).entries == 0
    cache.verify()
    with pytest.raises(ValueError, match="16 bytes"):
        cache.delete(b"short")


def test_ipv4_addresses_look_like_ipv4(segment: Segment, tmp_path: Path) -> None:
    cache = Cache.create(segment, "c", 10)
    probe = Probe(segment, "c")
    probe.store_ipv4(5, bytes([192, 0, 2, 1]), 80, 1)
    assert [(row.ip, row.port) for row in cache.entries(1)] == [("192.0.2.1", 80)]
    assert cache.delete_address("192.0.2.1", 80) == 1


def test_the_order_survives_saving(segment: Segment, tmp_path: Path) -> None:
    old = saved(segment, tmp_path / "maps")
    old.lookup(7, 1000)
    Cache.open(segment, "old").save(tmp_path / "maps", "shop", 1000, SECRET)
    new = Probe(segment, "new", 100)
    assert Cache.open(segment, "new").load(tmp_path / "maps", "shop", 5000, SECRET) == 60
    assert new.order() == old.order()
    Cache.open(segment, "new").verify()


def test_ages_go_on_while_the_proxy_is_down(
    segment: Segment, tmp_path: Path, clock: list[float]
) -> None:
    probe = Probe(segment, "old", 100)
    probe.store(1, 1, 0)
    probe.lookup(1, 400)
    probe.store(2, 2, 900, 1600)  # ends 600 ticks after the save
    probe.store(3, 3, 900, 1050)
    cache = Cache.open(segment, "old")
    cache.save(tmp_path / "maps", "shop", 1000, SECRET)
    clock[0] += 10  # 100 ticks
    restored = Cache.create(segment, "new", 100)
    assert restored.load(tmp_path / "maps", "shop", 77, SECRET) == 2
    rows = {row.key: row for row in restored.entries(77)}
    first = rows[Probe.key_bytes(1)]
    assert (first.idle, first.age, first.remaining) == (700, 1100, None)
    second = rows[Probe.key_bytes(2)]
    assert (second.idle, second.age, second.remaining) == (200, 200, 500)


def test_a_clock_set_back_ages_nothing(
    segment: Segment, tmp_path: Path, clock: list[float]
) -> None:
    saved(segment, tmp_path / "maps", maps=1)
    clock[0] -= 5000
    new = Cache.create(segment, "new", 10)
    assert new.load(tmp_path / "maps", "shop", 2000, SECRET) == 1
    assert next(new.entries(2000)).idle == 1000


def test_newer_maps_are_kept(segment: Segment, tmp_path: Path) -> None:
    saved(segment, tmp_path / "maps")
    new = Probe(segment, "new", 100)
    new.store(5, 99, 5000)
    assert Cache.open(segment, "new").load(tmp_path / "maps", "shop", 5000, SECRET) == 59
    assert new.lookup(5, 5000) == ("hit", 99)


@pytest.mark.parametrize(("maps", "size"), [(0, 10), (10_000, 4000), (10_000, 20_000)])
def test_other_sizes(segment: Segment, tmp_path: Path, maps: int, size: int) -> None:
    """A smaller cache gets the most recently used maps; several blocks; none at all."""
    saved(segment, tmp_path / "maps", 10_000, maps)
    new = Probe(segment, "new", size)
    cache = Cache.open(segment, "new")
    cache.load(tmp_path / "maps", "shop", 20_000, SECRET)
    cache.verify()
    assert cache.stats(20_000).entries == min(maps, size)
    for number in range(max(0, maps - size), maps, 97):
        assert new.lookup(number, 20_000) == ("hit", number)


def test_the_file_is_private_and_replaced_as_a_whole(segment: Segment, tmp_path: Path) -> None:
    saved(segment, tmp_path / "maps")
    assert (tmp_path / "maps").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def refused(segment: Segment, path: Path, class_name: str = "shop", secret: bytes = SECRET) -> str:
    name = f"new{len(segment.regions())}"
    cache = Cache.create(segment, name, 100)
    with pytest.raises(StateFileError) as caught:
        cache.load(path, class_name, 5000, secret)
    assert cache.stats(5000).entries == 0
    segment.remove(name)
    return str(caught.value)


def test_every_damage_is_noticed(segment: Segment, tmp_path: Path) -> None:
    """Each byte changed, each length cut: an error, and nothing imported."""
    path = tmp_path / "maps"
    saved(segment, path, maps=3)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        refused(segment, path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(segment, path)
    path.write_bytes(whole + b"x")
    refused(segment, path)


def test_blocks_cannot_be_exchanged(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "maps"
    saved(segment, path, 10_000, 8192)
    whole = path.read_bytes()
    block = 4 + 4096 * 48 + 16
    head = len(whole) - 2 * block - 4 - 16
    one, two = whole[head : head + block], whole[head + block : head + 2 * block]
    path.write_bytes(whole[:head] + two + one + whole[head + 2 * block :])
    assert "block 1 is damaged" in refused(segment, path)


def test_files_of_others_are_refused(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "maps"
    saved(segment, path)
    assert "class 'shop', not 'app'" in refused(segment, path, "app")
    assert "another secret" in refused(segment, path, "shop", bytes(16))
    path.write_bytes(b"PNG" * 100)
    assert "not a file of session maps" in refused(segment, path)
    with pytest.raises(FileNotFoundError):
        Cache.create(segment, "new", 10).load(tmp_path / "absent", "shop", 1, SECRET)
