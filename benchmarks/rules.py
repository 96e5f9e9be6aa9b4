"""python -m benchmarks.rules: what rules cost, and what those who wait do to all others.

First CPU time per request, user and system, of one worker. One fastlb has a virtual server
for each line of the table, one HAProxy a frontend, and each has a generator of its own,
warmed up and kept. A round gives every line one slice of so many requests, and the next
round begins with another line: so whatever else the machine does hits all alike. What a rule
adds is the median, over the rounds, of the difference to the line without one in the same
round. All clients have a session by the cookie SESSIONID, in both proxies by a table of keys:
the lines differ by the rule alone. HAProxy's actions do the same in Lua, and once more in its
own configuration where that can say it. Both run once more with no rule anywhere, as they are
when nobody uses Python or Lua. The ladder has rules that do less: the difference between two
of its lines is what one step costs.

Then latency: requests without rules, 1,000 a second by the clock and counted from when they
were due, while 1,000 clients have a request in an async rule that sleeps 100 ms, all the
time. Beside it the same without those, and with as many requests per second as those were,
but without a rule: so one sees what is due to the rules and what to the load. These requests'
generator and node run with a real-time priority where that is allowed, so that the other
clients are not what they wait for.

With --instructions, the lines of fastlb under callgrind: instructions in user space.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import callgrind, machine, proc, report
from .cases import Load, Task
from .fairness import urgent
from .peers.base import Place
from .peers.fastlb import Fastlb
from .rule_lines import (
    LINES,
    PARKED,
    REQUEST,
    SLOTS,
    Line,
    fastlb_command,
    haproxy_command,
    haproxy_version,
)
from .session import (
    NODES,
    Generator,
    RunFailed,
    Session,
    leave,
    run_generator,
    run_nodes,
    run_proxy,
    run_ready,
    worker_of,
)
from .stats import Estimate, estimate

AIM_US = 3.0  # that a plain rule may add to a request
AIM_P99 = 1.2  # times the p99 without parked requests
RATE = 1000  # watched requests per second
_FREE_SLOTS = 32
_HEAD_START_S = 0.5  # until all parked clients are there, and come at all times alike


@dataclass
class Results:
    cpu_us: dict[str, list[float]] = field(default_factory=dict)  # by slug, of each round
    requests_s: dict[str, list[float]] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)
    latency: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # by situation
    errors: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def added(self, line: Line) -> Estimate:
        pairs = zip(self.cpu_us[line.slug], self.cpu_us[line.reference], strict=True)
        return estimate([own - reference for own, reference in pairs])

    def ratio(self, line: Line) -> Estimate:
        pairs = zip(self.cpu_us[line.slug], self.cpu_us[line.reference], strict=True)
        return estimate([own / reference for own, reference in pairs])

    def p99_ratio(self, situation: str) -> Estimate:
        pairs = zip(self.latency[situation], self.latency[ALONE], strict=True)
        return estimate([own["p99_us"] / alone["p99_us"] for own, alone in pairs])

    def wrong(self) -> list[str]:
        found = [f"{name}: {count} errors" for name, count in self.errors.items() if count]
        return [*self.failures, *found]


# ---- CPU time ----


@dataclass
class _Running:
    """A line that can be measured."""

    pids: list[int]
    generator: Generator


@contextlib.contextmanager
def _proxy(
    lines: Sequence[Line], first: int, root: Path, place: Place, ports: Sequence[int],
    requests: int, worker_python: str = sys.executable,
) -> Iterator[dict[str, _Running]]:  # fmt: skip
    """One process with these lines and a generator for each; `first` is the first's number."""
    session = Session(root, machine.layout(1), place)
    own = lines[0].proxy.startswith("fastlb")
    if own:
        run = fastlb_command(lines, place, ports, worker_python)
        run = run if worker_python == sys.executable else callgrind.confined(run)
    else:
        run = haproxy_command(lines, place, ports)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((place.directory / "log").open("w"))
        stack.enter_context(run_proxy(session, run, log, callgrind.START_S))
        pids = [worker_of(session.root)] if own else session.pids()
        running = {}
        for number, (line, port) in enumerate(zip(lines, ports, strict=True), first):
            arguments = ["-f", str(number * SLOTS), "-n", str(requests), "-J", "SESSIONID"]
            load = Load(slots=SLOTS, own_sources=True)
            generator = session.generator(Task(), load, *arguments, port=port)
            running[line.slug] = _Running(pids, stack.enter_context(generator))
        yield running


@contextlib.contextmanager
def _all(
    lines: Sequence[Line], root: Path, requests: int, worker_python: str = sys.executable
) -> Iterator[dict[str, _Running]]:
    ports = machine.free_ports(NODES + len(lines))
    node_ports, ports = tuple(ports[:NODES]), ports[NODES:]
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
        stack.enter_context(
            run_nodes(root, machine.layout(1), Task(), Place(directory, root, 0, node_ports))
        )
        running: dict[str, _Running] = {}
        for proxy in dict.fromkeys(line.proxy for line in lines):
            mine = [line for line in lines if line.proxy == proxy]
            mine_ports = [ports.pop() for _ in mine]
            place = Place(directory / proxy.replace(" ", "-"), root, mine_ports[0], node_ports)
            place.directory.mkdir()
            started = _proxy(mine, len(running), root, place, mine_ports, requests, worker_python)
            running |= stack.enter_context(started)
        yield running


def measure(
    lines: Sequence[Line], root: Path, rounds: int, requests: int, results: Results
) -> None:
    """One round more than asked for, of which the first is the warm-up."""
    with _all(lines, root, requests) as running:
        slugs = list(running)
        for turn in range(rounds + 1):
            shift = turn % len(slugs)
            for slug in slugs[shift:] + slugs[:shift]:
                before = proc.cpu(running[slug].pids)
                counted = running[slug].generator.run()
                cpu = proc.cpu(running[slug].pids) - before
                errors = sum(counted["errors"].values()) + counted["reconnects"]
                results.errors[slug] = errors  # since the generator's start
                if not counted["requests"]:
                    raise RunFailed(f"{slug}: no request was answered: {counted['errors']}")
                if turn:
                    cpu_us = cpu.total_ns / 1000 / counted["requests"]
                    results.cpu_us.setdefault(slug, []).append(cpu_us)
                    rate = counted["requests"] / counted["seconds"]
                    results.requests_s.setdefault(slug, []).append(rate)
            print(f"\rround {turn} of {rounds}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def count_instructions(
    lines: Sequence[Line], root: Path, requests: int, results: Results, keep: Path | None
) -> None:
    """Of fastlb's lines; all threads of the worker are in them."""
    lines = [line for line in lines if line.proxy == "fastlb"]
    with tempfile.TemporaryDirectory(dir=root) as directory:
        figures = keep or Path(directory)
        figures.mkdir(parents=True, exist_ok=True)
        python = callgrind.worker_python(Path(directory), figures)
        with _all(lines, root, requests, python) as running:
            for number, (slug, line) in enumerate(running.items()):
                worker = line.pids[0]
                if number == 0:
                    callgrind.control(worker, "instrumentation", "on")
                line.generator.run()  # so that all of it has been translated
                callgrind.control(worker, "zero")
                counted = line.generator.run()
                total = callgrind.dumped(worker, figures, slug)
                results.instructions[slug] = total / counted["requests"]


# ---- latency ----

ALONE, LOADED, WAITING = "alone", "as many requests, no rule", f"{PARKED:,} parked in a rule"
_FREE, _PLAIN, _NAP = (
    Line("fastlb", "free"),
    Line("fastlb", "plain"),
    Line("fastlb", "nap", ("nap",)),
)


@contextlib.contextmanager
def _urgent_nodes(place: Place) -> Iterator[None]:
    """One node, for the requests that are watched."""
    run = [*urgent(), str(place.programs / "node"), "-p", str(place.node_ports[0]), "-s", "1024"]
    with run_ready(machine.layout(1), [*run, "-o", str(place.directory / "urgent-table")]):
        yield


def _latency_command(place: Place, ports: Sequence[int]) -> list[str]:
    """The watched requests have a pool of their own."""
    others = Place(place.directory, place.programs, 0, place.node_ports[1:])
    run = fastlb_command((_FREE, _PLAIN, _NAP), others, ports)
    path = place.directory / "fastlb.toml"
    text = path.read_text().replace('pool = "nodes"', 'pool = "watched"', 1)
    node = f"127.0.0.1:{place.node_ports[0]}"
    path.write_text(text + f'\n[pools.watched]\nnodes = ["{node}"]\npersistence = "session"\n')
    return run


def _loaded(generator: Generator, watched: Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both at once; the watched one begins later and ends earlier."""
    found: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: found.update(generator.run()))
    thread.start()
    time.sleep(_HEAD_START_S)
    seen = watched.run()
    thread.join()
    return found, seen


def _latency_round(
    session: Session, ports: Sequence[int], seconds: float, results: Results
) -> None:
    """Each situation once; the load without a rule is as many requests as pass through one."""
    layout, load = session.layout, [str(session.place.programs / "load")]
    watch = [*urgent(), *load, "-l", str(ports[0]), "-c", str(_FREE_SLOTS), "-r", str(RATE)]
    watch += ["-J", "SESSIONID", "-d", str(seconds)]
    crowd = [*load, "-c", str(PARKED), "-J", "SESSIONID", "-f", "100000"]
    crowd += ["-d", str(seconds + 2 * _HEAD_START_S)]
    found: dict[str, dict[str, float]] = {}
    with run_generator(layout, watch) as watched:
        found[ALONE] = watched.run()
        with run_generator(layout, [*crowd, "-l", str(ports[2])]) as waiting:
            parked, found[WAITING] = _loaded(waiting, watched)
        rate = max(1, round(parked["requests"] / parked["seconds"]))
        found[WAITING]["crowd_s"], found[WAITING]["crowd_p50_us"] = rate, parked["p50_us"]
        with run_generator(layout, [*crowd, "-l", str(ports[1]), "-r", str(rate)]) as plain:
            loaded, found[LOADED] = _loaded(plain, watched)
        found[LOADED]["crowd_s"] = loaded["requests"] / loaded["seconds"]
    for name, counted in (("parked", parked), ("load", loaded), ("watched", found[LOADED])):
        errors = sum(counted["errors"].values()) + counted["reconnects"]
        results.errors[name] = results.errors.get(name, 0) + errors
    for situation, figures in found.items():
        results.latency.setdefault(situation, []).append(
            {key: value for key, value in figures.items() if key != "errors"}
        )


def measure_latency(root: Path, rounds: int, seconds: float, results: Results) -> None:
    ports = machine.free_ports(3 + NODES)
    with tempfile.TemporaryDirectory(dir=root) as directory:
        place = Place(Path(directory), root, ports[0], tuple(ports[3:]))
        session = Session(root, machine.layout(1), place)
        run = _latency_command(place, ports[:3])
        others = Place(place.directory, root, 0, place.node_ports[1:])
        with (
            _urgent_nodes(place),
            run_nodes(root, session.layout, Task(), others),
            (place.directory / "log").open("w") as log,
            run_proxy(session, run, log),
        ):
            for turn in range(rounds):
                _latency_round(session, ports[:3], seconds, results)
                print(f"\rlatency {turn + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


# ---- what is shown ----


def _rows(lines: Sequence[Line], results: Results) -> list[report.Row]:
    head = ["", "", "CPU µs/request", "added µs", "95 % interval", "× no rule", "requests/s"]
    rows = [[*head, "instructions"] if results.instructions else head]
    for line in lines:
        row = [line.proxy, line.name]
        if line.slug in results.cpu_us:
            row.append(f"{statistics.median(results.cpu_us[line.slug]):.2f}")
            if line.reference in results.cpu_us:
                added, ratio = results.added(line), results.ratio(line)
                row += [f"{added.median:+.2f}", f"{added.low:+.2f} to {added.high:+.2f}"]
                row.append(f"{ratio.median:.3f}")
            else:
                row += ["–", "–", "–"]
            row.append(f"{statistics.median(results.requests_s[line.slug]):.0f}")
        else:
            row += ["–"] * 5
        if results.instructions:
            count = results.instructions.get(line.slug)
            row.append(f"{count:.0f}" if count else "–")
        rows.append(row)
    return rows


def _latency_rows(results: Results) -> list[report.Row]:
    head = ["requests without a rule", "p50 µs", "p99 µs", "p99.9 µs", "× p99 alone"]
    rows = [[*head, "95 % interval", "others/s"]]
    for situation, rounds in results.latency.items():
        ratio = results.p99_ratio(situation)
        medians = [
            f"{statistics.median(one[metric] for one in rounds):.0f}"
            for metric in ("p50_us", "p99_us", "p999_us")
        ]
        crowd = statistics.median(one.get("crowd_s", 0) for one in rounds)
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
        rows.append([situation, *medians, f"{ratio.median:.2f}", interval, f"{crowd:.0f}"])
    return rows


def _verdict(what: str, found: Estimate, limit: float) -> tuple[str, bool]:
    met = found.median <= limit
    text = f"aim {what}: {found.median:.2f} ({found.low:.2f} to {found.high:.2f}), "
    text += "met" if met else "MISSED"
    if found.low <= limit < found.high:
        text += ", but not surely: the interval holds both"
    return text, met


def verdicts(results: Results) -> list[tuple[str, bool]]:
    found = []
    plain = next(line for line in LINES if (line.proxy, line.name) == ("fastlb", REQUEST))
    if plain.slug in results.cpu_us:
        what = f"CPU that a plain request rule adds ≤ {AIM_US:g} µs"
        found.append(_verdict(what, results.added(plain), AIM_US))
    if WAITING in results.latency:
        found.append(p99_verdict(results))
    return found


def p99_verdict(results: Results) -> tuple[str, bool]:
    what = f"p99 beside {PARKED:,} parked requests ≤ {AIM_P99:g} × alone"
    return _verdict(what, results.p99_ratio(WAITING), AIM_P99)


def _lines(results: Results) -> list[str]:
    lines = [line for line, _ in verdicts(results)]
    return [*lines, *(f"WRONG: {what}" for what in results.wrong())]


def tables(lines: Sequence[Line], results: Results) -> list[list[report.Row]]:
    found = []
    if results.cpu_us or results.instructions:
        found += [_rows([line for line in lines if not line.ladder], results)]
        found += [_rows([line for line in lines if line.ladder], results)]
    if results.latency:
        found.append(_latency_rows(results))
    return [rows for rows in found if len(rows) > 1]


def text(lines: Sequence[Line], results: Results) -> str:
    parts = ["\n".join(report.columns(rows)) for rows in tables(lines, results)]
    return "\n\n".join([*parts, "\n".join(_lines(results))]) + "\n"


# ---- the command ----


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rules",
        description="What rules cost, and what those who wait do to all others.",
        epilog="example: python -m benchmarks.rules --quick",
    )
    parser.add_argument("--rounds", type=int, default=0, help="default 40")
    parser.add_argument("--requests", type=int, default=0, help="of one slice; default 4000")
    parser.add_argument("--latency-rounds", type=int, default=-1, help="default 10; 0: none")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each latency; default 4")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: rough figures")
    parser.add_argument("--no-time", action="store_true", help="no CPU time")
    parser.add_argument(
        "--lines",
        type=lambda text: [name for name in text.split(",") if name],
        help="those without a rule are always there: " + ", ".join(one.slug for one in LINES),
    )
    parser.add_argument("--own", action="store_true", help="only fastlb")
    parser.add_argument("--instructions", action="store_true", help="count these too, by callgrind")
    parser.add_argument("--callgrind", type=Path, metavar="DIR", help="keep callgrind's files")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    parser.add_argument("--assert", dest="check", action="store_true", help="1 if an aim is missed")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.lines or ()) - {line.slug for line in LINES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    arguments.rounds = arguments.rounds or (8 if arguments.quick else 40)
    arguments.requests = arguments.requests or (2000 if arguments.quick else 4000)
    if arguments.latency_rounds < 0:
        arguments.latency_rounds = 3 if arguments.quick else 10
    if arguments.instructions and not shutil.which("vgdb"):
        parser.error("--instructions needs valgrind")
    return arguments


def _chosen(arguments: argparse.Namespace, haproxy: str | None) -> list[Line]:
    with_others = haproxy is not None and not arguments.own
    wanted = arguments.lines or [line.slug for line in LINES]
    return [
        line
        for line in LINES
        if (with_others or line.proxy.startswith("fastlb"))
        and (line.slug in wanted or line.slug == line.reference or not line.reference)
    ]


def run(arguments: argparse.Namespace) -> Results:
    results, started = Results(), time.monotonic()
    haproxy = haproxy_version()
    if not haproxy:
        print("haproxy: not installed, or without Lua: left out", file=sys.stderr)
    lines = _chosen(arguments, haproxy)
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as directory:
        root = Path(directory)
        machine.build(root)
        try:
            if not arguments.no_time:
                measure(lines, root, arguments.rounds, arguments.requests, results)
            if arguments.instructions:
                count_instructions(lines, root, 2000, results, arguments.callgrind)
            if arguments.latency_rounds:
                measure_latency(root, arguments.latency_rounds, arguments.seconds, results)
        except (RunFailed, OSError) as failure:
            results.failures.append(str(failure))
    about = machine.about(
        layout=machine.layout(1).text,
        proxies=f"fastlb {Fastlb().version()}, haproxy {haproxy or 'not here'}",
        rounds=f"{arguments.rounds} of {arguments.requests} requests for each line; latency: "
        f"{arguments.latency_rounds} of {arguments.seconds:g} s",
        took_seconds=round(time.monotonic() - started),
    )
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print()
    print(text(lines, results), flush=True)
    if arguments.json:
        whole = {"about": about, **vars(results)}
        arguments.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if arguments.markdown:
        page = report.markdown_page(about, tables(lines, results), _lines(results))
        report.markdown_write(arguments.markdown, page, "rules")
    return results


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv)
    results = run(arguments)
    missed = arguments.check and not all(met for _, met in verdicts(results))
    return 1 if missed or results.wrong() else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
