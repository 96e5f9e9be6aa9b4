"""What the kernel says of a process and all its children: CPU time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """`root` and its descendants, oldest first; what has gone is left out."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


@dataclass(frozen=True)
class Cpu:
    """CPU time of a set of processes, all threads.

    The total is the scheduler's, in nanoseconds; the clock ticks of /proc/<pid>/stat
    (10 ms) only tell how it splits into user and system time.
    """

    total_ns: int
    user_ns: int
    system_ns: int

    def __sub__(self, earlier: Cpu) -> Cpu:
        total = self.total_ns - earlier.total_ns
        user = self.user_ns - earlier.user_ns
        ticks = user + self.system_ns - earlier.system_ns
        user_part = total * user // ticks if ticks else 0
        return Cpu(total, user_part, total - user_part)


def cpu(pids: Iterable[int]) -> Cpu:
    total = user = system = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(after_name[11]) * _TICK_NS
        system += int(after_name[12]) * _TICK_NS
    return Cpu(total, user, system)


def machine_busy_ns() -> int:
    """CPU time that everything on this machine has used."""
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) * _TICK_NS


def memory(pids: Iterable[int]) -> int:
    """Bytes of user memory: PSS, so that pages shared between processes count once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
