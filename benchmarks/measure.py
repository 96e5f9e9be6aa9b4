"""From a case and a peer to figures: one function per kind of case."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import proc
from .cases import Case, Kind, Load, Task
from .peers import Peer
from .session import RunFailed, Session, open_session

Figures = dict[str, float]
_FEW = 300  # connections; the base of the memory figure


@dataclass(frozen=True)
class Durations:
    warm_up_s: float
    measured_s: float


FULL = Durations(warm_up_s=0.5, measured_s=2.0)
QUICK = Durations(warm_up_s=0.3, measured_s=1.2)


def _fill(session: Session, case: Case) -> int:
    """One session for each client, by a new connection of its own; returns the errors."""
    task = Task(new_connections=True)
    clients = case.load.fill
    load = Load(slots=100, clients=clients, own_sources=True)
    with session.generator(task, load, "-n", "1") as generator:
        return sum(generator.run()["errors"].values())


def _cpu_figures(cpu: proc.Cpu, requests: int, seconds: float, sent: int) -> Figures:
    return {
        "cpu_us": cpu.total_ns / 1000 / requests,
        "user_us": cpu.user_ns / 1000 / requests,
        "system_us": cpu.system_ns / 1000 / requests,
        "cpu_s_per_gb": cpu.total_ns / sent,
        "busy": cpu.total_ns / 1e9 / seconds,
    }


def _load(session: Session, case: Case, durations: Durations) -> Figures:
    """CPU time and latency of the generator's measured part."""
    errors = _fill(session, case) if case.load.fill else 0
    arguments = ("-w", str(durations.warm_up_s), "-d", str(durations.measured_s))
    with session.generator(case.task, case.load, *arguments) as generator:
        pids, ours = session.pids(), proc.tree(os.getpid())
        before, ours_before, all_before = proc.cpu(pids), proc.cpu(ours), proc.machine_busy_ns()
        result = generator.run()
        cpu = proc.cpu(pids) - before
        all_ns = proc.machine_busy_ns() - all_before
        foreign_ns = max(0, all_ns - (proc.cpu(ours) - ours_before).total_ns)
        if session.pids() != pids:
            raise RunFailed("processes came or went during the measurement")
    requests = result["requests"]
    if not requests:
        raise RunFailed(f"no request was answered: {result['errors']}")
    figures = _cpu_figures(cpu, requests, result["seconds"], result["bytes"])
    figures["requests_s"] = requests / result["seconds"]
    figures["foreign_cpu"] = foreign_ns / 1e9 / result["seconds"]
    figures["errors"] = errors + sum(result["errors"].values())
    figures["head_bytes"] = result["head_bytes"]
    return figures | {name: result[name] for name in ("p50_us", "p99_us", "p999_us")}


def _worked_memory(session: Session, durations: Durations) -> int:
    """Memory of a proxy that has served 64 connections, all gone again."""
    with session.generator(Task(), Load(), "-n", "2000", "-f", "500000") as generator:
        generator.run()
    time.sleep(durations.warm_up_s)
    return proc.memory(session.pids())


def _idle(session: Session, case: Case, durations: Durations) -> Figures:
    """What open and unused connections add to a proxy that has worked before."""
    before = _worked_memory(session, durations)
    with session.generator(case.task, case.load, "-n", str(case.load.slots)) as generator:
        time.sleep(durations.measured_s)
        during = proc.memory(session.pids())
        result = generator.run()  # each connection still works
    return {
        "during_bytes": during,
        "grown_bytes": (during - before) / case.load.slots,
        "errors": sum(result["errors"].values()) + result["reconnects"],
    }


def _idle_base(case: Case, peer: Peer, durations: Durations, programs: Path, place: Path) -> int:
    """The same proxy made for few connections: what it sets aside for many is a cost too."""
    task = replace(case.task, connections_max=_FEW)
    with open_session(peer, task, programs, place) as session:
        return _worked_memory(session, durations)


def _syscalls(session: Session, case: Case, durations: Durations) -> Figures:
    """strace counts what all processes of the proxy call for 2,000 requests."""
    requests = 2000
    strace = shutil.which("strace")
    if not strace:
        raise RunFailed("strace is not installed")
    with session.generator(case.task, case.load, "-n", str(requests)) as generator:
        attach = [part for pid in session.pids() for part in ("-p", str(pid))]
        summary = session.place.directory / "strace"
        tracer = subprocess.Popen(
            [strace, "-f", "-c", "-o", str(summary), *attach], stderr=subprocess.PIPE, text=True
        )
        try:
            assert tracer.stderr
            for _ in session.pids():
                tracer.stderr.readline()  # "Process N attached"
            time.sleep(0.3)
            result = generator.run()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=10)
    figures: Figures = {"errors": sum(result["errors"].values())}
    total = 0.0
    for line in summary.read_text().splitlines():
        found = re.fullmatch(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)", line)
        if found and found[2] != "total":
            figures[f"call.{found[2]}"] = int(found[1]) / requests
            total += int(found[1]) / requests
    return figures | {"syscalls": total}


def _wrk(session: Session, case: Case, durations: Durations) -> Figures:
    """The case under wrk, which has one head for all and no identities."""
    wrk = shutil.which("wrk")
    if not wrk:
        raise RunFailed("wrk is not installed")
    cookies = "_ga=GA1.2.1733.deadbeef; theme=dark; csrf=8f14e45fceea167a5a36; consent=" + "e" * 300
    command = ["taskset", "-c", session.layout.others, wrk, "-t1", f"-c{case.load.slots}"]
    command += ["-H", f"Cookie: {cookies}", "-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)"]
    url = f"http://127.0.0.1:{session.place.port}/shop/catalogue/item/4711?ref=home"
    pids = session.pids()
    before = proc.cpu(pids)
    started = time.monotonic()
    seconds = f"-d{max(1, round(durations.measured_s))}s"
    output = subprocess.run(
        [*command, seconds, url], capture_output=True, text=True, check=True
    ).stdout
    cpu = proc.cpu(pids) - before
    found = re.search(r"(\d+) requests in", output)
    if not found or "Non-2xx" in output:
        raise RunFailed(f"wrk: {output}")
    requests, wall = int(found[1]), time.monotonic() - started
    figures = _cpu_figures(cpu, requests, wall, requests * 1024)
    return figures | {"requests_s": requests / wall, "errors": 0}


_BY_KIND: dict[Kind, Callable[[Session, Case, Durations], Figures]] = {
    Kind.CPU: _load,
    Kind.CPU_PER_GB: _load,
    Kind.LATENCY: _load,
    Kind.IDLE: _idle,
    Kind.SYSCALLS: _syscalls,
}
MAIN = {  # the figure that a kind of case is about
    Kind.CPU: "cpu_us",
    Kind.CPU_PER_GB: "cpu_s_per_gb",
    Kind.LATENCY: "p50_us",
    Kind.IDLE: "idle_bytes",
    Kind.SYSCALLS: "syscalls",
}


def measure(case: Case, peer: Peer, durations: Durations, programs: Path, place: Path) -> Figures:
    """One round. Raises RunFailed when there is no figure to be had."""
    base = 0
    if case.kind is Kind.IDLE:
        base = _idle_base(case, peer, durations, programs, place)
    run = _wrk if case.generator == "wrk" else _BY_KIND[case.kind]
    with open_session(peer, case.task, programs, place) as session:
        figures = run(session, case, durations)
    if base:
        figures["base_bytes"] = base
        figures["idle_bytes"] = (figures["during_bytes"] - base) / case.load.slots
    seen = session.seen
    assert seen
    return figures | {
        "clients": seen.clients,
        "clients_moved": seen.moved,
        "nodes_used": sum(count > 1 for count in seen.requests),
        "node_connections": seen.connections,
    }
