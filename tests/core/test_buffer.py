"""The buffer pool against a count of what is out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_parts import Pool

SMALL = 16 * 1024
LARGE = 64 * 1024
STEPS = ["small", "large", "bytes", "back", "shrink"]


def test_borrowed_buffers_are_empty_and_of_their_size() -> None:
    pool = Pool(1 << 20)
    small, large = pool.borrow(False), pool.borrow(True)
    assert (pool.size(small), pool.size(large)) == (SMALL, LARGE)
    assert pool.fill(small, b"x" * 100) == (100, SMALL - 100)
    pool.give_back(small)
    again = pool.borrow(False)
    assert pool.data(again) == b""
    pool.give_back(again)
    pool.give_back(large)


def test_the_bound_counts_all_memory() -> None:
    pool = Pool(2 * SMALL + 10)
    first, second = pool.borrow(False), pool.borrow(False)
    assert pool.borrow(False) is None
    assert pool.borrow(True) is None
    assert pool.counts()["refusals"] == 2
    pool.give_back(first)
    third = pool.borrow(False)
    assert third is not None
    for one in (second, third):
        pool.give_back(one)


def test_free_buffers_of_one_size_never_starve_the_other() -> None:
    pool = Pool(2 * LARGE)
    small = [pool.borrow(False) for _ in range(8)]
    assert None not in small
    for one in small:
        pool.give_back(one)
    # Nothing is in use now, so a large one is within the bound.
    large = pool.borrow(True)
    assert large is not None
    assert pool.counts()["bytes"] <= 2 * LARGE
    pool.give_back(large)
    large = [pool.borrow(True), pool.borrow(True)]
    assert None not in large
    for one in large:
        pool.give_back(one)
    assert pool.borrow(False) is not None
    assert pool.counts()["refusals"] == 0


def test_heads_of_clients_leave_an_eighth_to_what_runs() -> None:
    pool = Pool(64 * SMALL)
    heads = [pool.make_room(None) for _ in range(56)]
    assert None not in heads
    assert pool.make_room(None) is None
    pool.fill(heads[0], b"x" * SMALL)
    assert pool.make_room(heads[0]) is None  # nor does one grow
    assert pool.counts()["refusals"] == 2
    rest = [pool.borrow(False) for _ in range(8)]
    assert None not in rest
    assert pool.borrow(False) is None
    for one in rest:
        pool.give_back(one)
    assert pool.make_room(None) is None  # what is free is the reserve's still
    pool.give_back(heads.pop())
    again = pool.make_room(None)
    assert again is not None
    for one in (again, *heads):
        pool.give_back(one)


def test_small_buffers_are_taken_ahead_for_when_the_system_has_no_memory() -> None:
    pool = Pool(0)
    pool.limit(1 << 20)
    assert pool.counts()["free_small"] == 16
    head = pool.make_room(None)
    assert pool.counts()["free_small"] == 16  # heads leave them alone
    taken = [pool.borrow(False) for _ in range(16)]
    assert pool.counts()["free_small"] == 0
    for one in (head, *taken):
        pool.give_back(one)
    assert pool.counts()["free_small"] == 17
    again = pool.make_room(None)
    assert pool.counts()["free_small"] == 16  # one that was given back costs no new memory
    pool.give_back(again)


def test_only_a_reserve_is_kept() -> None:
    pool = Pool(1 << 30)
    lent = [pool.borrow(False) for _ in range(300)] + [pool.borrow(True) for _ in range(80)]
    for one in lent:
        pool.give_back(one)
    counts = pool.counts()
    assert (counts["free_small"], counts["free_large"]) == (256, 64)
    assert counts["bytes"] == 256 * SMALL + 64 * LARGE
    pool.free_all()
    assert pool.counts() == {
        "bytes": 0, "borrowed": 0, "refusals": 0, "free_small": 0, "free_large": 0,
    }  # fmt: skip


def test_shrinking_keeps_the_bytes_and_gives_the_rest_back() -> None:
    pool = Pool(1 << 20)
    one = pool.borrow(True)
    pool.fill(one, b"0123456789" * 100)
    small = pool.shrink(one, 10, 25)
    assert small != one
    assert pool.data(small) == b"0123456789012345678901234"
    assert pool.size(small) == 25
    pool.give_back(small)
    assert pool.counts()["borrowed"] == 0
    assert pool.counts()["bytes"] == LARGE


def test_shrinking_works_when_the_bound_is_reached() -> None:
    pool = Pool(LARGE)
    one = pool.borrow(True)
    pool.fill(one, b"abc" * 100)
    small = pool.shrink(one, 3, 30)
    assert pool.data(small) in (b"abc" * 10, b"abc" * 100)
    pool.give_back(small)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 99)), max_size=80))
def test_counts_always_agree(steps: list[tuple[str, int]]) -> None:
    bound = 5 * LARGE
    pool = Pool(bound)
    lent: dict[int, int] = {}
    for what, number in steps:
        if what in ("small", "large"):
            one = pool.borrow(what == "large")
            if one is not None:
                lent[one] = pool.size(one)
            else:
                assert sum(lent.values()) + (LARGE if what == "large" else SMALL) > bound
        elif what == "bytes":
            count = 1000 * number
            one = pool.borrow_bytes(count)
            if one is not None:
                lent[one] = pool.size(one)
                assert lent[one] == (SMALL if count <= SMALL else max(LARGE, count))
        elif lent:
            one = list(lent)[number % len(lent)]
            if what == "back":
                pool.give_back(one)
                del lent[one]
            elif lent[one] in (SMALL, LARGE):
                pool.fill(one, b"y" * number) if not pool.data(one) else None
                small = pool.shrink(one, 0, number)
                del lent[one]
                lent[small] = pool.size(small)
        counts = pool.counts()
        assert counts["borrowed"] == len(lent)
        free = counts["free_small"] * SMALL + counts["free_large"] * LARGE
        assert counts["bytes"] == sum(lent.values()) + free <= bound
    for one in lent:
        pool.give_back(one)
