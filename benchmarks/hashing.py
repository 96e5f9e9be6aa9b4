"""python -m benchmarks.hashing: fastlb's consistent hash beside those that were not taken.

The alternatives are in hashing.c, which is compiled here. Its `rendezvous` is a copy of the
proxy's arithmetic, and the run begins by comparing it with the proxy, key by key. Rows that
begin with "fastlb" are the proxy's own code, with the states and limits of its nodes.

Times are CPU times, the least of some runs. Movement and spread are means over several sets
of nodes and keys, so that no algorithm is judged by one lucky ring.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from fastlb._core._testing_balance import hash_seconds
from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Node, Setting, seed

from . import machine, report

ALGORITHMS = (
    "rendezvous",
    "pruned",
    "slots",
    "ring-40",
    "ring-160",
    "ring-1000",
    "maglev",
    "jump",
    "modulo",
)
SIZES = (3, 10, 100, 1000, 4000)
SPREADS = ((10, "1"), (10, "1,2,3,4"), (100, "1"))
MOVES = ((10, "middle"), (10, "last"), (10, "add"), (100, "middle"), (100, "add"))


@dataclass(frozen=True)
class Effort:
    keys: int  # of movement and spread
    sets: int  # of nodes and keys
    steps: int  # nodes asked in one timing, about
    repeats: int
    sizes: tuple[int, ...]


FULL = Effort(100_000, 10, 40_000_000, 5, SIZES)
QUICK = Effort(100_000, 2, 4_000_000, 2, SIZES)
TINY = Effort(2_000, 1, 20_000, 1, SIZES[:3])


class Program:
    """hashing.c, compiled."""

    def __init__(self, directory: Path) -> None:
        machine.compile_program("hashing", directory, "-lm")
        self._path = directory / "hashing"

    def run(self, algorithm: str, what: str, *arguments: object, given: str = "") -> list[str]:
        command = [str(self._path), algorithm, what, *map(str, arguments)]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def time(self, algorithm: str, nodes: int, effort: Effort) -> tuple[float, float, int]:
        """ns per look-up, ms to make it, bytes."""
        lookups = max(1000, effort.steps // (nodes + 20))
        runs = [self.run(algorithm, "time", nodes, 1, lookups) for _ in range(effort.repeats)]
        least = [min(float(run[i]) for run in runs) for i in (0, 1)]
        return least[0], least[1] / 1e6, int(runs[0][2])

    def counts(self, algorithm: str, nodes: int, weights: str, keys: int, salt: int) -> list[int]:
        """Keys of each node."""
        first = salt * keys
        found = self.run(algorithm, "count", nodes, weights, keys, first, salt)
        return [int(count) for count in found]

    def moved(self, algorithm: str, nodes: int, keys: int, change: str, salt: int) -> list[float]:
        """Parts of the keys that moved, and that need not have."""
        found = self.run(algorithm, "move", nodes, 1, keys, change, salt)
        return [int(count) / keys for count in found]

    def picks(self, algorithm: str, nodes: Sequence[Node], keys: Sequence[int]) -> list[int]:
        given = "".join(f"{seed(node.ip, node.port)} {node.weight}\n" for node in nodes)
        given += "\n" + "".join(f"{key}\n" for key in keys)
        return [int(node) for node in self.run(algorithm, "picks", given=given)]


def pool(count: int, weights: Sequence[int] = (1,)) -> list[Node]:
    return [
        Node(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80", weight=weight)
        for i, weight in enumerate(islice(cycle(weights), count))
    ]


def world(segment: Segment, nodes: list[Node]) -> World:
    """The proxy's own view of a pool of these nodes."""
    return Setting(nodes=nodes, algorithm="hash").world(segment)


def verify(program: Program, segment: Segment, keys: int) -> None:
    """The copies give each key the node that the proxy gives it."""
    drawn = random.Random(1)
    numbers = [drawn.getrandbits(64) for _ in range(keys)]
    for nodes in (pool(7), pool(40, (1, 2, 3, 256)), pool(1000)):
        own = world(segment, nodes).picks(numbers)
        for algorithm in ("rendezvous", "pruned"):
            if program.picks(algorithm, nodes, numbers) != own:
                raise AssertionError(f"{algorithm} is not what the proxy does")


def _own_ns(segment: Segment, count: int, effort: Effort, owner: bool) -> float:
    one = world(segment, pool(count))
    keys = max(1000, effort.steps // (count + 20))
    return min(hash_seconds(one, keys, owner) for _ in range(effort.repeats)) / keys * 1e9


def cost(program: Program, segment: Segment, effort: Effort) -> list[report.Row]:
    rows = [["ns per look-up", *(f"{size:,} nodes" for size in effort.sizes)]]
    for name, owner in (("fastlb, a new session", False), ("fastlb, class `hash`", True)):
        times = [_own_ns(segment, size, effort, owner) for size in effort.sizes]
        rows.append([name, *(f"{ns:.0f}" for ns in times)])
    for algorithm in ALGORITHMS:
        times = [program.time(algorithm, size, effort)[0] for size in effort.sizes]
        rows.append([algorithm, *(f"{ns:.0f}" for ns in times)])
    return rows


def changing(program: Program, effort: Effort) -> list[report.Row]:
    sizes = effort.sizes[1:]
    rows = [["KiB; ms to make anew", *(f"{size:,} nodes" for size in sizes)]]
    for algorithm in ALGORITHMS:
        made = [program.time(algorithm, size, TINY)[1:] for size in sizes]
        cells = [f"{size / 1024:.1f}; {ms:.{2 if ms < 1 else 0}f}" for ms, size in made]
        rows.append([algorithm, *cells])
    return rows


def movement(program: Program, effort: Effort) -> list[report.Row]:
    names = [
        f"{nodes} nodes, {change} {'one' if change == 'add' else 'out'}" for nodes, change in MOVES
    ]
    ideal = [1 / (nodes + (change == "add")) for nodes, change in MOVES]
    rows = [["keys moved; of these needlessly", *names]]
    rows.append(["as few as can be", *(f"{part:.1%}; 0" for part in ideal)])
    for algorithm in ALGORITHMS:
        row = [algorithm]
        for nodes, change in MOVES:
            runs = [
                program.moved(algorithm, nodes, effort.keys, change, salt)
                for salt in range(effort.sets)
            ]
            moved, needless = (statistics.mean(run[i] for run in runs) for i in (0, 1))
            row.append(f"{moved:.1%}; {needless:.1%}" if needless else f"{moved:.1%}; 0")
        rows.append(row)
    return rows


def _deviations(counts: Sequence[int], weights: str) -> float:
    """The largest part by which a node's keys differ from its weight's share."""
    shares = list(islice(cycle(map(int, weights.split(","))), len(counts)))
    keys, total = sum(counts), sum(shares)
    return max(
        abs(count * total / (keys * share) - 1) for count, share in zip(counts, shares, strict=True)
    )


def _by_chance(nodes: int, weights: str, keys: int, salt: int) -> list[int]:
    """What a perfect algorithm does: each key falls as if by dice."""
    shares = list(islice(cycle(map(int, weights.split(","))), nodes))
    drawn = Counter(random.Random(salt).choices(range(nodes), shares, k=keys))
    return [drawn[node] for node in range(nodes)]


def spread(program: Program, effort: Effort) -> list[report.Row]:
    rows = [[f"worst node, {effort.keys:,} keys", *(f"{n} nodes, weights {w}" for n, w in SPREADS)]]
    for algorithm in ("dice", *ALGORITHMS):
        row = [algorithm]
        for nodes, weights in SPREADS:
            found = [
                _by_chance(nodes, weights, effort.keys, salt)
                if algorithm == "dice"
                else program.counts(algorithm, nodes, weights, effort.keys, salt)
                for salt in range(effort.sets)
            ]
            worst = [_deviations(counts, weights) for counts in found]
            row.append(f"{statistics.mean(worst):.1%} (at most {max(worst):.1%})")
        rows.append(row)
    return rows


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hashing",
        description="fastlb's consistent hash beside those that were not taken.",
        epilog="example: python -m benchmarks.hashing --quick",
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="rough figures")
    effort.add_argument("--tiny", action="store_true", help="only whether everything runs")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    effort = QUICK if arguments.quick else TINY if arguments.tiny else FULL
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as root, Segment.create() as segment:
        program = Program(Path(root))
        verify(program, segment, min(2000, effort.keys))
        tables = [
            cost(program, segment, effort),
            changing(program, effort),
            movement(program, effort),
            spread(program, effort),
        ]
    about = machine.about(took_seconds=round(time.monotonic() - started))
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for table in tables:
        print("", *report.columns(table), sep="\n")
    if arguments.markdown:
        report.markdown_write(arguments.markdown, report.markdown_page(about, tables), "hashing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
