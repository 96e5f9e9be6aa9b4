"""Coverage-guided fuzzing of the targets, in the fuzz build.

    ci/build fuzz
    ci/fuzz [--seconds 30] [TARGET...]

An input that takes an edge, or goes over it so much more often, that none before did is kept and
changed further. What it finds new goes into tests/fuzz/corpus/TARGET, cut down to what is needed
for its edges, one line of base64 each; an input that breaks a promise into
tests/fuzz/crashes/TARGET. One on which the process dies is the only line of TARGET.now there.
test_fuzz.py replays them all.
"""

import argparse
import base64
import ctypes
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.targets import MOST_BYTES, TARGETS, seeds

HERE = Path(__file__).parent
WORDS = [
    b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"Host: a",
    b"Content-Length: ",
    b"chunked",
    b"Transfer-Encoding: ",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"upgrade",
    b"Upgrade: ",
    b"Expect: 100-continue",
    b"Cookie: ",
    b"TE: ",
    b"http://",
    b"https://",
    b"[::1]",
    b"0\r\n\r\n",
    b";a=b",
    b'"',
    b"\\",
    b"%41",
    b"ffffffffffffffff",
    b"9223372036854775807",
    b"::",
    b"255.1.1.1",
    b"PROXY ",
    b"UNKNOWN",
    b"TCP4",
    b"TCP6",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"jsessionid=",
    b"(S(",
    b"))/",
    b"Expires=",
    b"Max-Age=",
    b"GMT",
    b"Path=/",
    b"\x16\x03\x01",
    b"\x01\x00",
    b"\x00\x00",
    b"\xff",
    b"\x00\x23",
    b"\x00\x10",
    b"\x00\x29",
    b"\x00\x2b",
]


def mutate(pick: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four changes."""
    out = bytearray(data)
    for _ in range(pick.choice([1, 1, 2, 3, 4])):
        at = pick.randrange(len(out) + 1)
        how = pick.randrange(9)
        if how == 0 and out:
            out[at % len(out)] ^= 1 << pick.randrange(8)
        elif how == 1 and out:
            out[at % len(out)] = pick.randrange(256)
        elif how == 2:
            out[at:at] = pick.choice(WORDS)
        elif how == 3:
            del out[at : at + pick.choice([1, 1, 2, 4, 8, 32])]
        elif how == 4:
            out[at:at] = bytes([pick.randrange(256)]) * pick.choice([1, 1, 2, 16, 200])
        elif how == 5:
            length = pick.choice([1, 4, 16, 64])
            out[at:at] = out[max(0, at - length) : at] * pick.choice([1, 2, 30])
        elif how == 6:
            other = pick.choice(others)
            begin = pick.randrange(len(other) + 1)
            out[at:at] = other[begin : begin + pick.choice([4, 16, 100])]
        elif how == 7:
            word = pick.choice(WORDS)
            out[at : at + len(word)] = word
        elif out:
            out[at % len(out)] = (out[at % len(out)] + pick.choice([1, 255, 16, 240])) % 256
    return bytes(out[:MOST_BYTES]) or b"\0"


class Engine:
    """One target."""

    def __init__(self, name: str, cover: ctypes.CDLL, seed: int):
        self.name = name
        self.target: Callable[[bytes], None] = TARGETS[name]
        self.cover = cover
        self.pick = random.Random(f"{seed} {name}")
        self.corpus: list[bytes] = []
        self.runs = 0
        self.crashes = 0
        self.file = HERE / "corpus" / name
        self.broken = HERE / "crashes" / name

    def run(self, data: bytes) -> int:
        """How much of what it did is new; a broken promise is written down."""
        self.runs += 1
        self.now.seek(0)
        self.now.write(base64.b64encode(data) + b"\n")
        self.now.truncate()
        self.cover.cover_begin()
        try:
            self.target(data)
        except Exception:
            self.cover.cover_end()
            write(self.broken, [*stored(self.broken), data])
            self.crashes += 1
            traceback.print_exc()
            return 0
        return int(self.cover.cover_end())

    def fuzz(self, seconds: float) -> None:
        self.broken.parent.mkdir(exist_ok=True)
        now = self.broken.with_suffix(".now")
        # A process that dies leaves its input behind.
        with now.open("w+b", buffering=0) as self.now:
            self.cover.cover_forget()
            first = seeds()[self.name] + stored(self.file) + stored(self.broken)
            for data in sorted(first, key=len):
                if self.run(data):
                    self.corpus.append(data)
            begun, known = len(self.corpus), int(self.cover.cover_edges())
            end = time.monotonic() + seconds
            while time.monotonic() < end and not self.crashes:
                for _ in range(200):
                    data = mutate(self.pick, self.pick.choice(self.corpus), self.corpus)
                    if self.run(data):
                        self.corpus.append(data)
            edges = int(self.cover.cover_edges())
            self._keep()
        now.unlink()
        print(
            f"{self.name:14} {self.runs:>9} runs {edges:>6} edges (+{edges - known}) "
            f"{len(stored(self.file)):>5} kept of {len(self.corpus)} (began with {begun}) "
            f"{self.crashes} crashes",
            flush=True,
        )

    def _keep(self) -> None:
        """Of the corpus what is needed for its edges, the shortest first, in place of what was."""
        self.cover.cover_forget()
        write(self.file, [one for one in sorted(set(self.corpus), key=by_length) if self.run(one)])


def by_length(data: bytes) -> tuple[int, bytes]:
    return len(data), data


def write(file: Path, inputs: list[bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(base64.b64encode(one) + b"\n" for one in inputs))


def stored(file: Path) -> list[bytes]:
    if not file.exists():
        return []
    return [base64.b64decode(line, validate=True) for line in file.read_bytes().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=30, help="for each target")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    given = parser.parse_args()
    cover = ctypes.CDLL(os.environ["FASTLB_COVER"])
    print(f"seed {given.seed}")
    engines = [Engine(name, cover, given.seed) for name in given.targets or TARGETS]
    for engine in engines:
        engine.fuzz(given.seconds)
    return any(engine.crashes for engine in engines)


if __name__ == "__main__":
    sys.exit(main())
