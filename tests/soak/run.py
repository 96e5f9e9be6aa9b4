"""One soak: a proxy, four nodes, users of every kind, and a fault every half second or so.

What has to hold: each request of a user who has a session reaches its node, unless the node was
hurt since the last one; nothing fails, and no WebSocket ends, that no fault explains; and when all
is over nothing has leaked, no session map is lost, nobody waits, and every node is up.
"""

import asyncio
import random
import ssl
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from .account import Account, Report
from .configuration import KINDS
from .faults import Fault, Faults
from .system import WORKERS, System
from .users import Holder, User
from .world import World

QUIET_S = 4.0  # at the end, for nodes that are out to be tried again


class Soak:
    def __init__(self, seconds: float, seed: int, folder: Path) -> None:
        self.seconds, self.random = seconds, random.Random(seed)
        self.report = Report(seconds, seed)
        self.world, self.system = World(), System(folder)
        self.users = self._users()
        self.account = Account(self.system, self.world, self.users, self.report)
        self.faults = Faults(self.system, self.world, self.account, self.users, self.random)

    def _users(self) -> list[User]:
        context = ssl.create_default_context(cafile=self.system.authority.file)
        return [
            (User if number < kind.users else Holder)(
                kind, number, self.system.ports[kind.name], self.world,
                self.random.randrange(1 << 30), context,
            )
            for kind in KINDS.values()
            for number in range(kind.users + kind.sockets)
        ]  # fmt: skip

    async def run(self) -> Report:
        try:
            await self._all()
        finally:
            self.system.end()
        return self.report

    async def _all(self) -> None:
        self.system.write()
        for node in (*self.system.nodes, self.system.spare):
            await node.start()
        await self.system.start()
        listening = asyncio.create_task(self._listen())
        lives = [asyncio.create_task(user.live()) for user in self.users]
        await asyncio.sleep(1.0)
        await self.account.calm()
        self.account.demand_clock(await self.system.status())
        before = await self.account.inventory()
        self.world.paused.clear()
        await self._go_wrong()
        await self.account.last_look()
        self.world.ended.set()
        await asyncio.gather(*lives)
        await self.account.calm()
        self.account.compare(before, await self.account.inventory())
        await self.account.stop()
        await self.account.whole_log()
        listening.cancel()
        self.account.finish()

    async def _go_wrong(self) -> None:
        """At random until the time is over, several at once; returns when all is well again."""
        end = time.monotonic() + self.seconds
        known = self.faults.every()
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
        self.system.workers = WORKERS
        await self.faults.reload()
        await asyncio.sleep(QUIET_S)

    async def _one(self, name: str, fault: Fault) -> None:
        self.world.note(name)
        await fault()
        self.world.note(f"{name}: over")

    async def _listen(self) -> None:
        """What the proxy says, among the events."""
        heard = 0
        while True:
            lines = self.system.stderr().split("\n")[:-1]
            for line in lines[heard:]:
                if "by command" not in line:
                    self.world.note(f"    {line}")
            heard = len(lines)
            await asyncio.sleep(0.05)


def soak(seconds: float, seed: int) -> Report:
    with tempfile.TemporaryDirectory(prefix="fastlb-soak-") as name:
        folder = Path(name)
        one = Soak(seconds, seed, folder)
        try:
            report = asyncio.run(one.run())
        except BaseException as error:
            with suppress(OSError):
                error.add_note(f"stderr of the proxy:\n{one.system.stderr()[-4000:]}")
            raise
        return report
