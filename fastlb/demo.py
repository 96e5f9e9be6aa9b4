"""`fastlb demo`: three small nodes on loopback, the proxy in front, and stickiness to watch.

The proxy is the real one, started with examples/quickstart.toml as a process of its own. Where a
port of that file is taken, another one is used and said. With `once` the demo checks itself and
ends; without, it runs until Ctrl-C.
"""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fastlb.demo_nodes import DemoNode
from fastlb.demo_users import DemoUser

NODES = (("amber", "#b45309"), ("jade", "#047857"), ("indigo", "#4338ca"))
USERS = ("ann", "ben", "cho", "dee", "eli", "fay")
ONCE_USERS, ONCE_REQUESTS = 30, 10
READY_SECONDS, STOP_SECONDS = 15, 10
TURN_SECONDS = 1.0  # between two requests of the same simulated user
EXAMPLES = (
    Path(__file__).parent / "examples/quickstart.toml",
    Path(__file__).parents[1] / "examples/quickstart.toml",
)


class DemoFailed(Exception):
    """The demo cannot go on; the text says why, for the user."""


def run_demo(once: bool) -> int:
    """Run the demo; the exit code: 0 done, 1 it failed."""
    try:
        with started_nodes() as nodes, tempfile.TemporaryDirectory(prefix="fastlb-demo-") as folder:
            address, file = write_config(nodes, Path(folder))
            with started_proxy(file):
                say_hello(address, nodes)
                return check_once(address) if once else show(address, nodes)
    except DemoFailed as failure:
        print(f"fastlb: {failure}", file=sys.stderr)
        return 1


# --- nodes, configuration, proxy ---


def quickstart() -> str:
    """The text of the example that the demo runs."""
    for path in EXAMPLES:
        if path.exists():
            return path.read_text()
    raise DemoFailed(f"the example {EXAMPLES[0]} is missing; install fastlb again")


@contextlib.contextmanager
def started_nodes() -> Iterator[dict[str, DemoNode]]:
    """The demo's nodes by address; the addresses are the example's wherever they are free."""
    wished = tomllib.loads(quickstart())["pools"]["web"]["nodes"]
    nodes: dict[str, DemoNode] = {}
    begun: set[str] = set()
    try:
        for (name, colour), wish in zip(NODES, wished, strict=True):
            node = DemoNode(name, colour, begun)
            host, _, port = wish.rpartition(":")
            nodes[node.start(host, int(port))] = node
        yield nodes
    finally:
        for node in nodes.values():
            node.stop()


def write_config(nodes: dict[str, DemoNode], folder: Path) -> tuple[tuple[str, int], Path]:
    """The example with the addresses that are in use now; the proxy's address and its file."""
    text = quickstart()
    document = tomllib.loads(text)
    for wish, address in zip(document["pools"]["web"]["nodes"], nodes, strict=True):
        text = replaced(text, wish, address)
    (wish,) = document["virtual_servers"]["demo"]["listen"]
    host, _, port = wish.rpartition(":")
    free = free_port(host, int(port))
    text = replaced(text, wish, f"{host}:{free}")
    settings = f'[proxy]\nstate_dir = "{folder}/state"\naccess_log = "{folder}/access.log"\n\n'
    file = folder / "demo.toml"
    file.write_text(settings + text)
    return (host, free), file


def replaced(text: str, wish: str, address: str) -> str:
    if wish != address:
        print(f"{wish} is taken; using {address}")
    return text.replace(f'"{wish}"', f'"{address}"')


def free_port(host: str, wished: int) -> int:
    """The wished port, or another one when something listens there."""
    for port in (wished, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise DemoFailed(f"no free port on {host}")


@contextlib.contextmanager
def started_proxy(file: Path) -> Iterator[None]:
    """`fastlb run` until the end of the with statement."""
    log = file.with_name("proxy.log")
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastlb", "run", "-c", str(file)],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is the demo's; the proxy is stopped in order below
        )
    try:
        wait_ready(process, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        text = log.read_text(errors="replace")
        if any(line.startswith("fastlb: ready") for line in text.splitlines()):
            return
        if process.poll() is not None:
            raise DemoFailed(f"the proxy did not start:\n{text.strip()}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the proxy is not ready after {READY_SECONDS} s:\n{text.strip()}")
        time.sleep(0.05)


# --- what the user sees ---


def say_hello(address: tuple[str, int], nodes: dict[str, DemoNode]) -> None:
    names = ", ".join(f"{node.name} ({where})" for where, node in nodes.items())
    print(f"nodes: {names}")
    print(f"open http://{address[0]}:{address[1]}/ in a browser, or several", flush=True)


def check_once(address: tuple[str, int]) -> int:
    """The demo's own test: many users, many requests each, every session on its node."""
    users = [DemoUser(f"user{n}", *address, f"127.1.0.{n + 1}") for n in range(ONCE_USERS)]
    failures = []
    for _ in range(ONCE_REQUESTS):
        for user in random.sample(users, len(users)):  # in turns, round robin would look sticky
            try:
                user.visit()
            except (OSError, ValueError, http.client.HTTPException) as error:
                failures.append(f"{user.name}: {error}")
    stuck = sum(bool(user.visits) and user.stuck for user in users)
    spread = Counter(user.visits[0].node for user in users if user.visits)
    shares = ", ".join(f"{name} {count}" for name, count in sorted(spread.items()))
    print(f"{ONCE_USERS} users, {ONCE_REQUESTS} requests each: {stuck} stayed on their node")
    print(f"sessions by node: {shares}; failed requests: {len(failures)}")
    for failure in failures[:5]:
        print(f"  {failure}", file=sys.stderr)
    good = stuck == ONCE_USERS and not failures and len(spread) == len(NODES)
    print("demo: all sessions hold" if good else "demo: FAILED")
    return 0 if good else 1


class Table:
    """One line per user who did something; new lines only, so that any output can take it."""

    def __init__(self, out: TextIO):
        self.out = out
        self.colour = out.isatty() and "NO_COLOR" not in os.environ
        self.shades = dict(zip((name for name, _ in NODES), ("33", "32", "35"), strict=True))
        self.seen: dict[str, str] = {}  # user → node of the latest request
        self.print_line("user", "node", "requests", "")

    def print_line(self, user: str, node: str, hits: str, remark: str) -> None:
        shade = self.shades.get(node) if self.colour else None
        cell = f"{node:<8}"
        shown = f"\x1b[{shade}m{cell}\x1b[0m" if shade else cell
        print(f"  {user:<10}{shown}{hits:>9}  {remark}".rstrip(), file=self.out, flush=True)

    def add(self, user: str, node: str, hits: int, stranger: bool) -> None:
        before = self.seen.get(user)
        self.seen[user] = node
        if stranger:
            remark = f"LOST: the session is not on {node}"
        elif hits == 1:
            remark = "new session"
        else:
            remark = "same node" if before in (None, node) else "another browser"
        self.print_line(user, node, str(hits), remark)


def show(address: tuple[str, int], nodes: dict[str, DemoNode]) -> int:
    """Users come and go and the table grows, until Ctrl-C (or SIGTERM)."""
    print("six simulated users come back every few seconds; stop with Ctrl-C\n")
    users = [DemoUser(name, *address, f"127.1.0.{n}") for n, name in enumerate(USERS, 1)]
    table = Table(sys.stdout)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs inherit no SIGINT
        signal.signal(number, signal.default_int_handler)
    lost = 0
    try:
        while True:
            for user in random.sample(users, len(users)):
                try:
                    user.visit()
                except (OSError, ValueError, http.client.HTTPException) as error:
                    table.print_line(user.name, "-", "-", f"failed: {error}")
                for node in nodes.values():
                    for hit in node.drain():
                        lost += hit.stranger
                        table.add(hit.user, hit.node, hit.hits, hit.stranger)
                time.sleep(TURN_SECONDS / 2)
    except KeyboardInterrupt:
        print("\nstopping")
    return 1 if lost else 0
