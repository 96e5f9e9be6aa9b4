"""A rule that holds its thread is shown while it does, and asked to end; others are not touched.

Each story runs in a process of its own: signals and the main thread are the process's.
"""

import subprocess
import sys
import textwrap

import pytest

BEGIN = """
import os, re, select, signal, sys, threading, time
from fastlb import rule_watch
from fastlb._core import rule_watchdog
from fastlb._core._testing_rule_watchdog import blocked, call, count, pair_ns, spin
count()
reading, writing = os.pipe2(os.O_NONBLOCK)
rule_watch.ensure(
    {3: "shop:route", 4: "shop:other"}, WATCHDOG, TIMEOUT, plain=True, report_fd=writing)
END = time.monotonic() + 30
def written():
    return time.monotonic() > END or bool(select.select([reading], [], [], 0)[0])
def report():
    try:
        return os.read(reading, 65536).decode()
    except BlockingIOError:
        return ""
"""
WAITS = 30  # seconds, for what ends by itself at once


def story(text: str, timeout_ms: int = 60_000, watchdog_ms: int = 50) -> str:
    """What a rule's process prints."""
    begin = BEGIN.replace("TIMEOUT", str(timeout_ms)).replace("WATCHDOG", str(watchdog_ms))
    script = begin + textwrap.dedent(text) + "\nrule_watch.stop()\nprint('over')\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=4 * WAITS
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("over\n")
    return done.stdout.removesuffix("over\n")


RELEASED = "time.sleep(0.02)"
PYTHON = "sum(range(100_000))"
HELD_IN_C = "spin(20)"
REGEX = "re.match('(a+)+$', 'a' * 21 + 'b')"


@pytest.mark.parametrize("hold", [RELEASED, PYTHON, HELD_IN_C, REGEX])
def test_the_place_is_shown_while_it_blocks(hold: str) -> None:
    """The rule goes on until the report is there."""
    first, *rest = story(
        f"""
        def hold():
            while not written():
                {hold}
        def rule():
            hold()
        call(3, rule)
        print(report(), end="")
        assert (blocked(3), blocked(4)) == (1, 0)
        """
    ).splitlines()
    assert first.startswith("fastlb: warning: rule shop:route holds its worker for ")
    assert first.endswith(" ms now, and no request goes on meanwhile:")
    assert len(rest) >= 3
    assert all(line.startswith('fastlb: rule shop:route:   File "') for line in rest)
    assert any(line.endswith("in hold") for line in rest)
    assert any(line.endswith("in rule") for line in rest)


def test_written_while_the_gil_is_held() -> None:
    """By a thread that needs none; and the system call that it interrupts goes on."""
    out = story(
        """
        import ctypes
        read = ctypes.PyDLL(None).read  # does not let go of the GIL
        os.set_blocking(reading, True)
        text = ctypes.create_string_buffer(65536)
        def rule():
            return read(reading, text, 65536)
        print(call(3, rule) == len(text.value) > 100)
        """
    )
    assert out == "True\n"


def test_once_per_place_and_minute() -> None:
    out = story(
        """
        def until_seen(slot):
            before = blocked(slot)
            while blocked(slot) == before and time.monotonic() < END:
                time.sleep(0.01)
            time.sleep(0.1)  # it is written behind that
        def here(): until_seen(3)
        def there(): until_seen(3)
        def other(): until_seen(4)
        for slot, rule in ((3, here), (3, here), (4, other), (3, there), (3, here)):
            call(slot, rule)
        print(blocked(3), blocked(4))
        """
    )
    assert out == "4 1\n"


def test_a_place_that_was_reported_is_left_out() -> None:
    out = story(
        """
        def hold(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end and not written(): time.sleep(0.02)
        def here(seconds): hold(seconds)
        call(3, lambda: here(30))
        print(report().count("holds its worker"))
        call(3, lambda: here(0.4))  # the same place
        print(report().count("holds its worker"))
        call(4, lambda: here(30))  # the same one in another rule
        print(report().count("rule shop:other holds its worker"))
        """
    )
    assert out == "1\n0\n1\n"


def test_quick_calls_are_no_blocks() -> None:
    out = story(
        """
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            call(3, lambda: None)
        time.sleep(0.5)  # and neither is what is no rule
        print(blocked(3), repr(report()))
        """,
        watchdog_ms=400,
    )
    assert out == "0 ''\n"


LOOPS = """
def rule():
    while True:
        pass
"""
SLEEPS = "def rule():\n    time.sleep(1000)\n"
SEARCHES = "def rule():\n    re.match('(a+)+$', 'a' * 60 + 'b')\n"
LOCKED = "lock = threading.Lock()\nlock.acquire()\ndef rule():\n    lock.acquire()\n"
READS = "def rule():\n    os.read(os.pipe()[0], 1)\n"
SWALLOWS = """
def rule():
    tries = 0
    while True:
        try:
            while True:
                pass
        except Exception:
            tries += 1
"""
STUBBORN = """
def rule():
    tries = 0
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            tries += 1
            if tries == 3:
                raise
"""


@pytest.mark.parametrize("rule", [LOOPS, SLEEPS, SEARCHES, LOCKED, READS, SWALLOWS, STUBBORN])
def test_what_runs_too_long_is_ended(rule: str) -> None:
    out = story(
        rule
        + """
try:
    call(3, rule)
except rule_watch.RuleOverdue as error:
    print("ended:", error)
for _ in range(1000):
    sum(range(1000))  # what comes afterwards is not asked to end
""",
        timeout_ms=100,
    )
    assert out == "ended: it ran for longer than [rules] timeout\n"


def test_a_rule_that_ends_in_time_is_not_touched() -> None:
    """Calls end close to the moment at which they would be asked to: nothing else is hit."""
    out = story(
        """
        outside = 0
        for number in range(60):
            try:
                try:
                    call(3, lambda: time.sleep(0.003 + number / 20_000))
                except rule_watch.RuleOverdue:
                    pass
                for _ in range(50):
                    sum(range(100))
            except rule_watch.RuleOverdue:
                outside += 1
        print(outside)
        """,
        timeout_ms=5,
    )
    assert out == "0\n"


def test_other_signals_and_threads_are_as_before() -> None:
    out = story(
        """
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: got.append(threading.current_thread().name))
        def rule():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
        call(3, rule)
        print(got)
        other = threading.Thread(target=time.sleep, args=(0.2,))
        begun = time.monotonic()
        other.start()
        call(3, lambda: time.sleep(0.2))
        other.join()
        print(time.monotonic() - begun >= 0.2)
        """
    )
    assert out == "['MainThread']\nTrue\n"


def test_deep_and_odd_stacks_fit() -> None:
    lines = story(
        """
        def deep(n):
            if n: return deep(n - 1)
            while not written(): time.sleep(0.02)
        code = compile("def odd(n):\\n deep(n)\\n", "\\u00e4 \\"x\\n" + "y" * 3000, "exec")
        exec(code)
        sys.setrecursionlimit(5000)
        call(3, lambda: odd(2000))
        print(report(), end="")
        """
    ).splitlines()
    assert 30 <= len(lines) <= 42
    assert all(line.startswith("fastlb: ") for line in lines)


def test_two_stores_are_what_it_costs() -> None:
    out = story("print(min(pair_ns(1_000_000) for _ in range(3)) < 100)")
    assert out == "True\n"


def test_begun_and_ended_many_times() -> None:
    out = story(
        """
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            rule_watch.stop()
            assert not rule_watchdog.runs()
            rule_watch.ensure({3: "x"}, 10, 100, plain=True)
        end = time.monotonic() + 30
        while threading.active_count() > 2 and time.monotonic() < end:
            time.sleep(0.01)
        print(len(os.listdir("/proc/self/fd")) - before, threading.active_count())
        """
    )
    assert out == "0 2\n"


def test_a_forked_child_does_not_become_a_worker() -> None:
    """Its end is its own affair, but it may not go on behind the rule."""
    out = story(
        """
        def forks():
            if os.fork() == 0:
                return "child"
            return "parent"
        sys.stderr.close()
        reading_end, writing_end = os.pipe()
        os.dup2(writing_end, 2)
        print(call(3, forks), flush=True)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        print(os.read(reading_end, 1000).decode(), end="")
        def leaves():
            if os.fork() == 0:
                os._exit(3)
        call(3, leaves)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """
    )
    lines = out.splitlines()
    assert lines[:2] == ["parent", "70"]
    assert lines[2].startswith("fastlb: error: a process that a rule forked came back")
    assert lines[3:] == ["3"]
