"""What must be true when all is over: nothing in use or leaked, no map lost, every node up."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from .configuration import KINDS
from .system import System
from .users import User
from .world import World

CALM_S = 60.0  # for everything to end at the end
GROWTH_KIB = 6 << 10  # of a process's own memory, over what it had when it was warm
# The sockets of a worker more than at the beginning are kept, with an address of each kind.
ALLOWED = {"descriptors": len(KINDS) + 5, "KiB": GROWTH_KIB}
TROUBLE = ("Traceback", "BUG at", "AddressSanitizer", "runtime error", "SIGSEGV")
LOG_QUIET_S = 0.5  # for which nobody may have written to a log that was moved away
LOG_S = 10.0
LINES_OF_WORKER = 500  # that one which is killed may take with it


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


class Account:
    def __init__(self, system: System, world: World, users: Sequence[User], report: Report):
        self.system, self.world, self.users, self.report = system, world, users, report
        self.workers_killed = 0
        self.logs_moved = self.log_lines = 0

    def finish(self) -> None:
        world, report = self.world, self.report
        report.requests, report.errors = world.requests, dict(world.errors)
        report.left["WebSockets held"] = world.sockets
        report.moves, report.violations = dict(world.moves), world.violations
        report.events = world.events if world.violations else []

    # --- what is in use ---

    async def pause(self) -> None:
        """Nobody asks, nobody is connected."""
        self.world.paused.set()
        while any(user.asks for user in self.users):
            await asyncio.sleep(0.05)
        for user in self.users:
            await user.leave()

    async def calm(self) -> None:
        """And nothing is in progress, what was pooled is closed, and who had to leave has left."""
        await self.pause()
        end = time.monotonic() + CALM_S
        while time.monotonic() < end:
            await asyncio.sleep(0.25)
            status = await self.system.status()
            objects = [sum(worker["objects"].values()) for worker in status["workers"]]
            if len(objects) == self.system.workers and not any(objects) and not status["leaving"]:
                return
        self.world.wrong(
            f"not idle after {CALM_S:g} s: {status['workers']}, leaving {status['leaving']}"
        )

    async def inventory(self) -> dict[str, dict[str, int]]:
        status = await self.system.status()
        found = {"control": _process(self.system.control.pid)}
        figures = [_process(worker["pid"]) for worker in status["workers"]]
        found["workers"] = {what: max(one[what] for one in figures) for what in figures[0]}
        pools = status["pools"].values()
        nodes = [node for pool in pools for node in pool["nodes"]]
        found["nodes"] = {
            what: sum(node[what] for node in nodes)
            for what in ("connections", "open", "pooled", "waiting")
        }
        found["pools"] = {"waiting": sum(pool["waiting"] for pool in pools)}
        found["rules"] = {"waiting": sum(rule["waiting"] for rule in status["rules"].values())}
        found["virtual servers"] = {
            "connections": sum(one["connections"] for one in status["virtual_servers"].values())
        }
        return found

    def compare(self, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> None:
        """A slot that leaked is never given back: but for memory and descriptors, all is zero."""
        self.report.left["before"], self.report.left["after"] = before, after
        for name, figures in after.items():
            for what, value in figures.items():
                most = before[name][what] + ALLOWED[what] if what in ALLOWED else 0
                if value > most:
                    self.world.wrong(f"{name} had {before[name][what]} {what} and has {value}")

    def demand_clock(self, status: dict[str, Any]) -> None:
        for worker in status["workers"] if self.system.clock is not None else []:
            if "clock.so" not in Path(f"/proc/{worker['pid']}/maps").read_text():
                self.world.wrong("a worker does not have the clock of the soak")

    # --- sessions and nodes ---

    async def last_look(self) -> None:
        """Without a fault, every user reaches its node, whose map is there."""
        await self.pause()
        begun = time.monotonic()
        for node in (*self.system.nodes, self.system.spare):
            self.world.well_since.pop(node.name, None)
        spare = self.system.spare.name
        homes = {u.name: u.home for u in self.users if u.home != spare and not u.loses}
        for user in self.users:
            await user.ask()
        status = await self.system.status()
        self._maps(status["persistence"])
        self._nodes(status["pools"])
        waited = {name: pool["waited"] for name, pool in status["pools"].items() if pool["waited"]}
        self.report.left["requests that waited for a node"] = _listed(waited)
        lost = [u.name for u in self.users if u.name in homes and u.home != homes[u.name]]
        self.report.left["users whose session was lost"] = len(lost)
        self.report.left["the last look took"] = f"{time.monotonic() - begun:.1f} s"

    def _maps(self, classes: dict[str, Any]) -> None:
        found = {}
        for kind in KINDS.values():
            if kind.has_maps:
                entries, users = classes[kind.name]["entries"], kind.users + kind.sockets
                found[kind.name] = entries
                if entries < users:
                    self.world.wrong(f"{entries} maps of {users} users of {kind.name}")
        self.report.left["session maps"] = _listed(found)

    def _nodes(self, pools: dict[str, Any]) -> None:
        """An ejected one may wait for a request to probe it, and none came."""
        for name, pool in pools.items():
            addresses = {node["address"] for node in pool["nodes"]}
            if addresses != {node.address for node in self.system.nodes}:
                self.world.wrong(f"the nodes of {name} are {addresses}")
            for node in pool["nodes"]:
                probed = node["health"]["ejected"] and not node["health"]["ejected_ms"]
                checked = all(one["state"] == "up" for one in node["monitors"])
                if not checked or not (node["state"] == "up" or probed):
                    self.world.wrong(f"a node of {name} is not up again: {node}")

    # --- the access log ---

    def move_log(self) -> Path:
        self.logs_moved += 1
        return self.system.log_file.rename(self.system.folder / f"access.log.{self.logs_moved}")

    async def read_log(self, file: Path) -> None:
        """Once it is complete: that nobody writes to it any more is part of it."""
        size, since, end = -1, 0.0, time.monotonic() + LOG_S
        while size != file.stat().st_size or time.monotonic() < since + LOG_QUIET_S:
            if size != file.stat().st_size:
                size, since = file.stat().st_size, time.monotonic()
            if time.monotonic() > end:
                self.world.wrong("a log that was moved away is still written to")
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._count_lines, file)
        file.unlink()

    def _count_lines(self, file: Path) -> None:
        text = file.read_bytes()
        if text and not text.endswith(b"\n"):
            self.world.wrong(f"the access log ends in a line that is cut: {text[-300:]!r}")
        for line in text.splitlines():
            self.log_lines += 1
            try:
                msgspec.json.decode(line)
            except msgspec.DecodeError:
                self.world.wrong(f"a line of the access log that is none: {line[:500]!r}")

    async def whole_log(self) -> None:
        """Each answer has a line, but for what a worker that was killed had not written yet."""
        await self.read_log(self.system.log_file)
        lost = self.world.logged - self.log_lines
        self.report.left["lines in the access log"] = self.log_lines
        if lost > LINES_OF_WORKER * self.workers_killed:
            self.world.wrong(f"{lost} requests are not in the access log")

    # --- the end ---

    async def stop(self) -> None:
        self.system.control.terminate()
        code = await asyncio.to_thread(self.system.control.wait, CALM_S)
        said = self.system.stderr()
        if code:
            self.world.wrong(f"exit status {code}")
        for word in TROUBLE:
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
