"""What requests show of a node's health: when it is ejected, who probes it, when it is back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_health import Watched


def ejected(times: int = 1, **bounds: int) -> Watched:
    """A node that has been ejected so many times in a row."""
    node = Watched(failures=1, **bounds)
    node.failed()
    for _ in range(times - 1):
        node.now_ms += node.left_ms
        node.failed(node.try_it())
    assert node.ejections == times
    return node


# ---- ejection ----


def test_failures_in_a_row_eject() -> None:
    node = Watched(failures=3)
    for _ in range(2):
        node.failed()
        assert (node.state, node.left_ms) == ("up", None)
    node.failed()
    assert (node.state, node.out, node.left_ms) == ("down", True, 1000)
    assert node.counted == {"ejections": 1, "probes": 0, "errors": 0}


def test_an_answer_between_them_begins_anew() -> None:
    node = Watched(failures=2)
    for _ in range(5):
        node.failed()
        node.answered(status=500)  # an answer all the same
    assert node.left_ms is None
    node.failed()
    node.failed()
    assert node.out


@pytest.mark.parametrize("state", ["draining", "down", "disabled"])
def test_what_was_said_of_the_node_goes_before(state: str) -> None:
    node = ejected()
    node.set_state(state)
    assert node.state == ("down" if state == "draining" else state)


def test_nothing_ejects_where_it_is_switched_off() -> None:
    node = Watched(failures=0)
    for _ in range(100):
        node.failed()
        node.answered(status=500)
    assert (node.left_ms, node.try_it()) == (None, "usual")
    node = ejected()
    node.unwatch()
    assert (node.out, node.state, node.try_it()) == (False, "up", "usual")


# ---- answers with 5xx ----


def test_too_many_errors_eject() -> None:
    node = Watched(failures=0, errors=50, errors_of=10)
    for _ in range(4):
        node.answered(status=200)
    for _ in range(5):
        node.answered(status=503)
    assert node.left_ms is None  # nine answers say nothing yet
    node.answered(status=500)
    assert node.out
    assert node.counted["errors"] == 6


def test_fewer_do_not() -> None:
    node = Watched(errors=50, errors_of=10)
    for number in range(1000):
        node.answered(status=500 if number % 100 > 50 else 200)
        assert node.left_ms is None


def test_each_window_is_counted_for_itself() -> None:
    node = Watched(errors=50, errors_of=10, window=5)
    for _ in range(9):
        node.answered(status=500)
    node.now_ms += 5000
    node.answered(status=500)
    assert node.left_ms is None
    for _ in range(9):
        node.answered(status=500)
    assert node.out


@pytest.mark.parametrize("status", [400, 404, 429, 499, 501, 505])
def test_what_a_client_can_have_at_will_is_no_error(status: int) -> None:
    node = Watched(errors=1, errors_of=1)
    for _ in range(50):
        node.answered(status=status)
    assert node.left_ms is None
    node.answered(status=502)
    assert node.out


# ---- back-off and probes ----


def test_it_takes_twice_as_long_each_time_up_to_the_most() -> None:
    node = Watched(failures=1, backoff_min=1000, backoff_max=5000)
    node.failed()
    for expected in (1000, 2000, 4000, 5000, 5000):
        assert node.left_ms == expected
        node.now_ms += expected
        node.failed(node.try_it())


def test_a_long_row_of_ejections_does_not_overflow() -> None:
    node = ejected(100, backoff_min=3_600_000, backoff_max=86_400_000)
    assert node.left_ms == 86_400_000


def test_one_request_probes() -> None:
    node = ejected()
    assert node.try_it() == "last resort"
    node.now_ms += 1000
    assert (node.out, node.state) == (False, "up")
    assert [node.try_it(probe_ms=3000) for _ in range(3)] == ["probe", "last resort", "last resort"]
    assert (node.out, node.left_ms) == (True, 3000)
    assert node.counted["probes"] == 1


def test_a_probe_that_ends_neither_way_is_followed_by_another() -> None:
    node = ejected()
    node.now_ms += 1000
    assert node.try_it(probe_ms=3000) == "probe"
    node.now_ms += 3000
    assert node.try_it() == "probe"
    node.answered("probe")
    assert (node.left_ms, node.ejections, node.returned_at_ms) == (None, 0, node.now_ms)


def test_what_began_before_the_ejection_changes_nothing() -> None:
    """A node that shuts down refuses connections, and still answers what it has."""
    node = ejected()
    node.answered("usual")
    node.failed("usual")
    assert (node.left_ms, node.ejections) == (1000, 1)


def test_a_last_resort_can_only_end_it() -> None:
    node = ejected()
    node.failed("last resort")
    assert (node.left_ms, node.ejections) == (1000, 1)
    node.answered("last resort")
    assert (node.left_ms, node.ejections) == (None, 0)


def test_a_probe_answered_with_an_error_is_none_where_errors_count() -> None:
    for errors, left in ((0, None), (50, 2000)):
        node = ejected(errors=errors)
        node.now_ms += 1000
        node.answered(node.try_it(), status=503)
        assert node.left_ms == left


def test_after_its_return_it_has_all_its_chances_again() -> None:
    node = Watched(failures=3)
    for _ in range(3):
        node.failed()
    node.now_ms += 1000
    node.answered(node.try_it())
    node.failed()
    node.failed()
    assert node.left_ms is None
    node.failed()
    assert node.left_ms == 1000  # and the back-off has begun anew


# ---- sessions that have nowhere else to go ----


def test_one_that_is_excused_has_one_chance() -> None:
    one = Watched(failures=3, backoff_min=1000)
    for _ in range(3):
        one.failed("usual")
    one.excuse()
    assert (one.state, one.left_ms) == ("up", None)
    one.failed("usual")
    assert one.left_ms == 2000, "twice as long"
    one.excuse()
    one.answered("usual", 200)
    for _ in range(2):
        one.failed("usual")
    assert one.state == "up"
    one.failed("usual")
    assert one.left_ms == 1000


def test_a_session_that_stays_tries_as_often_as_at_first() -> None:
    node = ejected(6)
    assert node.left_ms == 30_000
    assert not node.may_try_early
    node.now_ms += 999
    assert not node.may_try_early
    node.now_ms += 1
    assert node.may_try_early
    assert node.try_it(early=False) == "last resort"
    assert node.try_it(early=True) == "probe"
    assert not node.may_try_early
    assert node.try_it(early=True) == "last resort"
    node.failed("probe")
    assert not node.may_try_early
    node.now_ms += 1000
    assert node.try_it(early=True) == "probe"
    node.answered("probe")
    assert node.left_ms is None


# ---- slow start ----


def test_the_share_grows() -> None:
    node = Watched(slow_start=10_000)
    assert node.share == 100  # it never returned: it was there from the start
    node.returned()
    shares = []
    for _ in range(11):
        shares.append(node.share)
        node.now_ms += 1000
    assert shares == [10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100]
    node.now_ms += 1_000_000
    assert node.share == 100


def test_a_clock_that_is_behind_does_not_make_a_whole_share() -> None:
    node = Watched(slow_start=10_000)
    node.returned()
    node.now_ms -= 10
    assert node.share == 10


def test_without_slow_start_the_share_is_whole_at_once() -> None:
    node = Watched()
    node.returned()
    assert node.share == 100


# ---- as a machine ----

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 400, 1000, 3000, 40_000])),
        st.tuples(st.just("failed"), st.booleans()),
        st.tuples(st.just("answered"), st.sampled_from([200, 500])),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(failures=st.integers(0, 3), errors=st.sampled_from([0, 50]), steps=STEPS)
def test_it_is_as_the_model_says(failures: int, errors: int, steps: list) -> None:
    """One request at a time: each is sent, then fails or is answered."""
    node = Watched(
        failures=failures, errors=errors, errors_of=4, window=1000, backoff_min=1000,
        backoff_max=8000,
    )  # fmt: skip
    until, times, row, seen, bad = None, 0, 0, 0, 0
    watched = bool(failures or errors)
    for what, value in steps:
        if what == "wait":
            node.now_ms += value
            continue
        tried = "usual"
        if until is not None:
            tried = "probe" if until <= node.now_ms else "last resort"
        assert node.try_it(probe_ms=500) == tried
        if tried == "probe":
            until = node.now_ms + 500
        fails = what == "failed" or (errors and value == 500)
        ejects = False
        if what == "failed":
            node.failed(tried)
            row += tried == "usual"
            ejects = 0 < failures <= row
        else:
            node.answered(tried, value)
            if tried == "usual":
                row, seen, bad = 0, seen + 1, bad + (value == 500)
                ejects = bool(errors) and seen >= 4 and bad * 2 >= seen
        if tried == "probe" and fails:
            ejects = True
        elif tried != "usual" and not fails:
            until, times, row, seen, bad = None, 0, 0, 0, 0
        if ejects and watched:
            until, row, seen, bad = node.now_ms + min(1000 << times, 8000), 0, 0, 0
            times += 1
        assert node.ejections == times
        assert node.left_ms == (None if until is None else max(until - node.now_ms, 0))
