"""How one configuration takes the place of another, without worker processes."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from msgspec import structs

from fastlb import manifest
from fastlb._core._testing_session_cache import Probe
from fastlb._core.node import get_state, read_slot
from fastlb._core.session_store import StateFileError
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.edits import Edit
from fastlb.errors import StartError
from fastlb.in_force import Changes, InForce
from fastlb.slots import NodeKey
from fastlb.status import removable
from fastlb.ticket_keys import LIFETIME_S
from fastlb.units import read_inet
from tests.control.running import free_port
from tests.harness.certificates import Authority, Pair


class Workers:
    """Stands for the workers: what they were given, and what they say they use."""

    def __init__(self) -> None:
        self.plans: list[int] = []
        self.acknowledged = self.settled = self.released = 0

    def use(self, plan: object) -> None:
        self.plans.append(plan.generation)  # type: ignore[attr-defined]

    def all_acknowledged(self, generation: int) -> bool:
        return self.acknowledged >= generation

    def all_settled(self, generation: int) -> bool:
        return max(self.acknowledged, self.settled) >= generation

    def all_released(self, generation: int) -> bool:
        return self.released >= generation


@pytest.fixture
def force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastlb.in_force.ACKNOWLEDGE_S", 0.05)
    one = InForce(2, tmp_path)
    one.keys = [bytes(16)] * 4
    one.workers = Workers()  # type: ignore[assignment]
    yield one
    one.close()


def config(
    nodes: str = '"10.0.0.1:80", "10.0.0.2:80"', size: int = 64, port: int = 0, type_: str = "ip"
) -> Config:
    text = f'[virtual_servers.a]\nlisten = "127.0.0.1:{port or free_port()}"\npool = "web"\n'
    text += f'[pools.web]\nnodes = [{nodes}]\npersistence = "c"\n'
    text += f'[persistence.c]\ntype = "{type_}"\nsize = {size}\n'
    found = check_text(text, Path("x")).config
    assert found is not None
    return found


def put(force: InForce, cfg: Config) -> None:
    asyncio.run(force.put(force.prepare(cfg)))


def regions(force: InForce) -> set[str]:
    return {name for name, *_ in force.segment.segment.regions()}


def test_each_configuration_is_a_generation(force: InForce) -> None:
    for number in (1, 2, 3):
        put(force, config())
        assert force.workers.plans[-1] == number  # type: ignore[attr-defined]


def test_which_of_some_nodes_can_be_removed(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no other node is anything read: it is asked every other second."""
    put(force, config('"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"'))
    keys = [NodeKey("web", f"10.0.0.{number}", 80) for number in range(1, 5)]
    places = [("web", read_inet(f"10.0.0.{number}:80", "")) for number in (1, 2, 3, 9)]
    force.states.carry_out("drain", [keys[0], keys[1], keys[3]])
    probe = Probe(force.segment.segment, "class.c")
    probe.store_ipv4(1, bytes([10, 0, 0, 2]), 80, force.segment.now())
    read: list[int] = []
    monkeypatch.setattr("fastlb.status.read_slot", lambda *at: read.append(at[1]) or read_slot(*at))
    assert asyncio.run(removable(force, places)) == [keys[0]]
    assert sorted(read) == sorted(force.slots.nodes.used[key] for key in keys[:3])


def test_what_was_prepared_can_be_discarded(force: InForce) -> None:
    put(force, config(size=64))
    before = regions(force), dict(force.slots.nodes.used), set(force.listeners.open)
    force.discard(force.prepare(config('"10.0.0.9:80"', size=128)))
    assert (regions(force), dict(force.slots.nodes.used), set(force.listeners.open)) == before


def test_a_refused_preparation_leaves_nothing(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(force, config(size=64))
    before = regions(force), dict(force.slots.nodes.used), set(force.listeners.open)
    new = config('"10.0.0.9:80"', size=128)

    def add(keys: object) -> list[object]:
        from fastlb import errors

        raise StartError(errors.NO_SUCH_ADDRESS, name="a", address="b")

    with monkeypatch.context() as patched:
        patched.setattr(force.listeners, "add", add)
        with pytest.raises(StartError):
            force.prepare(new)
    assert (regions(force), dict(force.slots.nodes.used), set(force.listeners.open)) == before
    force.slots.nodes.room = 2
    with pytest.raises(StartError) as caught:
        force.prepare(new)
    assert "FLB-S024" in caught.value.lines[0]
    assert (regions(force), dict(force.slots.nodes.used), set(force.listeners.open)) == before


def test_a_plan_that_cannot_be_made_leaves_everything(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(force, config(size=64))
    before = regions(force), dict(force.slots.nodes.used), set(force.listeners.open), force.cfg
    edit = Edit(verb="remove", pool="web", address="10.0.0.2:80")
    new = config('"10.0.0.9:80"', size=128)
    for failing in ("seal", "compile_plan"):
        for error in (OSError(12, "Cannot allocate memory"), MemoryError(), ValueError("too long")):

            def fails(*_: object, error: Exception = error, **__: object) -> int:
                raise error

            descriptors = len(os.listdir("/proc/self/fd"))
            with monkeypatch.context() as patched:
                patched.setattr(f"fastlb.in_force.{failing}", fails)
                with pytest.raises(StartError, match="FLB-S169"):
                    force.prepare(new, edits=[edit])
            assert len(os.listdir("/proc/self/fd")) == descriptors
    after = regions(force), dict(force.slots.nodes.used), set(force.listeners.open), force.cfg
    assert after == before
    assert (force.generation, force.edits) == (1, [])
    put(force, new)
    assert force.workers.plans == [1, 2]  # type: ignore[attr-defined]


def test_what_fails_while_maps_are_copied_is_given_back(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(force, config(size=64))
    before = regions(force), dict(force.slots.nodes.used), set(force.listeners.open), force.cfg

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(force.segment, "copy_shared", fails)
    prepared = force.prepare(config('"10.0.0.9:80"', size=128))
    with pytest.raises(MemoryError):
        asyncio.run(force.put(prepared))
    after = regions(force), dict(force.slots.nodes.used), set(force.listeners.open), force.cfg
    assert after == before
    assert force.generation == 1


def test_the_next_control_process_reads_what_came_with_the_plan(force: InForce) -> None:
    put(force, config())
    edit = Edit(verb="remove", pool="web", address="10.0.0.2:80")
    prepared = force.prepare(config('"10.0.0.1:80"', size=128), edits=[edit])
    assert force.edits == []
    asyncio.run(force.put(prepared))
    wrote = manifest.read(force._plan_fd)
    assert wrote is not None
    assert (wrote.generation, wrote.edits, wrote.places) == (2, [edit], list(force.columns.places))
    assert wrote.retired == [(2, ["class.c"])]
    assert wrote.caches["c"].region == "class.c#1"
    now = force._manifest(force._as_prepared(), 2)
    for one in (wrote, now):
        one.ticket_age_s = 0.0
    assert wrote == now


def test_nothing_is_given_back_before_every_worker_has_the_new_plan(force: InForce) -> None:
    put(force, config())
    old = set(force.listeners.open)
    put(force, config('"10.0.0.1:80"', size=128))
    gone = NodeKey("web", "10.0.0.2", 80)
    force.tidy()
    assert gone in force.slots.nodes.used
    assert old <= set(force.listeners.open)
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    force.tidy()
    assert not old & set(force.listeners.open)
    assert gone in force.slots.nodes.used, "requests of before may read its state"
    force.workers.released = 2  # type: ignore[attr-defined]
    force.tidy()
    assert gone not in force.slots.nodes.used


def test_a_slot_is_free_once_the_last_request_that_began_with_it_has_ended(force: InForce) -> None:
    workers = force.workers
    put(force, config())
    put(force, config('"10.0.0.1:80"'))  # 2: without
    put(force, config())  # 3: with it again
    gone = NodeKey("web", "10.0.0.2", 80)
    workers.acknowledged = workers.released = 3  # type: ignore[attr-defined]
    force.tidy()
    slot = force.slots.nodes.used[gone]
    put(force, config('"10.0.0.1:80"'))  # 4
    put(force, config('"10.0.0.1:80", "10.0.0.3:80"'))  # 5
    workers.acknowledged = 5  # type: ignore[attr-defined]
    for released in (2, 3):
        workers.released = released  # type: ignore[attr-defined]
        force.tidy()
        assert force.slots.nodes.used[gone] == slot
    workers.released = 4  # type: ignore[attr-defined]
    force.tidy()
    assert gone not in force.slots.nodes.used


def test_names_keep_their_counters_to_themselves_while_requests_run(force: InForce) -> None:
    put(force, config())
    other = config()
    pool, server = other.pools["web"], other.virtual_servers["a"]
    new = structs.replace(
        other,
        pools={"new": pool},
        virtual_servers={"b": structs.replace(server, pool="new")},
    )
    put(force, new)
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    force.tidy()
    assert {"web", "new"} == set(force.slots.pools.used)
    assert {"a", "b"} == set(force.slots.virtual_servers.used)
    force.workers.released = 2  # type: ignore[attr-defined]
    force.tidy()
    assert {"new"} == set(force.slots.pools.used)
    assert {"b"} == set(force.slots.virtual_servers.used)


def test_for_silent_workers_memory_stays_and_nothing_else(force: InForce) -> None:
    put(force, config())
    old = set(force.listeners.open)
    put(force, config('"10.0.0.1:80"', size=128))
    force.workers.settled = 2  # type: ignore[attr-defined]
    force.tidy()
    assert not old & set(force.listeners.open)
    assert NodeKey("web", "10.0.0.2", 80) in force.slots.nodes.used
    assert "class.c" in regions(force)


def test_the_slot_of_a_removed_node_stays_while_requests_run_there(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(force, config())
    table = force.segment.address(force.segment.node_table)
    gone = NodeKey("web", "10.0.0.2", 80)
    slot = force.slots.nodes.used[gone]
    put(force, config('"10.0.0.1:80"'))
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    force.workers.released = 2  # type: ignore[attr-defined]
    busy = read_slot(table, slot, 2) | {"connections": 1}
    with monkeypatch.context() as patched:
        patched.setattr("fastlb.in_force.read_slot", lambda *_: busy)
        force.tidy()
    assert force.slots.nodes.used[gone] == slot
    assert get_state(table, slot) == "up"
    force.tidy()
    assert gone not in force.slots.nodes.used
    assert get_state(table, slot) == "free"


def test_memory_of_an_old_cache_stays_until_no_request_uses_it(force: InForce) -> None:
    put(force, config(size=64))
    put(force, config(size=128))
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    force.tidy()
    assert {"class.c", "class.c#1"} <= regions(force)
    force.workers.released = 2  # type: ignore[attr-defined]
    force.tidy()
    assert "class.c" not in regions(force)


@pytest.mark.parametrize(
    ("type_", "size", "kept"), [("ip", 64, 9), ("ip", 128, 9), ("j2ee", 64, 0), ("asp", 128, 0)]
)
def test_a_class_of_another_type_begins_without_maps(
    force: InForce, type_: str, size: int, kept: int
) -> None:
    put(force, config(size=64))
    probe = Probe(force.segment.segment, "class.c")
    for number in range(9):
        probe.store(number, number, force.segment.now())
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    put(force, config(size=size, type_=type_))
    cache = force.segment.stores.caches["c"].cache
    assert cache.stats(force.segment.now()).entries == kept


def test_maps_that_cannot_move_are_reported(
    force: InForce, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(force, config(size=64))

    def fails(*_: object) -> None:
        raise StateFileError("no space left")

    monkeypatch.setattr(force.segment, "copy_maps", fails)
    force.workers.acknowledged = 2  # type: ignore[attr-defined]
    put(force, config(size=128))
    assert capsys.readouterr().err.count("FLB-S076") == 2
    assert force.generation == 2


def test_waiting_for_a_change() -> None:
    async def main() -> tuple[bool, bool, bool]:
        changes, true = Changes(), False

        async def later() -> None:
            nonlocal true
            await asyncio.sleep(0.01)
            changes.notify()
            true = True
            changes.notify()

        task = asyncio.ensure_future(later())
        came = await changes.until(lambda: true, 5)
        await task
        return came, await changes.until(lambda: True, 0), await changes.until(lambda: False, 0.02)

    begin = time.monotonic()
    assert asyncio.run(main()) == (True, True, False)
    assert time.monotonic() - begin < 2


# --- TLS ---


def https(pair: Pair) -> Config:
    table = f'{{ certificate = "{pair.certificate_path}", key = "{pair.key_path}" }}'
    text = f'[virtual_servers.a]\nlisten = "127.0.0.1:{free_port()}"\npool = "web"\n'
    text += f'protocol = "https"\ntls = {{ certificates = [{table}] }}\n'
    found = check_text(text + '[pools.web]\nnodes = ["10.0.0.1:80"]\n', Path("x")).config
    assert found is not None
    return found


def rotation_is_due(force: InForce) -> None:
    force.ticket_keys._rotated -= LIFETIME_S


def test_ticket_keys_change_by_a_plan_of_their_own(force: InForce, tmp_path: Path) -> None:
    put(force, https(Authority(tmp_path).certificate("shop.test")))
    workers: Workers = force.workers  # type: ignore[assignment]
    names = force.ticket_keys.names()
    workers.acknowledged = 1
    force.rotate_ticket_keys()
    assert (workers.plans, force.ticket_keys.names()) == ([1], names)
    rotation_is_due(force)
    force.rotate_ticket_keys()
    force.rotate_ticket_keys()
    assert workers.plans == [1, 2]
    assert force.ticket_keys.names()[0] == names[1]


def test_new_ticket_keys_are_told_once_there_is_memory_for_a_plan(
    force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(force, https(Authority(tmp_path).certificate("shop.test")))
    workers: Workers = force.workers  # type: ignore[assignment]
    workers.acknowledged = 1
    rotation_is_due(force)

    def fails(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr("fastlb.in_force.seal", fails)
        force.rotate_ticket_keys()
        names = force.ticket_keys.names()
        force.rotate_ticket_keys()
    assert (force.generation, workers.plans) == (1, [1])
    for _ in range(2):
        force.rotate_ticket_keys()
        assert (force.generation, workers.plans) == (2, [1, 2])
    assert force.ticket_keys.names() == names


def test_a_rotation_waits_for_workers_that_lag_behind(force: InForce, tmp_path: Path) -> None:
    """A second one would take away the keys that they still encrypt with."""
    put(force, https(Authority(tmp_path).certificate("shop.test")))
    rotation_is_due(force)
    names = force.ticket_keys.names()
    force.rotate_ticket_keys()
    assert force.ticket_keys.names() == names
    force.workers.acknowledged = 1  # type: ignore[attr-defined]
    force.rotate_ticket_keys()
    rotation_is_due(force)
    force.rotate_ticket_keys()
    assert force.workers.plans == [1, 2]  # type: ignore[attr-defined]


def test_without_certificates_keys_change_and_nobody_is_told(force: InForce) -> None:
    force.rotate_ticket_keys()
    put(force, config())
    force.workers.acknowledged = 1  # type: ignore[attr-defined]
    rotation_is_due(force)
    names = force.ticket_keys.names()
    force.rotate_ticket_keys()
    assert force.ticket_keys.names() != names
    assert force.workers.plans == [1]  # type: ignore[attr-defined]


def test_a_reload_keeps_the_ticket_keys(force: InForce, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    put(force, https(authority.certificate("shop.test")))
    names = force.ticket_keys.names()
    put(force, https(authority.certificate("other.test")))
    assert force.ticket_keys.names() == names


def test_files_that_vanish_refuse_the_preparation(force: InForce, tmp_path: Path) -> None:
    pair = Authority(tmp_path).certificate("shop.test")
    cfg = https(pair)
    put(force, cfg)
    before = regions(force), dict(force.slots.nodes.used), set(force.listeners.open)
    material = force.tls
    pair.key_path.unlink()
    with pytest.raises(StartError) as caught:
        force.prepare(cfg)
    assert "FLB-S112" in caught.value.lines[0]
    assert (regions(force), dict(force.slots.nodes.used), set(force.listeners.open)) == before
    assert force.tls is material


def test_ticket_keys_are_wiped_at_the_end(tmp_path: Path) -> None:
    one = InForce(1, tmp_path)
    keys = list(one.ticket_keys.keys)
    one.close()
    assert not any(any(key) for key in keys)


def test_without_descriptors_nothing_is_put_in_force(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(count: int) -> None:
        raise OSError(24, "Too many open files")

    put(force, config())
    before = force.generation
    monkeypatch.setattr("fastlb.reserve.demand", none_left)
    with pytest.raises(StartError) as caught:
        force.prepare(config('"10.0.0.9:80"'))
    assert "Too many open files" in caught.value.lines[0]
    assert force.generation == before
    assert NodeKey("web", "10.0.0.9", 80) not in force.slots.nodes.used
