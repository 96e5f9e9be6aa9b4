"""`rule.shared` as rules use it: keys, lives, errors, one memory for all, and none to prepare."""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from fastlb._core.rule_shared import (
    Region,
    Table,
    advance_local,
    reset_local,
    shared,
    use_none,
)
from fastlb._core.shm import Segment

SECRET = bytes(range(16))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    use_none()
    yield
    use_none()


def test_the_readme_of_it() -> None:
    hits = shared("hits")
    assert hits.get("anna") is None
    assert hits.incr("anna") == 1
    assert hits.incr("anna", 4) == 5
    assert hits.incr("anna", by=-2, ttl="2h") == 3
    assert hits.get("anna") == 3
    hits.set("anna", 100)
    assert hits.get("anna") == 100
    assert hits.delete("anna") is True
    assert hits.delete("anna") is False
    assert shared("hits") is hits
    assert repr(hits) == "rule.shared('hits')"
    assert hits.name == "hits"


def test_tables_and_kinds_of_keys_are_apart() -> None:
    keys: list[str | bytes | int] = ["1", b"1", 1, "", b"", 0, -1, 2**63, 2**64, -(2**200), "ä"]
    keys += ["\udc80", "\udcff\udc80", "1\0", b"1\0", "x" * 100_000, 2**63 - 1, -(2**63)]
    for number, key in enumerate(keys):
        assert shared("a").incr(key, number + 1) == number + 1, key
        assert shared("ab").incr(key) == 1, key
    for number, key in enumerate(keys):
        assert shared("a").get(key) == number + 1
    # what is joined in one is apart in the other
    shared("x").set("yz", 1)
    assert shared("xy").get("z") is None


def test_time_passes() -> None:
    table = shared("t")
    table.incr("text", ttl="1m")
    table.incr("number", ttl=90)
    table.incr("part", ttl=0.25)
    table.incr("delta", ttl=timedelta(minutes=3))
    table.incr("never", ttl=None)
    table.set("kept", 1)
    advance_local(1)
    assert [table.get(k) for k in ("text", "number", "part", "delta", "never")] == [
        1, 1, None, 1, 1]  # fmt: skip
    assert table.incr("text", ttl="1h") == 2  # a fixed window, not a sliding one
    advance_local(60)
    assert table.get("text") is None
    advance_local(10**9)
    assert table.get("delta") is None
    assert table.get("never") == table.get("kept") == 1


def test_the_smallest_life_is_a_millisecond() -> None:
    table = shared("t")
    table.set("a", 1, ttl=1e-9)
    advance_local(0.002)
    assert table.get("a") is None
    table.set("b", 1, ttl=1e300)
    table.set("c", 1, ttl=float("inf"))
    advance_local(10**6)
    assert table.get("b") == table.get("c") == 1


def test_reset_empties() -> None:
    shared("t").incr("a")
    advance_local(5)
    reset_local()
    assert shared("t").get("a") is None
    assert shared("t").incr("a") == 1


@pytest.mark.parametrize("key", [None, 1.5, True, ("a",), bytearray(b"a"), object])
def test_other_keys_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match=r"rule\.shared\('t'\): a key is a str, bytes or an int"):
        shared("t").get(key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ttl", "error", "words"),
    [
        ("1 lightyear", ValueError, "ttl"),
        ("", ValueError, "ttl"),
        ("0s", ValueError, "ttl"),
        (0, ValueError, "longer than nothing"),
        (-5, ValueError, "longer than nothing"),
        (float("nan"), ValueError, "longer than nothing"),
        (True, TypeError, "not bool"),
        (b"1m", TypeError, "not bytes"),
        (timedelta(0), ValueError, "longer than nothing"),
    ],
)
def test_other_lives_are_refused(ttl: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        shared("t").incr("a", ttl=ttl)  # type: ignore[arg-type]
    assert shared("t").get("a") is None


def test_other_numbers_are_refused() -> None:
    table = shared("t")
    for number in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="by is an int"):
            table.incr("a", number)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="value is an int"):
            table.set("a", number)  # type: ignore[arg-type]
    for big in (2**63, -(2**63) - 1, 10**5000):
        with pytest.raises(OverflowError, match="64 bits"):
            table.incr("a", big)
    table.set("a", 2**63 - 1)
    with pytest.raises(OverflowError, match="sum for 'a'"):
        table.incr("a")
    assert table.get("a") == 2**63 - 1


def test_other_names_are_refused() -> None:
    for name in (None, 1, b"x"):
        with pytest.raises(TypeError, match="name is a str"):
            shared(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is a str"):
        shared(["unhashable"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a name"):
        shared("")
    assert Table.__doc__ is not None


def test_a_region_is_the_same_in_all_processes(segment: Segment) -> None:
    region = Region.create(segment, "rules", 1000, SECRET)
    assert region.use()
    shared("t").incr("a", 5)
    pid = os.fork()
    if pid == 0:
        with Segment.attach(segment.fd):
            os._exit(shared("t").incr("a"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    assert shared("t").get("a") == 6
    assert region.stats() == (1, 0)
    for call in (reset_local, lambda: advance_local(1)):
        with pytest.raises(RuntimeError, match="running fastlb"):
            call()


def test_another_size_keeps_the_entries(segment: Segment) -> None:
    old = Region.create(segment, "rules", 1000, SECRET)
    new = Region.create(segment, "rules#1", 2000, SECRET)
    old.use()
    table = shared("t")
    table.set("a", 7)
    table.incr("b", ttl="1h")
    old.copy_to(new)
    new.use()
    assert table.incr("a") == 8
    assert table.get("b") == 1
    assert old.stats() == (2, 0)
    assert (old.size, new.size) == (1000, 2000)
    segment.remove("rules")
    assert table.incr("a") == 9


def test_bad_regions(segment: Segment) -> None:
    for size in (0, -1, 16_777_217):
        with pytest.raises((ValueError, OverflowError)):
            Region.create(segment, "rules", size, SECRET)
    with pytest.raises(ValueError, match="no tables"):
        Region.create(segment, "rules", 10, b"short")
    assert segment.find("rules") is None


def test_threads() -> None:
    table = shared("t")

    def count() -> None:
        for _ in range(5000):
            table.incr("a")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.get("a") == 20_000
