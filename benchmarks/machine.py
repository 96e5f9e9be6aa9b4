"""The machine: which CPUs who gets, what the programs are, free ports."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("node", "load", "floor")


@dataclass(frozen=True)
class Layout:
    """CPU lists for taskset."""

    proxy: str
    others: str  # generator and nodes

    @property
    def text(self) -> str:
        shared = " (shared)" if self.proxy == self.others else ""
        return f"proxy on CPU {self.proxy}, generator and nodes on CPU {self.others}{shared}"


def layout(workers: int) -> Layout:
    """The proxy has CPUs of its own where there are enough; the others get the rest."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) <= workers:
        everything = ",".join(map(str, cpus))
        return Layout(everything, everything)
    return Layout(",".join(map(str, cpus[:workers])), ",".join(map(str, cpus[workers:])))


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, below the range of outgoing connections.

    Where the search begins depends on the process, so that two runs at once do not meet."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(1025, first_ephemeral)
    begin = os.getpid() * 127 % len(ports)
    found: list[int] = []
    for port in (*ports[begin:], *ports[:begin]):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def compile_program(name: str, directory: Path, *libraries: str) -> None:
    """Compiles `name`.c of this package into `directory`."""
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(directory / name)]
    subprocess.run([*command, str(HERE / f"{name}.c"), *libraries], check=True)


def build(directory: Path) -> None:
    """The programs that every run with a proxy needs."""
    for name in PROGRAMS:
        compile_program(name, directory)


def description() -> dict[str, str | int]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
    }


def about(**more: object) -> dict[str, object]:
    """What stands above a table: when, where, and what the caller adds."""
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), **description(), **more}
