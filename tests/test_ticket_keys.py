"""Session ticket keys in the control process: what workers are told, and for how long."""

from fastlb.ticket_keys import KEY_BYTES, LIFETIME_S, TicketKeys


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_there_is_a_key_that_encrypts_and_a_next_one() -> None:
    keys = TicketKeys(Clock())
    assert len(keys.keys) == 2
    assert {len(key) for key in keys.keys} == {KEY_BYTES}
    assert len({bytes(key) for key in (*keys.keys, *TicketKeys().keys)}) == 4
    assert keys.names() == [bytes(key[:16]) for key in keys.keys]


def test_what_workers_know_overlaps_from_plan_to_plan() -> None:
    """A worker that has the plan before, and one that has the next, read each other's tickets."""
    keys = TicketKeys(Clock())
    before = keys.names()
    for _ in range(5):
        keys.rotate()
        after = keys.names()
        assert len(after) == len(set(after)) == 3
        assert after[0] == before[1], "the next key encrypts"
        assert after[2] == before[0], "the one before is still read"
        assert after[1] not in before
        before = after


def test_a_key_encrypts_for_its_lifetime() -> None:
    clock = Clock()
    keys = TicketKeys(clock)
    clock.now += LIFETIME_S - 1
    assert not keys.is_due()
    clock.now += 1
    assert keys.is_due()
    keys.rotate()
    assert not keys.is_due()


def test_a_key_that_is_not_needed_is_wiped() -> None:
    keys = TicketKeys(Clock())
    first = keys.keys[0]
    keys.rotate()
    assert any(first)
    keys.rotate()
    assert not any(first)
    rest = list(keys.keys)
    keys.wipe()
    assert not any(any(key) for key in rest)
