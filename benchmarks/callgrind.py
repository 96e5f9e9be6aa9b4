"""A worker under callgrind, which counts instructions in user space: the same ones every time."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from .session import RunFailed

START_S = 120.0  # under valgrind; else a second
_SPACE = 30 << 30  # makes fastlb reserve less than valgrind's address space has


def worker_python(directory: Path, place: Path) -> str:
    """A program that stands in for the worker's Python; figures go to `place`."""
    python = directory / "python"  # of the worker; the control process has its own
    python.write_text(
        "#!/bin/sh\nexec valgrind -q --tool=callgrind --instr-atstart=no --separate-threads=no "
        f'--callgrind-out-file={shlex.quote(str(place))}/out.%p {sys.executable} "$@"\n'
    )
    python.chmod(0o700)
    return str(python)


def confined(command: list[str]) -> list[str]:
    """The command of a proxy whose worker runs under valgrind."""
    return ["prlimit", f"--as={_SPACE}", *command]


def control(pid: int, *what: str) -> None:
    """A command to callgrind in that process; it is done when this returns."""
    command = ["vgdb", f"--pid={pid}", "--wait=60", *what]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def dumped(pid: int, place: Path, name: str) -> int:
    """Has callgrind write what it counted; returns the sum."""
    known = set(place.glob(f"out.{pid}.*"))
    control(pid, "dump", name)
    new = sorted(set(place.glob(f"out.{pid}.*")) - known)
    if len(new) != 1:
        raise RunFailed(f"callgrind wrote {len(new)} files for {name}")
    found = re.search(r"^(?:summary|totals): (\d+)", new[0].read_text(), re.MULTILINE)
    if not found:
        raise RunFailed(f"{new[0].name} has no sum")
    new[0].rename(place / f"{name}.callgrind")
    return int(found[1])
