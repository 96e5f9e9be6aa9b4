"""python -m benchmarks.methods: what each persistence method costs over the plain proxy.

One fastlb with one worker has a virtual server for each method, and each has a generator
of its own, warmed up and kept. A round gives every method one slice of so many requests,
the next round begins with another one: so whatever else the machine does hits all alike,
and all run in one process with one layout of its memory. A method's ratio is the median,
over the rounds, of its CPU time per request divided by that of `none` in the same round;
`none, again` is a second virtual server like `none`: what it differs by is noise.

Requests are of one length for all methods, but for the cookies that fastlb inserts: every
client sends an X-User field and a session id of 24 letters, in its cookie or its path.

With --instructions, the same under callgrind: instructions of the worker in user space
per request, which do not depend on the machine's noise. What the kernel executes is not
in them (virtual machines mostly have no counters that could tell), but the methods do not
differ there: their system calls are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastlb.check import check_file

from . import callgrind, machine, proc, report
from .cases import Load, Task
from .peers.base import Place
from .peers.fastlb import command, write_configuration
from .session import (
    NODES,
    Generator,
    RunFailed,
    Session,
    leave,
    read_table,
    run_nodes,
    run_proxy,
    worker_of,
)
from .stats import Estimate, estimate

REFERENCE, CONTROL = "none", "none, again"
AIM = 1.03
_SLOTS = 64  # connections, and clients, of each method


@dataclass(frozen=True)
class Method:
    name: str
    persistence: dict[str, str]  # keys of the class; empty: none
    cookie: str = "SESSIONID"  # the application's
    given: bool = False  # the node sets it, at a client's first request; else clients bring it
    target: str = "/shop/catalogue/item/4711?ref=home"
    aim: bool = False

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


_SESSION = "cookie:SESSIONID"
METHODS = (
    Method(REFERENCE, {}),
    Method(CONTROL, {}),
    Method("ip", {"type": "ip"}),
    Method("universal, header", {"type": "universal", "key": "header:X-User"}, aim=True),
    Method("universal, cookie", {"type": "universal", "key": _SESSION}, aim=True),
    Method(
        "universal, learned", {"type": "universal", "key": _SESSION, "learn": _SESSION}, given=True
    ),
    Method("transparent", {"type": "transparent"}, aim=True),
    Method("transparent, timeout", {"type": "transparent", "timeout": "30m"}),
    Method("cookie-insert", {"type": "cookie-insert"}),
    Method(
        "cookie-insert, passphrase", {"type": "cookie-insert", "passphrase_file": "passphrases"}
    ),
    Method("cookie", {"type": "cookie", "cookie": "PHPSESSID"}, "PHPSESSID", given=True),
    Method("j2ee, cookie", {"type": "j2ee"}, "JSESSIONID", given=True),
    Method(
        "j2ee, URL",
        {"type": "j2ee"},
        cookie="",
        target="/shop/catalogue/item/4711;jsessionid=@?ref=home",
    ),
    Method("asp", {"type": "asp"}, "ASP.NET_SessionId", given=True),
    Method("x-zeus", {"type": "x-zeus"}, "X-Zeus-Backend", given=True),
    Method("hash, source", {"type": "hash", "on": "source"}),
)


@dataclass
class Results:
    cpu_us: dict[str, list[float]] = field(default_factory=dict)  # by round
    requests_s: dict[str, list[float]] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)  # per request
    refused: dict[str, str] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)  # clients
    errors: dict[str, int] = field(default_factory=dict)
    foreign_cpu: float = 0.0  # CPUs that other programs used meanwhile

    def ratio(self, name: str) -> Estimate:
        pairs = zip(self.cpu_us[name], self.cpu_us[REFERENCE], strict=True)
        return estimate([own / none for own, none in pairs])

    def added(self, name: str) -> Estimate:
        pairs = zip(self.cpu_us[name], self.cpu_us[REFERENCE], strict=True)
        return estimate([own - none for own, none in pairs])

    def wrong(self) -> list[str]:
        """What the nodes and the generators saw that must not be."""
        found = [f"{name}: {count} errors" for name, count in self.errors.items() if count]
        for name, count in self.moved.items():
            if count and name not in (REFERENCE, CONTROL):
                found.append(f"{name}: {count} of {_SLOTS} clients met several nodes")
        return found


def configuration(methods: Sequence[Method], place: Place, ports: Sequence[int]) -> Path:
    """One virtual server, pool and class for each method; returns the file's path."""
    (place.directory / "passphrases").write_text("correct horse battery staple\n")
    text = ""
    nodes = json.dumps([f"127.0.0.1:{port}" for port in place.node_ports])
    for method, port in zip(methods, ports, strict=True):
        text += f'\n[virtual_servers.{method.slug}]\nlisten = ["127.0.0.1:{port}"]\n'
        text += f'protocol = "http"\npool = "{method.slug}"\n'
        text += f'\n[pools.{method.slug}]\nnodes = {nodes}\nalgorithm = "round-robin"\n'
        if method.persistence:
            text += f'persistence = "{method.slug}"\n\n[persistence.{method.slug}]\n'
            text += "".join(f"{key} = {json.dumps(v)}\n" for key, v in method.persistence.items())
    connections = 2 * _SLOTS * len(methods)
    return write_configuration(place.directory, text, workers=1, connections=connections)


def refusal(method: Method, root: Path) -> str:
    """What `fastlb check` has against the method; empty: nothing."""
    with tempfile.TemporaryDirectory(dir=root) as directory:
        place = Place(Path(directory), root, 1, (2, 3))
        found = check_file(configuration([method], place, [1])).errors
    return found[0].text if found else ""


@dataclass
class Bench:
    """A proxy that runs, its nodes, and a generator for each method."""

    session: Session
    worker: int
    generators: dict[str, Generator]


@contextlib.contextmanager
def bench(
    methods: Sequence[Method],
    root: Path,
    requests: int,
    results: Results,
    worker_python: str = sys.executable,
) -> Iterator[Bench]:
    ports = machine.free_ports(len(methods) + NODES)
    place_ports, node_ports = ports[: len(methods)], tuple(ports[len(methods) :])
    with tempfile.TemporaryDirectory(dir=root) as directory:
        place = Place(Path(directory), root, place_ports[0], node_ports)
        run = command("run", configuration(methods, place, place_ports), worker_python)
        if worker_python != sys.executable:
            run = callgrind.confined(run)
        session = Session(root, machine.layout(1), place)
        with run_nodes(root, session.layout, Task(), place), contextlib.ExitStack() as stack:
            log = stack.enter_context((place.directory / "log").open("w"))
            stack.enter_context(run_proxy(session, run, log, callgrind.START_S))
            generators = {
                method.name: stack.enter_context(_generator(session, method, index, requests, port))
                for index, (method, port) in enumerate(zip(methods, place_ports, strict=True))
            }
            yield Bench(session, worker_of(session.root), generators)
        seen = read_table(place.directory / "table")
    for index, method in enumerate(methods):
        clients = range(index * _SLOTS, (index + 1) * _SLOTS)
        results.moved[method.name] = len(seen.movers & set(clients))


def _generator(
    session: Session, method: Method, index: int, requests: int, port: int
) -> contextlib.AbstractContextManager[Generator]:
    """Clients of the method's own, each with its own address."""
    arguments = ["-f", str(index * _SLOTS), "-n", str(requests)]
    arguments += ["-e", "X-User: @", "-u", method.target]
    arguments += ["-S" if method.given else "-J", method.cookie]
    return session.generator(Task(), Load(slots=_SLOTS, own_sources=True), *arguments, port=port)


def _slice(running: Bench, name: str, results: Results) -> tuple[float, float]:
    """CPU µs per request and requests per second of one run of the method's generator."""
    before = proc.cpu([running.worker])
    counted = running.generators[name].run()
    cpu = proc.cpu([running.worker]) - before
    errors = sum(counted["errors"].values())  # since the generator's start
    results.errors[name] = errors + counted["reconnects"]
    requests = counted["requests"]
    if not requests:
        raise RunFailed(f"{name}: no request was answered: {counted['errors']}")
    return cpu.total_ns / 1000 / requests, requests / counted["seconds"]


def measure(
    methods: Sequence[Method], root: Path, rounds: int, requests: int, results: Results
) -> None:
    """CPU time: one round more than asked for, of which the first is the warm-up."""
    names = [method.name for method in methods]
    with bench(methods, root, requests, results) as running:
        for turn in range(rounds + 1):
            if turn == 1:
                started, busy, ours = _clocks()
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                cpu_us, requests_s = _slice(running, name, results)
                if turn:
                    results.cpu_us.setdefault(name, []).append(cpu_us)
                    results.requests_s.setdefault(name, []).append(requests_s)
            print(f"\rround {turn} of {rounds}", end="", file=sys.stderr, flush=True)
        ended, busy_after, ours_after = _clocks()
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    used = (busy_after - busy) - (ours_after - ours)
    results.foreign_cpu = max(0.0, used / 1e9 / (ended - started))


def _clocks() -> tuple[float, int, int]:
    """Now, CPU time of the whole machine, and that of this run's processes."""
    own = proc.cpu(proc.tree(os.getpid())).total_ns
    return time.monotonic(), proc.machine_busy_ns(), own


def count_instructions(
    methods: Sequence[Method], root: Path, requests: int, results: Results, keep: Path | None
) -> None:
    """Each method's requests under callgrind, which writes one file of figures for each."""
    with tempfile.TemporaryDirectory(dir=root) as directory:
        place = keep or Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        python = callgrind.worker_python(Path(directory), place)
        with bench(methods, root, requests, results, python) as running:
            callgrind.control(running.worker, "instrumentation", "on")
            for method in methods:
                running.generators[method.name].run()  # so that all of it has been translated
                callgrind.control(running.worker, "zero")
                counted = running.generators[method.name].run()
                results.instructions[method.name] = (
                    callgrind.dumped(running.worker, place, method.slug) / counted["requests"]
                )


def _rows(methods: Sequence[Method], results: Results) -> list[report.Row]:
    head = ["", "CPU µs/request", "added µs", "× none", "95 % interval", "requests/s"]
    rows = [[*head, "instructions", "× none", "clients that met several nodes"]]
    for name in (method.name for method in methods):
        row = [name]
        if results.cpu_us:
            ratio, added = results.ratio(name), results.added(name)
            row += [
                f"{statistics.median(results.cpu_us[name]):.2f}",
                f"{added.median:+.2f} ({added.low:+.2f} to {added.high:+.2f})",
                f"{ratio.median:.3f}",
                f"{ratio.low:.3f} to {ratio.high:.3f}",
                f"{statistics.median(results.requests_s[name]):.0f}",
            ]
        else:
            row += ["–"] * 5
        count, plain = results.instructions.get(name), results.instructions.get(REFERENCE)
        row += [f"{count:.0f}", f"{count / plain:.3f}"] if count and plain else ["–", "–"]
        rows.append([*row, f"{results.moved[name]} of {_SLOTS}"])
    return rows


def _verdicts(methods: Sequence[Method], results: Results) -> list[str]:
    lines = []
    for method in methods:
        if method.aim and results.cpu_us:
            ratio = results.ratio(method.name)
            state = "met" if ratio.median <= AIM else "MISSED"
            if ratio.low <= AIM < ratio.high:
                state += ", but not surely: the interval holds both"
            lines.append(f"aim {method.name} ≤ {AIM:g} × none: {ratio.median:.3f}, {state}")
    lines += [f"not measured: {name} ({why})" for name, why in results.refused.items()]
    lines += [f"WRONG: {what}" for what in results.wrong()]
    if results.foreign_cpu >= 0.05:
        lines.append(f"not a quiet machine: other programs used {results.foreign_cpu:.0%} of a CPU")
    return lines


def text(methods: Sequence[Method], results: Results) -> str:
    lines = report.columns(_rows(methods, results))
    return "\n".join([*lines, "", *_verdicts(methods, results)]) + "\n"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description="What each persistence method costs over the plain proxy.",
        epilog="example: python -m benchmarks.methods --methods transparent,ip --quick",
    )
    parser.add_argument(
        "--methods",
        type=lambda text: [name for name in text.split(",") if name],
        help=", ".join(method.slug for method in METHODS),
    )
    parser.add_argument("--rounds", type=int, default=0, help="default 60")
    parser.add_argument("--requests", type=int, default=0, help="of one slice; default 8000")
    parser.add_argument("--quick", action="store_true", help="8 rounds of 3000: rough figures")
    parser.add_argument("--instructions", action="store_true", help="count these too, by callgrind")
    parser.add_argument("--no-time", action="store_true", help="only count instructions")
    parser.add_argument("--callgrind", type=Path, metavar="DIR", help="keep callgrind's files")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    parser.add_argument("--assert", dest="check", action="store_true", help="1 if an aim is missed")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.methods or ()) - {method.slug for method in METHODS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    arguments.rounds = arguments.rounds or (8 if arguments.quick else 60)
    arguments.requests = arguments.requests or (3000 if arguments.quick else 8000)
    arguments.instructions |= arguments.no_time
    if arguments.instructions and not shutil.which("vgdb"):
        parser.error("--instructions needs valgrind")
    return arguments


def _chosen(wanted: list[str] | None, root: Path, results: Results) -> list[Method]:
    """The plain proxy, and what was asked for and is not refused."""
    found = []
    for method in METHODS:
        asked = not wanted or method.slug in wanted or not method.persistence
        why = refusal(method, root) if asked else ""
        if why:
            results.refused[method.name] = why
        elif asked:
            found.append(method)
    return found


def _write(
    arguments: argparse.Namespace,
    methods: Sequence[Method],
    results: Results,
    about: dict[str, object],
) -> None:
    if arguments.json:
        whole = {"about": about, **dataclasses.asdict(results)}
        arguments.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if arguments.markdown:
        page = report.markdown_page(about, [_rows(methods, results)], _verdicts(methods, results))
        report.markdown_write(arguments.markdown, page, "methods")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    results = Results()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as root:
        machine.build(Path(root))
        methods = _chosen(arguments.methods, Path(root), results)
        if not arguments.no_time:
            measure(methods, Path(root), arguments.rounds, arguments.requests, results)
        if arguments.instructions:
            count_instructions(methods, Path(root), 2000, results, arguments.callgrind)
    about = machine.about(
        layout=machine.layout(1).text,
        rounds=f"{arguments.rounds} of {arguments.requests} requests for each method",
        took_seconds=round(time.monotonic() - started),
    )
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print(text(methods, results))
    _write(arguments, methods, results, about)
    missed = arguments.check and any(
        method.aim and results.ratio(method.name).median > AIM for method in methods
    )
    return 1 if missed or results.wrong() else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
