"""Processes beside this one, and their end."""

import fcntl
import os
import resource
import subprocess
import sys

from fastlb import side_process

BEYOND_SELECT = 1500


def sleeper(seconds: float) -> list[str]:
    return [sys.executable, "-c", f"import time; time.sleep({seconds})"]


def test_the_exit_status_or_none_when_it_takes_too_long() -> None:
    assert side_process.run([sys.executable, "-c", "raise SystemExit(3)"], 30) == 3
    assert side_process.run(sleeper(60), 0.05) is None


def test_what_it_leaves_behind_ends_with_it() -> None:
    with side_process.memory("told") as told:
        code = (
            "import os, subprocess, sys; "
            f"left = subprocess.Popen({sleeper(60)!r}); os.write({told}, str(left.pid).encode())"
        )
        assert side_process.run([sys.executable, "-c", code], 30, pass_fds=(told,)) == 0
        pid = int(side_process.read(told))
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert side_process.ends_within(pidfd, 30)
    os.close(pidfd)


def test_a_descriptor_with_a_high_number_will_do() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * BEYOND_SELECT), before[1]))
    with subprocess.Popen(sleeper(60)) as process:
        low = os.pidfd_open(process.pid)
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, BEYOND_SELECT)
        os.close(low)
        assert not side_process.ends_within(high, 0)
        process.kill()
        assert side_process.ends_within(high, 30)
        os.close(high)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
