"""The threads of rules begin with the plan that needs them, and let the process end."""

import subprocess
import sys
import textwrap

BEGIN = """
import os, sys, threading, time
from fastlb import rule_loop, rule_threads, rule_watch
from fastlb._core import rule_watchdog
def threads():
    return sorted(t.name for t in threading.enumerate())
def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
"""


def story(text: str) -> subprocess.CompletedProcess[str]:
    script = BEGIN + textwrap.dedent(text)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=120)  # fmt: skip


def test_each_plan_gets_what_it_needs() -> None:
    done = story(
        """
        usual = sys.getswitchinterval()
        rule_threads.begin({0: "a"}, 100, 5000, plain=True, asynchronous=False)
        print(threads(), sys.getswitchinterval() == usual)
        rule_threads.begin({0: "a", 1: "b"}, 100, 5000, plain=True, asynchronous=True)
        rule_threads.begin({0: "a", 1: "b"}, 100, 5000, plain=True, asynchronous=True)
        print(threads(), sys.getswitchinterval() < usual)
        rule_threads.end()
        until(lambda: threads() == ["MainThread"])
        print(rule_watchdog.runs())
        rule_threads.end()
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['MainThread', 'rule-overdue'] True",
        "['MainThread', 'rule-loop', 'rule-overdue'] True",
        "False",
    ]


def test_a_process_whose_rules_left_threads_ends() -> None:
    """Python would wait for this one for ever; what the rules' modules registered is still run."""
    done = story(
        """
        import atexit
        atexit.register(lambda: print("bye"))
        rule_threads.begin({0: "a"}, 100, 5000, plain=False, asynchronous=True)
        threading.Thread(target=time.sleep, args=(3600,)).start()
        rule_threads.end()
        rule_threads.leave(7)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "bye\n", "")


def test_one_that_has_no_more_threads_ends_as_usual() -> None:
    done = story(
        """
        rule_threads.begin({0: "a"}, 100, 5000, plain=True, asynchronous=True)
        rule_threads.end()
        until(lambda: threads() == ["MainThread"])
        rule_threads.leave(7)
        print("went on")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


HELD = """
import asyncio
end = time.monotonic() + 60
reading, writing = os.pipe2(os.O_NONBLOCK)
rule_watch.ensure({}, 50, 150, plain=False, report_fd=writing)
class Run:
    steps = [(None, "x")]
    timeout = 3600
    ended_early = False
    def __init__(self, rule): self.steps = [(rule, "x")]; self.notes = []; self.over = False
    def arguments(self, i): return ()
    def begin(self, i): pass
    def ended(self, i, result=None): self.notes.append("ended"); return True
    def failed(self, i, error, timed_out=False):
        self.notes.append("late" if timed_out else repr(error)); return True
    def finish(self): self.over = True
waiting = []
def take():
    os.eventfd_read(fd)
    found = list(waiting)
    waiting.clear()
    return found
fd = os.eventfd(0)
loop = rule_loop.RuleLoop(take, fd)
loop.start()
def put(rule):
    run = Run(rule)
    waiting.append(run)
    os.eventfd_write(fd, 1)
    until(lambda: run.over)
    return run.notes
"""


def test_an_async_rule_that_holds_its_loop_is_shown_and_ended() -> None:
    done = story(
        HELD
        + """
async def holds():
    while True:
        pass
async def fine():
    pass
print(put(holds))
print(put(fine), put(fine))
loop.stop()
rule_watch.stop()
print(os.read(reading, 65536).decode())
"""
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == ["['late']", "['ended'] ['ended']"]
    assert lines[2].startswith("fastlb: warning: an async rule holds its event loop for ")
    assert lines[2].endswith(" ms now, and no async rule goes on meanwhile:")
    assert lines[3].startswith('fastlb: an async rule:   File "')
    assert lines[3].endswith("in holds")
