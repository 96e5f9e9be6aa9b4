"""python -m benchmarks.bulk: proxy CPU seconds per GB relayed.

`tcp`: bytes that go through as they are, in messages of several sizes on connections that
stay open, each asked for with a line by its client: fastlb (protocol "tcp"), nginx (stream),
HAProxy with and without `option splice-auto`, and a floor that splices. The generator has
the kernel drop what it receives (MSG_TRUNC), so that it costs next to nothing.
"""

from __future__ import annotations

import signal
import sys

from .passage import FastlbPassage, Floor, HAProxyPassage, NginxPassage, nodes
from .rotation import Aim, Case, Topic, main
from .session import leave

SPLICING = "haproxy splice"


def _case(name: str, size: int, slots: int, count: int) -> Case:
    return Case(
        name,
        f"messages of {name}, {slots} connection{'s' if slots > 1 else ''}",
        "stream_load",
        ("-c", str(slots), "-b", str(size)),
        count,
        unit="CPU s/GB",
        aim=Aim(1.0, (SPLICING,)),
        settings={"tls": "", "splice": "yes", "nginx_buffer": "64k"},
    )


CASES = (
    _case("16KiB", 16 << 10, 16, 16000),
    _case("64KiB", 64 << 10, 16, 8000),
    _case("1MiB", 1 << 20, 16, 800),
    _case("1GiB", 1 << 30, 1, 1),
)

TOPIC = Topic(
    "bulk",
    "Proxy CPU seconds per GB relayed through protocol tcp.",
    CASES,
    (
        FastlbPassage(),
        NginxPassage(),
        HAProxyPassage(),
        HAProxyPassage(SPLICING, "option splice-auto"),
        Floor(),
    ),
    ("stream_node", "stream_load", "mover"),
    nodes,
    rounds=15,
)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main(TOPIC))
    except KeyboardInterrupt:
        sys.exit(130)
