"""One run: nodes, a proxy in front of them, the generator; all ended when it is over.

Every process is started with `setpriv --pdeathsig`, so that it ends with the runner even
when that is killed, and is otherwise ended by its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import machine, proc
from .cases import Load, Task
from .peers import Peer
from .peers.base import Place

NODES = 4
_START_S = 20.0
_STOP_S = 5.0


class RunFailed(Exception):
    """A process did not start, or did not do its part; the text says which and why."""


def leave(signal_number: int, frame: object) -> None:
    """TERM ends a runner as Ctrl-C does: by way of every `finally`."""
    raise KeyboardInterrupt


def _pinned(cpus: str, command: list[str]) -> list[str]:
    return ["taskset", "-c", cpus, "setpriv", "--pdeathsig", "TERM", "--", *command]


def _popen(command: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(command, text=True, start_new_session=True, **options)


def _end(process: subprocess.Popen[str]) -> None:
    """TERM, and KILL for whatever of its tree is left."""
    pids = proc.tree(process.pid) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


@dataclass(frozen=True)
class Seen:
    """What the nodes saw: clients, clients that met more than one node, requests by node."""

    clients: int
    moved: int
    requests: list[int]
    connections: int
    movers: frozenset[int]  # the clients that moved


def read_table(path: Path) -> Seen:
    nodes_by_client: dict[int, set[str]] = defaultdict(set)
    requests: list[int] = []
    connections = 0
    for line in path.read_text().splitlines():
        kind, port, first, second = line.split()
        if kind == "node":
            requests.append(int(first))
            connections += int(second)
        else:
            nodes_by_client[int(first)].add(port)
    movers = frozenset(client for client, nodes in nodes_by_client.items() if len(nodes) > 1)
    return Seen(len(nodes_by_client), len(movers), requests, connections, movers)


def worker_of(root: int) -> int:
    """The only process of the tree without children of its own."""
    leaves = [pid for pid in proc.tree(root) if len(proc.tree(pid)) == 1]
    if len(leaves) != 1:
        raise RunFailed(f"one worker was expected, not {len(leaves)}")
    return leaves[0]


class Generator:
    """The load program after its warm-up; each run is a measured part."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self) -> dict[str, Any]:
        """One measured part; what the program counted."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write("go\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RunFailed("the generator ended without a result")
        result: dict[str, Any] = json.loads(line)
        return result


@contextlib.contextmanager
def run_generator(layout: machine.Layout, command: list[str]) -> Iterator[Generator]:
    """A program of the generators' manners, warmed up and with nothing in flight."""
    process = _popen(_pinned(layout.others, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise RunFailed("the generator did not get through its warm-up")
        yield Generator(process)
        process.stdin.close()
        process.wait(_STOP_S)
    finally:
        _end(process)


class Session:
    """A proxy that runs, and its nodes."""

    def __init__(self, programs: Path, layout: machine.Layout, place: Place) -> None:
        self.layout = layout
        self.place = place
        self._programs = programs
        self.root = 0  # the proxy's first process; 0: there is no proxy
        self.seen: Seen | None = None  # known when the session is over

    def pids(self) -> list[int]:
        return proc.tree(self.root) if self.root else []

    @contextlib.contextmanager
    def generator(
        self, task: Task, load: Load, *arguments: str, port: int = 0
    ) -> Iterator[Generator]:
        """The generator, warmed up and with nothing in flight."""
        command = [str(self._programs / "load"), "-l", str(port or self.place.port)]
        command += ["-c", str(load.slots), *arguments]
        for option, value in (("-k", load.clients), ("-i", load.in_flight), ("-r", load.rate)):
            command += [option, str(value)] if value else []
        command += ["-s"] if load.own_sources else []
        command += ["-C"] if task.new_connections else []
        with run_generator(self.layout, command) as generator:
            yield generator


def answers_http(port: int) -> bool:
    request = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
        probe.settimeout(1)
        probe.sendall(request)
        return probe.recv(4096).startswith(b"HTTP/1.1 200")
    return False


def _wait_until_it_answers(
    process: subprocess.Popen[str],
    port: int,
    log: Path,
    start_s: float,
    answers: Callable[[int], bool],
) -> None:
    deadline = time.monotonic() + start_s
    while not answers(port):
        if process.poll() is not None:
            raise RunFailed(f"ended with {process.returncode}: {log.read_text()[-2000:].strip()}")
        if time.monotonic() > deadline:
            raise RunFailed(f"no answer in {start_s:.0f} s: {log.read_text()[-2000:].strip()}")
        time.sleep(0.02)


@contextlib.contextmanager
def run_nodes(programs: Path, layout: machine.Layout, task: Task, place: Place) -> Iterator[None]:
    command = [str(programs / "node"), "-p", ",".join(map(str, place.node_ports))]
    command += ["-s", str(task.body_bytes), "-o", str(place.directory / "table")]
    with run_ready(layout, command):
        yield


@contextlib.contextmanager
def run_ready(layout: machine.Layout, command: list[str]) -> Iterator[None]:
    """A program that says that it is ready, for as long as it is needed."""
    process = _popen(_pinned(layout.others, command), stdout=subprocess.PIPE)
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise RunFailed("the nodes did not start")
        yield
    finally:
        _end(process)


@contextlib.contextmanager
def run_proxy(
    session: Session,
    command: list[str],
    log: IO[str],
    start_s: float = _START_S,
    answers: Callable[[int], bool] = answers_http,
) -> Iterator[None]:
    process = _popen(
        _pinned(session.layout.proxy, command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=session.place.directory,
    )
    try:
        _wait_until_it_answers(process, session.place.port, Path(log.name), start_s, answers)
        session.root = process.pid
        yield
    finally:
        _end(process)


@contextlib.contextmanager
def open_session(peer: Peer, task: Task, programs: Path, directory: Path) -> Iterator[Session]:
    """Starts nodes and proxy in `directory`; afterwards `seen` tells what the nodes saw."""
    port, *node_ports = machine.free_ports(NODES + 1)
    place = Place(directory, programs, port, tuple(node_ports))
    layout = machine.layout(task.workers)
    command = peer.prepare(task, place)
    if not command:
        place = Place(directory, programs, node_ports[0], tuple(node_ports))
    session = Session(programs, layout, place)
    with run_nodes(programs, layout, task, place):
        if command:
            with (directory / "log").open("w") as log, run_proxy(session, command, log):
                yield session
        else:
            yield session
    session.seen = read_table(directory / "table")
