"""python -m benchmarks: cases, peers, rounds; prints a table, writes JSON and a picture.

Rounds are interleaved: each round measures every peer of a case once, so that a machine
that gets slower or faster in between does so for all. All state is in a temporary
directory; every process ends with its run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import machine, report
from .cases import CASES, Case, Kind
from .measure import FULL, QUICK, Durations, measure
from .peers import PEERS, Peer
from .results import Results
from .session import RunFailed, leave

_ROUNDS_FULL, _ROUNDS_QUICK = 5, 1


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures fastlb beside its peers and the floor.",
        epilog="example: python -m benchmarks --cases cookie,source --peers floor,haproxy --quick",
    )
    parser.add_argument("--cases", type=_names, help=", ".join(case.name for case in CASES))
    parser.add_argument("--peers", type=_names, help=", ".join(peer.name for peer in PEERS))
    parser.add_argument("--rounds", type=int, help=f"default {_ROUNDS_FULL}")
    parser.add_argument("--quick", action="store_true", help="one short round: rough figures")
    parser.add_argument("--seconds", type=float, help="of a round's measured part")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE")
    parser.add_argument("--assert", dest="check", action="store_true", help="1 if an aim is missed")
    arguments = parser.parse_args(argv)
    for chosen, known in ((arguments.cases, CASES), (arguments.peers, PEERS)):
        unknown = set(chosen or ()) - {item.name for item in known}
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def _installed(wanted: list[str] | None) -> dict[Peer, str]:
    """Peers with their versions, those that are missing named."""
    found: dict[Peer, str] = {}
    for peer in PEERS:
        if wanted is not None and peer.name not in wanted:
            continue
        version = peer.version()
        if version is None:
            print(f"{peer.name}: not installed, left out", file=sys.stderr)
        else:
            found[peer] = version
    return found


def _takes_part(case: Case, peer: Peer, results: Results) -> bool:
    if peer.name == "direct":
        return case.kind is Kind.LATENCY
    why = peer.refuses(case.task)
    if why:
        results.refused[case.name, peer.name] = why
    return not why


def _run_case(
    case: Case,
    peers: Sequence[Peer],
    rounds: int,
    durations: Durations,
    results: Results,
    root: Path,
) -> None:
    peers = [peer for peer in peers if _takes_part(case, peer, results)]
    for turn in range(min(rounds, case.rounds_max)):
        for peer in peers:
            with tempfile.TemporaryDirectory(dir=root) as place:
                try:
                    figures = measure(case, peer, durations, root, Path(place))
                except (RunFailed, OSError, subprocess.SubprocessError) as failure:
                    results.failures.append(f"{case.name}, {peer.name}: {failure}")
                    print(f"{case.name} {peer.name}: {failure}", file=sys.stderr)
                    continue
            results.add(case, peer.name, figures)
            print(f"\r{case.name} {turn + 1}: {peer.name:<12}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _about(peers: dict[Peer, str], rounds: int, durations: Durations) -> dict[str, object]:
    return {
        **machine.about(),
        "layout": {f"{workers} worker(s)": machine.layout(workers).text for workers in (1, 2)},
        "peers": {peer.name: version for peer, version in peers.items()},
        "rounds": rounds,
        "seconds_per_round": durations.measured_s,
    }


def _write(
    arguments: argparse.Namespace, results: Results, cases: Sequence[Case], about: dict[str, object]
) -> None:
    """The files that were asked for, with what there is so far."""
    if arguments.json:
        whole = {"about": about, **results.as_json()}
        arguments.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if arguments.markdown:
        report.markdown_write(arguments.markdown, report.markdown(results, cases, about))
    if arguments.svg:
        arguments.svg.write_text(report.svg(results, cases))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    rounds = arguments.rounds or (_ROUNDS_QUICK if arguments.quick else _ROUNDS_FULL)
    durations = QUICK if arguments.quick else FULL
    if arguments.seconds:
        durations = replace(durations, measured_s=arguments.seconds)
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    peers = _installed(arguments.peers)
    about = _about(peers, rounds, durations)
    results = Results()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as root:
        machine.build(Path(root))
        for case in cases:
            _run_case(case, list(peers), rounds, durations, results, Path(root))
            about["took_seconds"] = round(time.monotonic() - started)
            _write(arguments, results, cases, about)
    print(json.dumps(about, indent=1, ensure_ascii=False))
    print(report.text(results, cases))
    if arguments.check:
        return 0 if report.aims_met(results, cases) else 1
    return 1 if results.failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
