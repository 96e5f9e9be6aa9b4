"""python -m benchmarks.fairness: how long requests take while a flood of handshakes runs.

Each proxy serves requests of TLS 1.3 on connections that are open, 500 a second by the
clock, first alone and then while 64 clients make one new connection after another, each
with a full handshake (RSA of 2048 bits): more than one CPU can do. The latency is counted
from when a request was due. Handshakes per second stand beside it: a proxy that starved
them would have an easy time. The generator of the requests runs with a real-time priority
where that is allowed, so that the flood's own clients are not what it waits for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import machine, report
from .https import TOPIC, nodes
from .peers.base import Place
from .rotation import Case, Contestant, accepts, add_options, installed
from .session import NODES, Generator, RunFailed, Session, leave, run_generator, run_proxy

RATE = 500
_FLOOD_SLOTS = 64
_HEAD_START_S = 0.3
CASE = Case("fairness", "requests under a flood of handshakes", "https_load", (), 1)
_METRICS = ("p50_us", "p99_us", "p999_us")


@dataclass
class Results:
    quiet: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    flooded: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    handshakes: dict[str, list[float]] = field(default_factory=dict)  # per second
    refused: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def median(self, table: dict[str, list[dict[str, float]]], name: str, metric: str) -> float:
        return statistics.median(figures[metric] for figures in table[name])


def urgent() -> list[str]:
    """The words before a command that has to run at once when it can."""
    with contextlib.suppress(OSError):
        policy = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, os.sched_param(0))
        return ["chrt", "-f", "1"]
    return []


@contextlib.contextmanager
def _generators(place: Place, seconds: float) -> Iterator[tuple[Generator, Generator]]:
    """The requests', and the flood's, which takes longer."""
    layout, program = machine.layout(1), [str(place.programs / "https_load"), "-l", str(place.port)]
    requests = [*urgent(), *program, "-c", "16", "-r", str(RATE), "-d", str(seconds)]
    flood = [*program, "-c", str(_FLOOD_SLOTS), "-m", "full"]
    flood += ["-d", str(seconds + 2 * _HEAD_START_S)]
    with run_generator(layout, requests) as first, run_generator(layout, flood) as second:
        yield first, second


def _measure(contestant: Contestant, place: Place, seconds: float, results: Results) -> None:
    session = Session(place.programs, machine.layout(1), place)
    command = contestant.prepare(CASE, place)
    with (
        (place.directory / "log").open("w") as log,
        run_proxy(session, command, log, answers=accepts),
        _generators(place, seconds) as (requests, flood),
    ):
        quiet = requests.run()
        found: dict[str, Any] = {}
        flooding = threading.Thread(target=lambda: found.update(flood.run()))
        flooding.start()
        time.sleep(_HEAD_START_S)
        flooded = requests.run()
        flooding.join()
    name = contestant.name
    for what, counted in (("requests", flooded), ("handshakes", found)):
        if counted.get("errors", "ended early"):
            results.wrong.append(f"{name}: {what}: {counted.get('errors', 'ended early')}")
    if not found.get("count") or not flooded["count"]:
        return  # said above, and no figure
    results.quiet.setdefault(name, []).append(quiet)
    results.flooded.setdefault(name, []).append(flooded)
    results.handshakes.setdefault(name, []).append(found["count"] / found["seconds"])


def measure(
    contestants: Sequence[Contestant], rounds: int, seconds: float, root: Path, results: Results
) -> None:
    for turn in range(rounds):
        for contestant in contestants:
            port, *node_ports = machine.free_ports(NODES + 1)
            with tempfile.TemporaryDirectory(dir=root) as directory:
                place = Place(Path(directory), root, port, tuple(node_ports))
                with nodes(root, machine.layout(1), CASE, place):
                    _measure(contestant, place, seconds, results)
            print(f"\rround {turn + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _rows(results: Results) -> list[report.Row]:
    rows = [["", "alone: p50 / p99 / p99.9 µs", "flooded: p50 / p99 / p99.9 µs", "handshakes/s"]]
    for name in results.quiet:
        cells = [
            " / ".join(f"{results.median(table, name, metric):.0f}" for metric in _METRICS)
            for table in (results.quiet, results.flooded)
        ]
        rows.append([name, *cells, f"{statistics.median(results.handshakes[name]):.0f}"])
    return rows


def verdicts(results: Results) -> list[tuple[str, bool | None]]:
    """p99 of requests in the flood, beside the lower one of the others."""
    peers = [name for name in results.flooded if name != "fastlb"]
    if not peers or "fastlb" not in results.flooded:
        return [("aim fairness, p99 in the flood ≤ 1 × best peer: not measured", None)]
    best = min(peers, key=lambda name: results.median(results.flooded, name, "p99_us"))
    ratio = results.median(results.flooded, "fastlb", "p99_us") / results.median(
        results.flooded, best, "p99_us"
    )
    met = ratio <= 1
    shown = f"{ratio:.2f}, {'met' if met else 'MISSED'}"
    return [(f"aim fairness, p99 in the flood ≤ 1 × {best}: {shown}", met)]


def _lines(results: Results) -> list[str]:
    lines = [text for text, _ in verdicts(results)]
    lines += [f"not measured: {name} ({why})" for name, why in results.refused.items()]
    return lines + [f"WRONG: {what}" for what in results.wrong]


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fairness",
        description="How long requests take while a flood of handshakes runs.",
        epilog="example: python -m benchmarks.fairness --quick",
    )
    names = [contestant.name for contestant in TOPIC.contestants]
    parser.add_argument(
        "--proxies", type=lambda text: text.split(","), default=names, help=", ".join(names)
    )
    add_options(parser, "5")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.proxies) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def run(arguments: argparse.Namespace) -> Results:
    contestants = installed(TOPIC, arguments.proxies)
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    seconds = 3.0 * arguments.scale * (0.5 if arguments.quick else 1)
    results, started = Results(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as directory:
        root = Path(directory)
        for program in TOPIC.programs:
            machine.compile_program(program, root)
        taking_part = []
        for contestant in contestants:
            why = contestant.refuses(CASE, root)
            if why:
                results.refused[contestant.name] = why
            else:
                taking_part.append(contestant)
        try:
            measure(taking_part, rounds, seconds, root, results)
        except (RunFailed, OSError, subprocess.SubprocessError) as failure:
            results.wrong.append(str(failure))
    versions = ", ".join(f"{one.name} {version}" for one, version in contestants.items())
    about = machine.about(
        layout=machine.layout(1).text,
        proxies=versions,
        rounds=f"{rounds} of {seconds:g} s",
        took_seconds=round(time.monotonic() - started),
    )
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print()
    print(f"fairness: {RATE} requests/s, alone and under a flood of full handshakes")
    print("\n".join([*report.columns(_rows(results)), "", *_lines(results), ""]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": about, **vars(results)}, indent=1) + "\n")
    if arguments.markdown:
        page = report.markdown_page(about, [_rows(results)], _lines(results))
        report.markdown_write(arguments.markdown, page, "fairness")
    return results


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv)
    results = run(arguments)
    missed = arguments.check and any(met is not True for _, met in verdicts(results))
    return 1 if missed or results.wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
