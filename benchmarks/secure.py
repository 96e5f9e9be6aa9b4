"""python -m benchmarks.secure: passage, bulk, https and fairness, one after the other.

One command for a quiet machine (about 25 minutes): it renews the page's four parts and
ends with all aims in one list.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import bulk, fairness, https, passage, rotation
from .session import leave

TOPICS = (passage.TOPIC, bulk.TOPIC, https.TOPIC)


def _options(arguments: argparse.Namespace) -> list[str]:
    """What each part is given."""
    options = ["--scale", str(arguments.scale)]
    for name in ("quick", "calls"):
        options += [f"--{name}"] if getattr(arguments, name) else []
    options += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    options += ["--markdown", str(arguments.markdown)] if arguments.markdown else []
    return options


def _json(directory: Path | None, name: str) -> list[str]:
    return ["--json", str(directory / f"{name}.json")] if directory else []


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.secure",
        description="All that is measured about TLS and TCP, and a summary.",
        epilog="example: python -m benchmarks.secure --markdown docs/performance.md",
    )
    rotation.add_options(parser, "that of each part", "DIR")
    arguments = parser.parse_args(argv)
    if arguments.json:
        arguments.json.mkdir(parents=True, exist_ok=True)
    verdicts: list[tuple[str, bool | None]] = []
    wrong: list[str] = []
    for topic in TOPICS:
        options = [*_options(arguments), *_json(arguments.json, topic.name)]
        outcome = rotation.run(topic, rotation.arguments_of(topic, options))
        verdicts += outcome.verdicts()
        wrong += [f"{topic.name} {what}" for what in outcome.results.wrong()]
    options = [*_options(arguments), *_json(arguments.json, "fairness")]
    found = fairness.run(fairness.arguments_of(options))
    verdicts += fairness.verdicts(found)
    wrong += [f"fairness {what}" for what in found.wrong]
    print("summary:")
    print("\n".join([*(line for line, _ in verdicts), *(f"WRONG: {what}" for what in wrong)]))
    missed = arguments.check and any(met is not True for _, met in verdicts)
    return 1 if missed or wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
