"""What goes wrong: each fault is a coroutine that is over when all is well again, and tells the
world whom it hurts before it does."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from fastlb.errors import StartError

from .account import Account
from .configuration import KINDS
from .system import START_S, Node, System
from .users import User, reset_storm, slow_client
from .world import World

Fault = Callable[[], Awaitable[None]]
LEFT_SLACK_S = 1.0  # in which a connection may still come to a worker that is to leave


class Faults:
    def __init__(
        self,
        system: System,
        world: World,
        account: Account,
        users: Sequence[User],
        pick: random.Random,
    ):
        self.system, self.world, self.account = system, world, account
        self.users, self.random = users, pick
        self.busy: set[str] = set()  # nodes that a fault has now
        self.killed: set[int] = set()  # workers

    def every(self) -> dict[str, Fault]:
        every = (
            self.node_killed, self.node_stopped, self.node_resets, self.node_drained,
            self.node_weighed, self.node_added,
            self.worker_killed, self.reload, self.worker_count, self.upgraded, self.control_killed,
            self.log_rotated,
            self.client_resets, self.slow_clients, self.cookies_lost, self.clock_jumps,
        )  # fmt: skip
        return {one.__name__.replace("_", " "): one for one in every}

    # --- nodes ---

    def _victim(self) -> Node | None:
        """A node that nothing is wrong with, while two others are well."""
        well = [one for one in self.system.nodes if one.name not in self.busy]
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
            self.world.ends_connections(node.name)
            node.kill()
            await asyncio.sleep(self.random.uniform(0.1, 2.0))
            await node.start()

        await self._on_node(do)

    async def node_stopped(self) -> None:
        """What lasts outlives it: a WebSocket goes on afterwards."""

        async def do(node: Node) -> None:
            node.signal(signal.SIGSTOP)
            await asyncio.sleep(self.random.uniform(0.1, 3.0))
            node.signal(signal.SIGCONT)

        await self._on_node(do)

    async def node_resets(self) -> None:
        async def do(node: Node) -> None:
            self.world.ends_connections(node.name)
            node.signal(signal.SIGUSR1)
            await asyncio.sleep(0.1)
            self.world.ends_connections(node.name)

        await self._on_node(do)

    async def node_drained(self) -> None:
        """Its users stay: no fault to them."""
        node = self.random.choice(self.system.nodes)
        where = {"node": node.address, "pool": self.random.choice(list(KINDS))}
        await self.system.command("node", verb="drain", **where)
        await asyncio.sleep(self.random.uniform(0.1, 1.0))
        await self.system.command("node", verb="undrain", **where)

    async def node_weighed(self) -> None:
        node = self.random.choice(self.system.nodes)
        weight = self.random.randint(1, 5)
        done = await self.system.command("edit", verb="weight", node=node.address, weight=weight)
        if "error" in done:
            self.world.wrong(f"a weight was refused: {done['error']}")

    async def node_added(self) -> None:
        """The fifth node, for a while: who has a session there is lost with it, a WebSocket not."""
        node = self.system.spare
        if node.name in self.busy:
            return
        self.busy.add(node.name)
        where = {"node": node.address, "pool": self.random.choice(list(KINDS))}
        try:
            self.world.hurt(node.name)  # a reload may end it at any time
            await self.system.command("edit", verb="add", **where)
            await asyncio.sleep(self.random.uniform(0.5, 2.0))
            await self.system.command("edit", verb="remove", force=True, **where)
        finally:
            self.world.well(node.name)
            self.busy.discard(node.name)

    # --- the proxy's processes ---

    async def worker_killed(self) -> None:
        async with self.system.alone:
            status = (await self.system.ask("status"))["status"]
            pids = [worker["pid"] for worker in status["workers"]]
            if len(pids) < self.system.workers:
                return
            self.world.proxy_hurt = time.monotonic()
            self.world.note("worker killed: now")
            victim = self.random.choice(pids)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            self.killed.add(victim)
            self.account.workers_killed += 1
        await asyncio.sleep(0.5)
        self.world.proxy_hurt = time.monotonic()

    async def reload(self) -> None:
        async with self.system.alone:  # a control process that starts would read the file too
            await self._reload()

    async def _reload(self) -> None:
        self.system.write()
        done = await self.system.ask("reload")
        if not done["ok"]:
            self.world.wrong(f"a reload was refused: {done['errors']}")

    async def worker_count(self) -> None:
        """Another number of workers; those that leave finish what they have."""
        async with self.system.alone:
            begun, before = time.monotonic(), self.system.workers
            self.system.workers = self.random.choice([one for one in (1, 2, 3) if one != before])
            await self._reload()
            if self.system.workers < before:
                self.world.left.append((begun, time.monotonic() + LEFT_SLACK_S))

    async def upgraded(self) -> None:
        """All that serve are replaced; old ones end what they have within the drain time."""
        async with self.system.alone:
            begun = time.monotonic()
            before = await self.system.ask("upgrade")
            if not before["ok"]:
                if "still" not in str(before):  # those of the last one leave yet
                    self.world.wrong(f"an upgrade was refused: {before}")
                return
            end = time.monotonic() + START_S
            while time.monotonic() < end:
                await asyncio.sleep(0.1)
                with suppress(StartError):
                    found = await self.system.ask("about")
                    if found["instance"] != before["instance"] and found["ready"]:
                        self.world.left.append((begun, time.monotonic() + LEFT_SLACK_S))
                        self.world.checks_again(begun)
                        return
            self.world.wrong(f"an upgrade came to nothing:\n{self.system.stderr()[-2000:]}")

    async def control_killed(self) -> None:
        """And started again, as a supervisor does: it takes the workers over. Not while one of them
        is dead: were all, nobody would have the listening sockets."""
        async with self.system.alone:
            end = time.monotonic() + START_S
            while True:
                status = (await self.system.ask("status"))["status"]
                pids = {worker["pid"] for worker in status["workers"]}
                if len(pids) >= self.system.workers and not pids & self.killed:
                    break  # its death may not be known yet
                await asyncio.sleep(0.05)
                if time.monotonic() > end:
                    self.world.wrong(f"a worker was not replaced in {START_S:g} s")
                    break
            begun = time.monotonic()
            self.system.control.kill()
            await asyncio.to_thread(self.system.control.wait)
            await asyncio.sleep(self.random.uniform(0.0, 1.0))
            await self.system.start()
            self.world.checks_again(begun)

    async def log_rotated(self) -> None:
        """As logrotate does it; nobody writes to the old file any more a moment later."""
        async with self.system.alone:
            old = await asyncio.to_thread(self.account.move_log)
            self.system.control.send_signal(signal.SIGUSR1)
            end = time.monotonic() + START_S
            while not self.system.log_file.exists():
                await asyncio.sleep(0.02)
                if time.monotonic() > end:
                    self.world.wrong("the access log was not opened again")
                    return
        await self.account.read_log(old)

    # --- clients, and the clock ---

    def _port(self) -> int:
        return self.system.ports[self.random.choice(list(KINDS))]

    async def client_resets(self) -> None:
        await asyncio.to_thread(reset_storm, self._port(), 50, self.random.choice)

    async def slow_clients(self) -> None:
        port = self._port()
        await asyncio.gather(*(slow_client(port, 3.0) for _ in range(50)))

    async def cookies_lost(self) -> None:
        for user in self.random.sample(self.users, 5):
            user.lose_cookies()

    async def clock_jumps(self) -> None:
        """By up to five minutes either way; cookies live an hour."""
        self.system.set_clock(self.random.randint(-300, 300))
