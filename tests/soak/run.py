"""One soak: a proxy, four nodes, sixty users, and a fault every half second or so.

What has to hold: each request of a user who has a session reaches its node, unless the node was
hurt since the last one; nothing fails that no fault explains; and when all is over nothing has
leaked and no session map is lost.
"""

import asyncio
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastlb.control_socket import ask
from fastlb.errors import StartError
from tests.harness.proxy import environment, free_port

from .users import User, World, reset_storm, slow_client

HERE = Path(__file__).parent
KINDS = ("cookie", "key", "ip")
USERS_OF_KIND = 20
NODES = 4
WORKERS = 2
START_S = 30.0
CALM_S = 60.0  # for everything to end at the end
GROWTH_KIB = 6 << 10  # of a process's own memory, over what it had when it was warm

CONFIGURATION = """\
[proxy]
workers = {workers}
state_dir = "state"
access_log = "access.log"
[timeouts]
connect = "500ms"
response = "2s"
client_header = "2s"
node_keep_alive = "2s"
drain = "8s"
[virtual_servers.cookie]
listen = ["127.0.0.1:{cookie}"]
pool = "cookie"
[virtual_servers.key]
listen = ["127.0.0.1:{key}"]
pool = "key"
[virtual_servers.ip]
listen = ["127.0.0.1:{ip}"]
pool = "ip"
[persistence.cookie]
type = "transparent"
timeout = "1h"
reserve = "0s"
[persistence.key]
type = "universal"
key = "header:X-User"
[persistence.ip]
type = "ip"
"""
POOL = """\
[pools.{name}]
nodes = {nodes}
persistence = "{name}"
algorithm = "{algorithm}"
[pools.{name}.passive]
backoff = "200ms"
backoff_max = "1s"
"""


@dataclass
class Report:
    seconds: float = 0
    seed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    left: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        lines = [f"soak of {self.seconds:g} s, seed {self.seed}: {self.requests} requests"]
        lines.append(f"faults: {_listed(self.faults)}")
        lines.append(f"errors by cause: {_listed(self.errors)}")
        lines.append(f"sessions that had to move: {_listed(self.moves)}")
        lines += [f"at the end: {name}: {value}" for name, value in self.left.items()]
        lines += self.events
        lines += [f"WRONG: {line}" for line in self.violations[:50]]
        lines.append(f"{len(self.violations)} violations")
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


class Node:
    def __init__(self, name: str, host: str, port: int) -> None:
        self.name, self.host, self.port = name, host, port
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        words = [sys.executable, str(HERE / "node.py"), self.name, self.host, str(self.port)]
        self.process = subprocess.Popen(words)
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self.host, self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Soak:
    def __init__(self, seconds: float, seed: int, folder: Path, clock: Path | None) -> None:
        self.seconds, self.folder, self.clock = seconds, folder, clock
        self.random = random.Random(seed)
        self.report = Report(seconds, seed)
        self.world = World()
        self.nodes = [Node(f"n{i}", f"127.2.0.{i + 1}", free_port()) for i in range(NODES + 1)]
        self.ports = {kind: free_port() for kind in KINDS}
        self.workers = WORKERS
        self.turn = 0
        self.offset: mmap.mmap | None = None
        self.alone = asyncio.Lock()
        self.busy: set[str] = set()  # nodes that a fault has now
        self.process: subprocess.Popen[bytes] | None = None

    # --- the proxy ---

    def _write(self) -> None:
        self.turn += 1
        nodes = json.dumps([f"{node.host}:{node.port}" for node in self.nodes[:NODES]])
        algorithm = ("round-robin", "least-connections", "random-of-two")[self.turn % 3]
        text = CONFIGURATION.format(workers=self.workers, **self.ports)
        text += "".join(POOL.format(name=k, nodes=nodes, algorithm=algorithm) for k in KINDS)
        (self.folder / "fastlb.toml").write_text(text)

    async def _start(self) -> None:
        env = environment()
        readies = self.stderr().count("fastlb: ready")
        if self.clock is not None:
            place = self.folder / "clock"
            if not place.exists():
                place.write_bytes(bytes(8))
            with place.open("r+b") as file:
                self.offset = mmap.mmap(file.fileno(), 8)
            before = env.get("LD_PRELOAD")
            env["LD_PRELOAD"] = f"{before} {self.clock}" if before else str(self.clock)
            env["SOAK_CLOCK"] = str(place)
        with (self.folder / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastlb", "run", "-c", str(self.folder / "fastlb.toml")],
                stderr=err, stdout=err, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while self.stderr().count("fastlb: ready") <= readies:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"fastlb does not start:\n{self.stderr()}")
            await asyncio.sleep(0.05)

    def _demand_clock(self, status: dict[str, Any]) -> None:
        for worker in status["workers"] if self.clock is not None else []:
            if "clock.so" not in Path(f"/proc/{worker['pid']}/maps").read_text():
                self.world.wrong("a worker does not have the clock of the soak")

    def stderr(self) -> str:
        file = self.folder / "stderr"
        return file.read_text() if file.exists() else ""

    async def command(self, name: str, **values: Any) -> dict[str, Any]:
        """Once nobody else commands: the control process may be away just now."""
        async with self.alone:
            return await self._ask(name, **values)

    async def _ask(self, name: str, **values: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self.folder / "state", name, **values)

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.command("status"))["status"]
        return found

    # --- faults: each a coroutine that is over when all is well again ---

    def _victim(self) -> Node | None:
        """A node that nothing is wrong with, while two others are well."""
        well = [one for one in self.nodes[:NODES] if one.name not in self.busy]
        if len(well) < 3:
            return None
        chosen = self.random.choice(well)
        self.busy.add(chosen.name)
        return chosen

    async def _on_node(self, do: Callable[[Node], Awaitable[None]]) -> None:
        node = self._victim()
        if node is None:
            return
        self.world.hurt(node.name)
        try:
            await do(node)
        finally:
            self.world.well(node.name)
            self.busy.discard(node.name)

    async def node_killed(self) -> None:
        async def do(node: Node) -> None:
            node.kill()
            await asyncio.sleep(self.random.uniform(0.1, 2.0))
            await node.start()

        await self._on_node(do)

    async def node_stopped(self) -> None:
        async def do(node: Node) -> None:
            node.signal(signal.SIGSTOP)
            await asyncio.sleep(self.random.uniform(0.1, 3.0))
            node.signal(signal.SIGCONT)

        await self._on_node(do)

    async def node_resets(self) -> None:
        async def do(node: Node) -> None:
            node.signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)

        await self._on_node(do)

    async def node_drained(self) -> None:
        """Its users stay: no fault to them."""
        node = self.random.choice(self.nodes[:NODES])
        where = {"node": f"{node.host}:{node.port}", "pool": self.random.choice(KINDS)}
        await self.command("node", verb="drain", **where)
        await asyncio.sleep(self.random.uniform(0.1, 1.0))
        await self.command("node", verb="undrain", **where)

    async def worker_killed(self) -> None:
        async with self.alone:
            pids = [worker["pid"] for worker in (await self._ask("status"))["status"]["workers"]]
            if len(pids) < self.workers:
                return
            self.world.proxy_hurt = time.monotonic()
            self.world.note("worker killed: now")
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(pids), signal.SIGKILL)
        await asyncio.sleep(0.5)
        self.world.proxy_hurt = time.monotonic()

    async def reload(self) -> None:
        async with self.alone:  # a control process that starts would read the file too
            self._write()
            done = await self._ask("reload")
        if not done["ok"]:
            self.world.wrong(f"a reload was refused: {done['errors']}")

    async def worker_count(self) -> None:
        """Another number of workers; those that leave finish what they have."""
        self.workers = self.random.choice([one for one in (1, 2, 3) if one != self.workers])
        await self.reload()

    async def upgraded(self) -> None:
        """All that serve are replaced; old ones end what they have within the drain time."""
        async with self.alone:
            before = await self._ask("upgrade")
            if not before["ok"]:
                if "still" not in str(before):  # those of the last one leave yet
                    self.world.wrong(f"an upgrade was refused: {before}")
                return
            end = time.monotonic() + START_S
            while time.monotonic() < end:
                await asyncio.sleep(0.1)
                with suppress(StartError):
                    found = await self._ask("about")
                    if found["instance"] != before["instance"] and found["ready"]:
                        return
            self.world.wrong(f"an upgrade came to nothing:\n{self.stderr()[-2000:]}")

    async def control_killed(self) -> None:
        """And started again, as a supervisor does: it takes the workers over. Not while one of them
        is dead: were all, nobody would have the listening sockets."""
        assert self.process is not None
        async with self.alone:
            end = time.monotonic() + START_S
            while len((await self._ask("status"))["status"]["workers"]) < self.workers:
                await asyncio.sleep(0.05)
                if time.monotonic() > end:
                    self.world.wrong(f"a worker was not replaced in {START_S:g} s")
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            await asyncio.sleep(self.random.uniform(0.0, 1.0))
            await self._start()

    async def node_weighed(self) -> None:
        node = self.random.choice(self.nodes[:NODES])
        weight = self.random.randint(1, 5)
        done = await self.command(
            "edit", verb="weight", node=f"{node.host}:{node.port}", weight=weight
        )
        if "error" in done:
            self.world.wrong(f"a weight was refused: {done['error']}")

    async def node_added(self) -> None:
        """The fifth node, for a while: who has a session there is lost with it."""
        node = self.nodes[NODES]
        if node.name in self.busy:
            return
        self.busy.add(node.name)
        where = {"node": f"{node.host}:{node.port}", "pool": self.random.choice(KINDS)}
        try:
            self.world.hurt(node.name)  # a reload may end it at any time
            await self.command("edit", verb="add", **where)
            await asyncio.sleep(self.random.uniform(0.5, 2.0))
            await self.command("edit", verb="remove", force=True, **where)
        finally:
            self.world.well(node.name)
            self.busy.discard(node.name)

    async def client_resets(self) -> None:
        port = self.ports[self.random.choice(KINDS)]
        await asyncio.to_thread(reset_storm, port, 50, self.random.choice)

    async def slow_clients(self) -> None:
        port = self.ports[self.random.choice(KINDS)]
        await asyncio.gather(*(slow_client(port, 3.0) for _ in range(50)))

    async def cookies_lost(self) -> None:
        for user in self.random.sample(self.users, 5):
            user.lose_cookies()

    async def clock_jumps(self) -> None:
        """The wall clock of the proxy, by up to five minutes either way; cookies live an hour."""
        if self.offset is not None:
            struct.pack_into("<q", self.offset, 0, self.random.randint(-300, 300))

    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        every = (
            self.node_killed, self.node_stopped, self.node_resets, self.node_drained,
            self.worker_killed, self.reload, self.node_weighed, self.node_added,
            self.worker_count, self.upgraded, self.control_killed,
            self.client_resets, self.slow_clients, self.cookies_lost, self.clock_jumps,
        )  # fmt: skip
        return {one.__name__.replace("_", " "): one for one in every}

    # --- the run ---

    async def run(self) -> Report:
        try:
            await self._all()
        finally:
            if self.process is not None and self.process.poll() is None:
                workers = _children(self.process.pid)
                self.process.kill()
                self.process.wait()
                for pid in workers:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            for node in self.nodes:
                node.kill()
        return self.report

    async def _all(self) -> None:
        self._write()
        for node in self.nodes:
            await node.start()
        await self._start()
        listening = asyncio.create_task(self._listen())
        self.users = [
            User(kind, number, self.ports[kind], self.world, self.random.randrange(1 << 30))
            for kind in KINDS
            for number in range(USERS_OF_KIND)
        ]
        lives = [asyncio.create_task(user.live()) for user in self.users]
        await asyncio.sleep(1.0)
        await self._calm()
        self._demand_clock(await self.status())
        before = await self._inventory()
        self.world.paused.clear()
        await self._faults()
        await self._last_look()
        self.world.ended.set()
        await asyncio.gather(*lives)
        await self._calm()
        self._compare(before, await self._inventory())
        await self._stop()
        listening.cancel()
        world, report = self.world, self.report
        report.requests, report.errors = world.requests, dict(world.errors)
        report.moves, report.violations = dict(world.moves), world.violations
        report.events = world.events if world.violations else []

    async def _faults(self) -> None:
        """At random until the time is over, several at once; returns when all is well again."""
        end = time.monotonic() + self.seconds
        known = self.faults()
        running: set[asyncio.Task[None]] = set()
        while time.monotonic() < end:
            name = self.random.choice(list(known))
            self.report.faults[name] += 1
            running.add(asyncio.create_task(self._one(name, known[name])))
            await asyncio.sleep(self.random.uniform(0.1, 1.0))
            for task in [one for one in running if one.done()]:
                running.discard(task)
                task.result()
        await asyncio.gather(*running)
        self.workers = WORKERS
        await self.reload()
        await asyncio.sleep(4.0)  # ejected nodes are tried again

    async def _listen(self) -> None:
        """What the proxy says, among the events."""
        heard = 0
        while True:
            lines = self.stderr().split("\n")[:-1]
            for line in lines[heard:]:
                if "by command" not in line:
                    self.world.note(f"    {line}")
            heard = len(lines)
            await asyncio.sleep(0.05)

    async def _one(self, name: str, fault: Callable[[], Awaitable[None]]) -> None:
        self.world.note(name)
        await fault()
        self.world.note(f"{name}: over")

    async def _last_look(self) -> None:
        """Without a fault, every user reaches its node, whose map is there."""
        await self._pause()
        begun = time.monotonic()
        for node in self.nodes:
            self.world.well_since.pop(node.name, None)
        spare = self.nodes[NODES].name
        homes = {user.name: user.home for user in self.users if user.home != spare}
        for user in self.users:
            await user.ask()
        status = await self.status()
        for kind in ("key", "ip"):
            entries = status["persistence"][kind]["entries"]
            self.report.left[f"session maps of {kind}"] = entries
            if entries < USERS_OF_KIND:
                self.world.wrong(f"{entries} maps of {USERS_OF_KIND} users of {kind}")
        lost = [u.name for u in self.users if u.name in homes and u.home != homes[u.name]]
        self.report.left["users whose session was lost"] = len(lost)
        self.report.left["the last look took"] = f"{time.monotonic() - begun:.1f} s"

    async def _pause(self) -> None:
        """Nobody asks, nobody is connected."""
        self.world.paused.set()
        while any(user.asks for user in self.users):
            await asyncio.sleep(0.05)
        for user in self.users:
            await user.leave()

    async def _calm(self) -> None:
        """And nothing is in progress, and what was pooled is closed."""
        await self._pause()
        end = time.monotonic() + CALM_S
        while time.monotonic() < end:
            await asyncio.sleep(0.25)
            status = await self.status()
            objects = [sum(worker["objects"].values()) for worker in status["workers"]]
            if len(objects) == self.workers and not any(objects):
                return
        self.world.wrong(f"not idle after {CALM_S:g} s: {status['workers']}")

    async def _inventory(self) -> dict[str, dict[str, int]]:
        assert self.process is not None
        status = await self.status()
        found = {"control": _process(self.process.pid)}
        figures = [_process(worker["pid"]) for worker in status["workers"]]
        found["workers"] = {what: max(one[what] for one in figures) for what in figures[0]}
        loads = [n["connections"] for p in status["pools"].values() for n in p["nodes"]]
        found["nodes"] = {"connections": sum(loads)}
        return found

    def _compare(self, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> None:
        self.report.left["before"], self.report.left["after"] = before, after
        allowed = {"descriptors": 8, "KiB": GROWTH_KIB, "connections": 0}
        for name, figures in after.items():
            for what, value in figures.items():
                if value > before[name][what] + allowed[what]:
                    self.world.wrong(f"{name} had {before[name][what]} {what} and has {value}")

    async def _stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        code = await asyncio.to_thread(self.process.wait, CALM_S)
        said = self.stderr()
        if code:
            self.world.wrong(f"exit status {code}")
        for word in ("Traceback", "BUG at", "AddressSanitizer", "runtime error", "SIGSEGV"):
            if word in said:
                self.world.wrong(f"{word} on standard error:\n{said[-3000:]}")
        for line in said.splitlines():
            if line.startswith("fastlb: objects "):  # a debug build's
                left = dict(pair.split("=") for pair in line.split()[2:])
                if any(int(count) for count in left.values()):
                    self.world.wrong(line)


def _process(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/status").read_text()
    (own,) = (line for line in text.splitlines() if line.startswith("RssAnon:"))
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "KiB": int(own.split()[1])}


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def clock_library(folder: Path) -> Path | None:
    """The preloaded clock, compiled; None where no compiler is."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock.c")]
    subprocess.run(command, check=True)
    return library


def soak(seconds: float, seed: int) -> Report:
    with tempfile.TemporaryDirectory(prefix="fastlb-soak-") as name:
        folder = Path(name)
        one = Soak(seconds, seed, folder, clock_library(folder))
        try:
            report = asyncio.run(one.run())
        except BaseException as error:
            if (folder / "stderr").exists():
                error.add_note(f"stderr of the proxy:\n{one.stderr()[-4000:]}")
            raise
        return report
