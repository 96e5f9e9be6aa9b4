"""Active health checks: when each node is checked, what comes of it, and who is told.

One task for each monitor of each node. A node is down while any of its monitors says so. Nothing
that happens to this process changes a node's state: a check that failed while it was held up, or
that it had no descriptors for, is not done, and is done again. Time is monotonic.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastlb import errors, log
from fastlb.config import Config, Monitor
from fastlb.errors import printable
from fastlb.host_names import host_of
from fastlb.monitor_health import Health, Pulse
from fastlb.monitor_http import check_http
from fastlb.monitor_link import Failed, NotDone, Target, check_tcp, check_tls, reason_of
from fastlb.monitor_python import Functions
from fastlb.node_states import NodeStates, written
from fastlb.slots import NodeKey, node_key
from fastlb.tls_material import UNVERIFIED, TlsFiles

AT_ONCE_MAX = 512  # checks under way at one time
FIRST_S = 0.1  # within which a node is checked for the first time
PAUSE_S = 0.02  # between two checks of a node at least, whatever the interval
HELD_SHARE = 4  # a failure counts if the process was held up for less than timeout / this
REASON_MAX = 200
SAY_AGAIN_S = 60.0  # between two lines about checks that were not done

Probe = Callable[[Target], Awaitable[str]]


class Identity(NamedTuple):
    """What a check goes by; while it stays the same, the check goes on through reloads."""

    key: NodeKey
    name: str  # of the monitor
    target: Target


@dataclass
class Check:
    """One monitor of one node."""

    identity: Identity
    health: Health
    since: float = field(default_factory=time.monotonic)
    checks: int = 0
    failures: int = 0
    not_done: int = 0
    last_ms: float | None = None
    good: bool | None = None  # the last result
    run: int = 0  # of such results in a row
    reason: str = "not checked yet"
    task: asyncio.Task[None] | None = None

    @property
    def monitor(self) -> Monitor:
        return self.identity.target.monitor

    def shown(self, now: float) -> dict[str, Any]:
        """For `fastlb status`."""
        return {
            "name": self.identity.name,
            "state": "down" if self.health.down else "up",
            "seconds": int(now - self.since),
            "reason": self.reason,
            "checks": self.checks,
            "failures": self.failures,
            "not_done": self.not_done,
            "last_ms": self.last_ms,
        }


class Monitors:
    """All checks of the configuration in force."""

    def __init__(self, states: NodeStates) -> None:
        self.states = states
        self.checks: dict[NodeKey, dict[str, Check]] = {}
        self.functions = Functions()
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._pulse = Pulse(time.monotonic())
        self._beating: asyncio.Task[None] | None = None
        self._nodes: set[NodeKey] = set()
        self._said = -SAY_AGAIN_S

    # --- which ---

    def know(self, keys: Iterable[NodeKey]) -> None:
        """These are no new nodes: workers have served with them under another control process."""
        self._nodes |= set(keys)

    def sync(self, cfg: Config, tls: TlsFiles) -> None:
        """Another configuration: what is the same in it goes on as it was."""
        before, self.checks = self.checks, {}
        kept = set()
        for identity in identities(cfg, tls):
            old = before.get(identity.key, {}).get(identity.name)
            if old is not None and old.identity == identity:
                check = old
                kept.add(id(old))
            else:
                check = Check(identity, self._health(identity, old, before))
            self.checks.setdefault(identity.key, {})[identity.name] = check
        for one in (one for checks in before.values() for one in checks.values()):
            if id(one) not in kept and one.task is not None:
                one.task.cancel()
        self._nodes = {
            node_key(name, n.address) for name, pool in cfg.pools.items() for n in pool.nodes
        }
        self.functions.use(cfg)
        self._take_over()

    def _health(
        self, identity: Identity, old: Check | None, before: dict[NodeKey, dict[str, Check]]
    ) -> Health:
        """What a check begins with: the state of before, else what the monitor says."""
        key = identity.key
        if old is not None:
            return Health(old.health.down, eager=old.health.eager)
        if key not in before and key in self.states.down:
            return Health(True)  # as another control process has found
        new = key not in self._nodes
        if new and identity.target.monitor.start == "down":
            return Health(True, eager=True)
        return Health()

    def _take_over(self) -> None:
        """Nodes' states are those of their checks; checks without a task get one."""
        for key in self.states.down - self.checks.keys():
            self.states.found(key, False)
            log.info(f"{written(key)} is up: no monitor checks it any more")
        for key, checks in self.checks.items():
            self._judge(key, None)
            for check in checks.values():
                if check.task is None:
                    check.task = asyncio.get_running_loop().create_task(self._watch(check))
        if self.checks and self._beating is None:
            self._pulse = Pulse(time.monotonic())
            self._beating = asyncio.get_running_loop().create_task(self._beat())
        elif not self.checks and self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def close(self) -> None:
        """No more checks; the states stay as they are."""
        tasks = [one.task for checks in self.checks.values() for one in checks.values()]
        for task in (*tasks, self._beating):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
        self.checks, self._beating = {}, None
        self.functions.close()

    def shown(self, key: NodeKey) -> list[dict[str, Any]]:
        """What `fastlb status` says of a node's monitors."""
        now = time.monotonic()
        return [check.shown(now) for check in self.checks.get(key, {}).values()]

    # --- when ---

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(Pulse.PERIOD_S)
            self._pulse.beat(time.monotonic())

    async def _watch(self, check: Check) -> None:
        """Checks again and again. After the first time, at once after the start, the checks of all
        nodes are spread over the interval."""
        await asyncio.sleep(random.uniform(0, FIRST_S))
        spread = random.uniform(0.2, 1)
        while True:
            async with self._room:
                begun = time.monotonic()
                done = await self._check(check, begun)
            wait = pause(check.monitor, check.health.doubtful or not done) * spread
            spread = 1.0
            await asyncio.sleep(max(wait - (time.monotonic() - begun), PAUSE_S))

    async def _check(self, check: Check, begun: float) -> bool:
        """One check; whether it says something."""
        held_before = self._pulse.held_s(begun)
        limit = check.monitor.timeout_ms / 1000
        its_own = check.monitor.type == "python"  # whose process sees to all of this
        good, reason = False, f"no answer within {limit:g} s"
        try:
            async with asyncio.timeout(None if its_own else limit):
                reason = await self._probe(check)
                good = True
        except TimeoutError:
            pass
        except Failed as failed:
            reason = str(failed)
        except NotDone as why:
            return self._void(check, str(why))
        except Exception as error:  # of fastlb's own: the node has nothing to do with it
            return self._void(check, f"{type(error).__name__}: {error}")
        now = time.monotonic()
        held = self._pulse.held_s(now) - held_before
        if not good and not its_own and held > limit / HELD_SHARE:
            return self._void(check, f"the control process was held up for {held:.1f} s")
        check.last_ms = round((now - begun) * 1000, 1)
        self._take(check, good, printable(reason)[:REASON_MAX])
        return True

    async def _probe(self, check: Check) -> str:
        try:
            return await self._probe_of(check.monitor)(check.identity.target)
        except OSError as error:
            raise Failed(reason_of(error)) from None

    def _probe_of(self, monitor: Monitor) -> Probe:
        if monitor.type == "python":
            return self.functions.check
        return {"http": check_http, "tcp": check_tcp, "tls": check_tls}[monitor.type]

    # --- what ---

    def _take(self, check: Check, good: bool, reason: str) -> None:
        check.checks += 1
        check.failures += not good
        check.run = check.run + 1 if good == check.good else 1
        check.reason, check.good = reason, good
        if check.health.take(good, check.monitor):
            check.since = time.monotonic()
            self._judge(check.identity.key, check)

    def _judge(self, key: NodeKey, by: Check | None) -> None:
        """A node is down while one of its monitors says so; `by` has just changed its mind."""
        down = any(check.health.down for check in self.checks[key].values())
        if down == (key in self.states.down):
            return
        self.states.found(key, down)
        if by is None:
            if not down:
                log.info(f"{written(key)} is up: the monitor that said otherwise is gone")
            return
        node, name = written(key), by.identity.name
        if down:
            count = _times(by.run, "failure")
            log.warn(errors.NODE_DOWN.line(node=node, name=name, reason=by.reason, count=count))
        else:
            count = _times(by.run, "success")
            log.info(f'{node} is up: monitor "{name}": {by.reason} ({count})')

    def _void(self, check: Check, why: str) -> bool:
        """A check that says nothing; said once in a while, since it is seldom one alone."""
        check.not_done += 1
        now = time.monotonic()
        if now - self._said >= SAY_AGAIN_S:
            self._said = now
            name = check.identity.name
            log.warn(
                errors.CHECK_NOT_DONE.line(node=written(check.identity.key), name=name, why=why)
            )
        return False


def identities(cfg: Config, tls: TlsFiles) -> Iterator[Identity]:
    """Every monitor of every node."""
    for pool_name, pool in cfg.pools.items():
        pool_tls = tls.of_pool(pool_name) if pool.monitors else None
        for name in pool.monitors:
            monitor = cfg.monitors[name]
            its_tls = tls.monitors.get(name, pool_tls)
            if monitor.type == "tls":
                its_tls = its_tls or UNVERIFIED
            for node in pool.nodes:
                key = node_key(pool_name, node.address)
                host = host_of(cfg, pool_name, node)
                called = host.name if host is not None else key.ip
                yield Identity(
                    key,
                    name,
                    Target(monitor, key, called, pool.proxy_protocol, its_tls),
                )


def pause(monitor: Monitor, soon: bool) -> float:
    """Seconds from the begin of one check to that of the next."""
    interval = monitor.interval_ms
    if soon:
        interval = min(monitor.fast_interval_ms, interval)
    return interval / 1000 * (1 + random.uniform(-1, 1) * monitor.jitter / 100)


def _times(count: int, noun: str) -> str:
    plural = {"failure": "failures", "success": "successes"}[noun]
    return f"{count} {noun if count == 1 else plural}"
