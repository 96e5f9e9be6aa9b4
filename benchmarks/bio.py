"""python -m benchmarks.bio: memory BIOs beside descriptors, the figures of docs/internals/tls.md.

The server's side of TLS 1.3 alone (bio.c): CPU time and calls on the socket per request on an
open connection, and per handshake. The ways take turns; ratios are within a round.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from .certificate import certificate_make
from .machine import compile_program
from .stats import estimate

_WAYS = {
    "fd": "descriptor",
    "ahead": "descriptor, reading ahead",
    "memory": "memory BIOs",
}
_REQUESTS, _HANDSHAKES = 5000, 100


def main(rounds: int) -> int:
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory(prefix="fastlb-bench-") as text:
        directory = Path(text)
        compile_program("bio", directory, "-rdynamic", "-ldl")
        key, certificate, _ = certificate_make(directory, "ecdsa")
        for turn in range(rounds):
            ways = list(_WAYS)
            shift = turn % len(ways)
            for way in ways[shift:] + ways[:shift]:
                command = [str(directory / "bio"), str(certificate), str(key), way]
                command += [str(_REQUESTS), str(_HANDSHAKES)]
                out = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
                found[way].append(json.loads(out))
    for what in ("request", "handshake"):
        print(f"| {what} | CPU µs | calls | × descriptor | 95 % interval |")
        print("| --- | --- | --- | --- | --- |")
        for way, name in _WAYS.items():
            times = [one[what]["ns"] / 1000 for one in found[way]]
            pairs = zip(found[way], found["fd"], strict=True)
            ratio = estimate([own[what]["ns"] / other[what]["ns"] for own, other in pairs])
            calls = median(one[what]["calls"] for one in found[way])
            print(f"| {name} | {median(times):.2f} | {calls:.2f} | {ratio.median:.3f}", end="")
            print(f" | {ratio.low:.3f} to {ratio.high:.3f} |")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
