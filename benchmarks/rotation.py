"""The engine of the comparisons that rotate proxies within one run: passage, bulk, https.

For each case all proxies run at once, each with one worker on the proxies' CPU and with a
generator of its own, warmed up and kept on the other CPU. A round gives each of them one
slice of so many connections, requests or bytes while the others are idle; the next round
begins with another one. So whatever else the machine does hits all alike. What is
compared are ratios of CPU time within a round: the table has their median with its 95 %
interval. CPU time is that of all processes of a proxy.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import machine, proc, report
from .peers.base import Place
from .session import NODES, Generator, RunFailed, Session, run_generator, run_proxy
from .stats import Estimate, estimate

_SETTLE_S = 0.03  # after a slice: ends of connections that the proxy has still to see


@dataclass(frozen=True)
class Aim:
    """fastlb's figure at most `factor` times the lowest of `against` that was measured."""

    factor: float
    against: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    program: str  # the generator
    arguments: tuple[str, ...]  # of it, without port and count
    count: int  # of one slice
    unit: str = "CPU µs/connection"
    aim: Aim | None = None
    kept: bool = False  # whether clients have sessions that a proxy can keep on their node
    settings: dict[str, str] = field(default_factory=dict)  # what proxies' configurations differ by

    @property
    def per_gb(self) -> bool:
        return self.unit.endswith("/GB")


class Contestant(abc.ABC):
    """A proxy, or the floor, in the configurations that the cases ask for."""

    name: str

    @abc.abstractmethod
    def version(self) -> str | None:
        """As it says itself; None when it is not installed."""

    def refuses(self, case: Case, root: Path) -> str | None:
        """Why it cannot do this case, in words, or None."""
        return None

    @abc.abstractmethod
    def prepare(self, case: Case, place: Place) -> list[str]:
        """Writes its configuration; returns the command that runs it in the foreground."""


Nodes = Callable[[Path, machine.Layout, Case, Place], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Topic:
    name: str  # of the module, and of the marks in the page
    description: str
    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    programs: tuple[str, ...]  # compiled before
    nodes: Nodes
    libraries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rounds: int = 20
    lines: tuple[str, ...] = ()  # that stand below the tables


@dataclass
class Figures:
    """One slice."""

    cost: float  # in the case's unit
    user_share: float
    per_second: float
    reused: float  # share of the connections that had their session resumed


@dataclass
class Results:
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)  # by case, by name
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    errors: dict[str, dict[str, int]] = field(default_factory=dict)
    calls: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    foreign_cpu: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def names(self, case: Case) -> list[str]:
        return list(self.rounds.get(case.name, {}))

    def median(self, case: Case, name: str, metric: str = "cost") -> float:
        rounds = self.rounds[case.name][name]
        return statistics.median(getattr(figures, metric) for figures in rounds)

    def user_share(self, case: Case, name: str) -> float:
        """Of all rounds together: the clock's ticks are too coarse for one."""
        return statistics.mean(figures.user_share for figures in self.rounds[case.name][name])

    def ratio(self, case: Case, name: str, to: str) -> Estimate:
        both = self.rounds[case.name]
        pairs = zip(both[name], both[to], strict=True)
        return estimate([own.cost / other.cost for own, other in pairs])

    def best(self, case: Case, among: Sequence[str]) -> str | None:
        """Who of these has the lowest median."""
        found = [name for name in self.names(case) if name in among]
        return min(found, key=lambda name: self.median(case, name)) if found else None

    def wrong(self) -> list[str]:
        found = [*self.failures]
        for case, errors in self.errors.items():
            found += [f"{case}, {name}: {count} errors" for name, count in errors.items() if count]
        return found


def accepts(port: int) -> bool:
    """Whether there is somebody who listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass
class _Running:
    session: Session
    generator: Generator


@contextlib.contextmanager
def _running(
    topic: Topic, case: Case, contestants: Sequence[Contestant], root: Path, results: Results
) -> Iterator[dict[str, _Running]]:
    """Nodes, the proxies in front of them, and their generators."""
    ports = machine.free_ports(NODES + len(contestants))
    node_ports, layout = tuple(ports[:NODES]), machine.layout(1)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
        stack.enter_context(topic.nodes(root, layout, case, Place(directory, root, 0, node_ports)))
        running = {}
        for contestant, port in zip(contestants, ports[NODES:], strict=True):
            place = Place(directory / contestant.name.replace(" ", "-"), root, port, node_ports)
            place.directory.mkdir()
            try:
                running[contestant.name] = stack.enter_context(_started(contestant, case, place))
            except (RunFailed, OSError) as failure:
                results.failures.append(f"{case.name}, {contestant.name}: {failure}")
        yield running


@contextlib.contextmanager
def _started(contestant: Contestant, case: Case, place: Place) -> Iterator[_Running]:
    layout = machine.layout(1)
    session = Session(place.programs, layout, place)
    run = contestant.prepare(case, place)
    generator = [str(place.programs / case.program), "-l", str(place.port)]
    generator += ["-n", str(case.count), *case.arguments]
    with (
        (place.directory / "log").open("w") as log,
        run_proxy(session, run, log, answers=accepts),
        run_generator(layout, generator) as load,
    ):
        yield _Running(session, load)


def _slice(case: Case, name: str, one: _Running, results: Results) -> Figures:
    pids = one.session.pids()
    before = proc.cpu(pids)
    counted = one.generator.run()
    time.sleep(_SETTLE_S)
    cpu = proc.cpu(pids) - before
    errors = results.errors.setdefault(case.name, {})
    errors[name] = sum(counted["errors"].values())  # since the generator's start
    if not counted["count"]:
        raise RunFailed(f"{case.name}, {name}: nothing was done: {counted['errors']}")
    return _figures(case, cpu, counted)


def _figures(case: Case, cpu: proc.Cpu, counted: dict[str, Any]) -> Figures:
    cost = cpu.total_ns / counted["bytes"]  # ns/byte is s/GB
    if not case.per_gb:
        cost = cpu.total_ns / 1000 / counted["count"]
    return Figures(
        cost=cost,
        user_share=cpu.user_ns / cpu.total_ns if cpu.total_ns else 0.0,
        per_second=(counted["bytes"] / 1e9 if case.per_gb else counted["count"])
        / counted["seconds"],
        reused=counted.get("reused", 0) / counted["count"],
    )


def _rounds(case: Case, running: dict[str, _Running], rounds: int, results: Results) -> None:
    """One round more than asked for, of which the first is the warm-up.

    Who fails once is out of the case: ratios need whole rounds."""
    names = list(running)
    table = results.rounds.setdefault(case.name, {})
    for turn in range(rounds + 1):
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            try:
                figures = _slice(case, name, running[name], results)
            except RunFailed as failure:
                results.failures.append(str(failure))
                names.remove(name)
                table.pop(name, None)
                continue
            if turn:
                table.setdefault(name, []).append(figures)
        shown = f"\r{case.name}: round {turn} of {rounds} "
        print(shown, end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _calls(case: Case, one: _Running) -> dict[str, float]:
    """strace counts what all processes of the proxy call during one slice."""
    strace = shutil.which("strace")
    if not strace:
        raise RunFailed("strace is not installed")
    summary = one.session.place.directory / "strace"
    attach = [part for pid in one.session.pids() for part in ("-p", str(pid))]
    tracer = subprocess.Popen(
        [strace, "-f", "-c", "-o", str(summary), *attach], stderr=subprocess.PIPE, text=True
    )
    try:
        assert tracer.stderr
        for _ in one.session.pids():
            tracer.stderr.readline()  # "Process N attached"
        time.sleep(0.3)
        count = one.generator.run()["count"]
        time.sleep(_SETTLE_S)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)
    found = re.findall(
        r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", summary.read_text(), re.MULTILINE
    )
    return {call: int(number) / count for number, call in found if call != "total"}


def measure(
    topic: Topic,
    case: Case,
    contestants: Sequence[Contestant],
    rounds: int,
    root: Path,
    results: Results,
    calls: bool = False,
) -> None:
    taking_part = []
    for contestant in contestants:
        why = contestant.refuses(case, root)
        if why:
            results.refused.setdefault(case.name, {})[contestant.name] = why
        else:
            taking_part.append(contestant)
    with _running(topic, case, taking_part, root, results) as running:
        started, busy = time.monotonic(), proc.machine_busy_ns()
        ours = _own_ns()
        _rounds(case, running, rounds, results)
        foreign = (proc.machine_busy_ns() - busy) - (_own_ns() - ours)
        results.foreign_cpu[case.name] = max(0.0, foreign / 1e9 / (time.monotonic() - started))
        for name in results.names(case) if calls else ():
            results.calls.setdefault(case.name, {})[name] = _calls(case, running[name])


def _own_ns() -> int:
    return proc.cpu(proc.tree(os.getpid())).total_ns


# ---- what is shown ----


def _rows(case: Case, results: Results, peers: Sequence[str]) -> list[report.Row]:
    best = results.best(case, peers)
    floor = "floor" if "floor" in results.names(case) else None
    rate = "GB/s" if case.per_gb else "per second"
    head = ["", case.unit, "user", f"× {best or 'best peer'}", "95 % interval", "× floor", rate]
    rows = [[*head, "sessions kept"] if case.kept else head]
    form = ".3f" if case.per_gb else ".1f"
    for name in results.names(case):
        ratio = results.ratio(case, name, best) if best else None
        row = [
            name,
            format(results.median(case, name), form),
            f"{results.user_share(case, name):.0%}",
            f"{ratio.median:.3f}" if ratio else "–",
            f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio else "–",
            f"{results.ratio(case, name, floor).median:.3f}" if floor else "–",
            format(results.median(case, name, "per_second"), ".2f" if case.per_gb else ".0f"),
        ]
        kept = f"{results.median(case, name, 'reused'):.0%}"
        rows.append([*row, kept] if case.kept else row)
    return rows


def verdict(case: Case, results: Results, name: str = "") -> tuple[str, bool | None]:
    """The line about the case's aim, and whether it is met; None: it was not measured."""
    assert case.aim
    best = results.best(case, case.aim.against)
    wanted = (
        f"aim {name or case.name} ≤ {case.aim.factor:g} × {best or ' or '.join(case.aim.against)}"
    )
    if best is None or "fastlb" not in results.names(case):
        return f"{wanted}: not measured", None
    ratio = results.ratio(case, "fastlb", best)
    met = ratio.median <= case.aim.factor
    text = f"{wanted}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), "
    text += "met" if met else "MISSED"
    if ratio.low <= case.aim.factor < ratio.high:
        text += ", but not surely: the interval holds both"
    return text, met


def _lines(case: Case, results: Results) -> list[str]:
    lines = [verdict(case, results)[0]] if case.aim and results.names(case) else []
    for name, why in results.refused.get(case.name, {}).items():
        lines.append(f"not in this case: {name} ({why})")
    for name, calls in results.calls.get(case.name, {}).items():
        most = sorted(((count, call) for call, count in calls.items()), reverse=True)
        named = ", ".join(f"{call} {count:.2f}" for count, call in most if count >= 0.01)
        lines.append(f"system calls of {name}: {sum(calls.values()):.2f} ({named})")
    if results.foreign_cpu.get(case.name, 0) >= 0.05:
        share = results.foreign_cpu[case.name]
        lines.append(f"not a quiet machine: other programs used {share:.0%} of a CPU")
    return lines


def text(topic: Topic, cases: Sequence[Case], results: Results) -> str:
    lines: list[str] = []
    for case in cases:
        lines += ["", f"{topic.name} {case.name}: {case.title}"]
        lines += report.columns(_rows(case, results, _peers(topic)))
        lines += [f"  {line}" for line in _lines(case, results)]
    lines += ["", *(f"WRONG: {what}" for what in results.wrong())]
    return "\n".join(lines).rstrip() + "\n"


def markdown(
    topic: Topic, cases: Sequence[Case], results: Results, about: dict[str, object]
) -> str:
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in about.items()]
    for case in cases:
        lines += ["", f"### `{topic.name}` {case.name}: {case.title}", ""]
        lines += report.markdown_table(_rows(case, results, _peers(topic)))
        lines += ["", *(f"- {line}" for line in _lines(case, results))]
    lines += ["", *(f"- WRONG: {what}" for what in results.wrong())]
    return "\n".join(lines).rstrip() + "\n"


def _peers(topic: Topic) -> list[str]:
    names = [contestant.name for contestant in topic.contestants]
    return [name for name in names if name != "floor" and not name.startswith("fastlb")]


# ---- the command ----


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def arguments_of(topic: Topic, argv: Sequence[str] | None) -> argparse.Namespace:
    cases, proxies = ([item.name for item in items] for items in (topic.cases, topic.contestants))
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{topic.name}",
        description=topic.description,
        epilog=f"example: python -m benchmarks.{topic.name} --cases {cases[0]} --quick",
    )
    parser.add_argument("--cases", type=_names, default=cases, help=", ".join(cases))
    parser.add_argument("--proxies", type=_names, default=proxies, help=", ".join(proxies))
    add_options(parser, str(topic.rounds))
    arguments = parser.parse_args(argv)
    for chosen, known in ((arguments.cases, cases), (arguments.proxies, proxies)):
        unknown = set(chosen) - set(known)
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def add_options(parser: argparse.ArgumentParser, rounds: str, json: str = "FILE") -> None:
    parser.add_argument("--rounds", type=int, help=f"default {rounds}")
    parser.add_argument("--scale", type=float, default=1.0, help="of a slice; 0.1: a tenth of it")
    parser.add_argument("--quick", action="store_true", help="few rounds of half slices: rough")
    parser.add_argument("--calls", action="store_true", help="count system calls too (strace)")
    parser.add_argument("--json", type=Path, metavar=json)
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    parser.add_argument("--assert", dest="check", action="store_true", help="1 if an aim is missed")


@dataclass
class Outcome:
    """A topic that was measured."""

    topic: Topic
    cases: list[Case]
    results: Results

    def verdicts(self) -> list[tuple[str, bool | None]]:
        return [
            verdict(case, self.results, f"{self.topic.name} {case.name}")
            for case in self.cases
            if case.aim
        ]


def installed(topic: Topic, wanted: Sequence[str]) -> dict[Contestant, str]:
    found = {}
    for contestant in topic.contestants:
        if contestant.name in wanted:
            version = contestant.version()
            if version is None:
                print(f"{contestant.name}: not installed, left out", file=sys.stderr)
            else:
                found[contestant] = version
    return found


def _scaled(case: Case, scale: float) -> Case:
    return replace(case, count=max(1, round(case.count * scale)))


def run(topic: Topic, arguments: argparse.Namespace) -> Outcome:
    """Measures, prints, writes what was asked for."""
    contestants = installed(topic, arguments.proxies)
    rounds = arguments.rounds or (6 if arguments.quick else topic.rounds)
    scale = arguments.scale * (0.5 if arguments.quick else 1)
    cases = [_scaled(case, scale) for case in topic.cases if case.name in arguments.cases]
    results, started = Results(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as directory:
        root = Path(directory)
        for program in topic.programs:
            machine.compile_program(program, root, *topic.libraries.get(program, ()))
        for case in cases:
            try:
                measure(topic, case, list(contestants), rounds, root, results, arguments.calls)
            except (RunFailed, OSError, subprocess.SubprocessError) as failure:
                results.failures.append(f"{case.name}: {failure}")
    versions = ", ".join(f"{one.name} {version}" for one, version in contestants.items())
    took = round(time.monotonic() - started)
    layout = machine.layout(1).text
    about = machine.about(layout=layout, proxies=versions, rounds=rounds, took_seconds=took)
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print(text(topic, cases, results), flush=True)
    if arguments.json:
        figures = {
            case: {name: [vars(one) for one in found] for name, found in by_name.items()}
            for case, by_name in results.rounds.items()
        }
        whole = {"about": about, "cases": figures, "calls": results.calls, "wrong": results.wrong()}
        arguments.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if arguments.markdown:
        page = markdown(topic, cases, results, about)
        report.markdown_write(arguments.markdown, page, topic.name)
    return Outcome(topic, cases, results)


def main(topic: Topic, argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(topic, argv)
    outcome = run(topic, arguments)
    missed = arguments.check and any(met is not True for _, met in outcome.verdicts())
    return 1 if missed or outcome.results.wrong() else 0
