"""Host names over time: asked again when their TTL is over, kept when nobody answers, and addresses
held for a while that they lead to no more, so that sessions there can end."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlb import errors, log
from fastlb.config import Config
from fastlb.host_names import ADDRESSES_MAX, Known, names_of
from fastlb.slots import NodeKey, node_key
from fastlb.units import IP, HostAddress, InetAddress, read_ip

if TYPE_CHECKING:
    from fastlb.resolver import Found, Resolver

FIRST_S = 3.0  # that a start or a reload waits for new names
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
LOOK_S = 5.0  # between two looks at /etc/hosts, however long the TTL

Place = tuple[str, HostAddress]  # a name's port in a pool


@dataclass
class Name:
    """One name."""

    name: str
    addresses: tuple[IP, ...] = ()
    error: str | None = None
    due: float = 0.0  # when it is asked again
    failures: int = 0  # in a row
    cut: bool = False  # too many addresses, which was said
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class NameWatch:
    """All names of the configuration in force; `changed` is called when `known` is another, and
    `in_use` tells whether an address is a node of a pool: others need not be held."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        in_use: Callable[[str, InetAddress], bool] = lambda pool, address: True,
    ) -> None:
        self.changed, self.in_use = changed, in_use
        self.names: dict[str, Name] = {}
        self.held: dict[Place, dict[IP, float]] = {}  # since when
        self._places: dict[Place, float] = {}  # with the pool's hold time, in s
        self._announced: set[tuple[Place, IP]] = set()
        self._resolver: Resolver | None = None

    @property
    def known(self) -> Known:
        """For `host_names.expand`."""
        addresses = {name: one.addresses for name, one in self.names.items()}
        return Known(addresses, {place: tuple(held) for place, held in self.held.items()})

    async def learn(self, cfg: Config) -> None:
        """Waits a moment for what names lead to that are new in a configuration. Others stay."""
        wanted = names_of(cfg)
        if not wanted:
            return
        self._use_servers(cfg)
        loop = asyncio.get_running_loop()
        new = [self.names.setdefault(name, Name(name)) for name in wanted if name not in self.names]
        for one in new:
            one.task = loop.create_task(self._follow(one))
        if new:
            waiting = [loop.create_task(one.asked.wait()) for one in new]
            _, late = await asyncio.wait(waiting, timeout=FIRST_S)
            for task in late:
                task.cancel()
        for one in new:
            if not one.asked.is_set():
                self._failed(one, f"no answer within {FIRST_S:g} s")

    def settle(self, cfg: Config) -> None:
        """This configuration is in force: what is not in it is forgotten."""
        wanted = names_of(cfg)
        for name in self.names.keys() - wanted.keys():
            self._forget(self.names.pop(name))
        self._places = {
            (pool, host): cfg.pools[pool].resolve_hold_ms / 1000
            for places in wanted.values()
            for pool, host in places
        }
        self.held = {place: held for place, held in self.held.items() if place in self._places}
        if wanted:
            self._use_servers(cfg)

    def remember(self, hosts: Iterable[tuple[str, str, str]]) -> None:
        """What another control process knew (pool, name with port, address): kept where nobody
        answers now, else held."""
        places = {(pool, str(host)): (pool, host) for pool, host in self._places}
        known = [
            (places[pool, host], read_ip(ip)) for pool, host, ip in hosts if (pool, host) in places
        ]
        unanswered = {name for name, one in self.names.items() if not one.addresses}
        for place, ip in known:
            one = self.names.get(place[1].name)
            if one is None or ip is None or ip in one.addresses:
                continue
            if one.name in unanswered:
                one.addresses = (*one.addresses, ip)
            elif self._places[place]:
                self.held.setdefault(place, {}).setdefault(ip, time.monotonic())

    def _use_servers(self, cfg: Config) -> None:
        if self._resolver is None or self._resolver.servers != cfg.proxy.resolvers:
            from fastlb.resolver import Resolver  # and dnspython

            self._resolver = Resolver(cfg.proxy.resolvers)

    def close(self) -> None:
        """No more questions."""
        for one in self.names.values():
            self._forget(one)
        self.names.clear()

    @staticmethod
    def _forget(one: Name) -> None:
        if one.task is not None:
            one.task.cancel()

    # --- one name ---

    async def _follow(self, one: Name) -> None:
        while True:
            wait = await self._ask(one)
            one.asked.set()
            one.due = time.monotonic() + wait
            while (left := one.due - time.monotonic()) > 0:
                await asyncio.sleep(min(left, LOOK_S))
                assert self._resolver is not None
                if self._resolver.hosts.is_changed():
                    break

    async def _ask(self, one: Name) -> float:
        """Seconds until it is to be asked again."""
        from fastlb.resolver import Unresolved

        assert self._resolver is not None
        try:
            found = await self._resolver.look_up(one.name, one.addresses)
        except (Unresolved, TimeoutError, OSError) as error:
            self._failed(one, str(error) or "no answer")
            one.failures += 1
            return min(RETRY_MIN_S * (1 << min(one.failures - 1, 10)), RETRY_MAX_S)
        self._answered(one, found)
        return found.ttl_s

    def _failed(self, one: Name, reason: str) -> None:
        if one.error != reason:
            what = "its last addresses stay" if one.addresses else "there are no nodes of it yet"
            log.warn(errors.NAME_UNRESOLVED.line(name=one.name, reason=reason, what=what))
        one.error = reason

    def _answered(self, one: Name, found: "Found") -> None:
        before, one.addresses = one.addresses, found.addresses
        again = one.error is not None
        one.error, one.failures = None, 0
        if found.more and not one.cut:
            total = len(found.addresses) + found.more
            values = {"name": one.name, "found": total, "used": ADDRESSES_MAX}
            log.warn(errors.NAME_CUT.line(**values))
        one.cut = bool(found.more)
        if again and before:
            log.info(f'"{one.name}" is answered again')
        if before == found.addresses:
            return
        held = {ip for place in self._places_of(one) for ip in self.held.get(place, {})}
        new = [str(ip) for ip in found.addresses if ip not in before and ip not in held]
        if new:
            log.info(f'"{one.name}" leads to {", ".join(new)}{" too" if before else ""}')
        for place in self._places_of(one):
            self._hold(place, before, found.addresses)
        self.changed()

    def _places_of(self, one: Name) -> list[Place]:
        return [place for place in self._places if place[1].name == one.name]

    def _hold(self, place: Place, before: tuple[IP, ...], now: tuple[IP, ...]) -> None:
        held = self.held.setdefault(place, {})
        for ip in now:
            held.pop(ip, None)
        for ip in before:
            used = self.in_use(place[0], InetAddress(ip, place[1].port))
            if ip not in now and used and self._places[place]:
                held.setdefault(ip, time.monotonic())
                self._announce(place, ip)
        if not held:
            del self.held[place]

    def _announce(self, place: Place, ip: IP) -> None:
        """Once for each, however often answers rotate."""
        if (place, ip) not in self._announced:
            self._announced.add((place, ip))
            pool, host = place
            address = InetAddress(ip, host.port)
            until = f"it drains, for at most {self._places[place]:g} s"
            log.info(f'{address} of [pools.{pool}]: "{host.name}" leads there no more; {until}')

    # --- what is held ---

    def expire(self, safe: Iterable[NodeKey] = ()) -> None:
        """Lets go of what was held for its time, or has no session any more."""
        safe = set(safe)
        now, gone = time.monotonic(), False
        for place, held in list(self.held.items()):
            pool, host = place
            for ip, since in list(held.items()):
                address = InetAddress(ip, host.port)
                why = "nobody needs it" if node_key(pool, address) in safe else ""
                if now - since >= self._places[place]:
                    why = "its time is over"
                if why:
                    del held[ip]
                    self._announced.discard((place, ip))
                    log.info(f'{address} of [pools.{pool}] is taken out: "{host.name}", {why}')
                    gone = True
            if not held:
                del self.held[place]
        if gone:
            self.changed()

    def shown(self, pool: str) -> list[dict[str, Any]]:
        """What `fastlb status` says of a pool's names."""
        now = time.monotonic()
        rows = []
        for place in self._places:
            if place[0] == pool and (one := self.names.get(place[1].name)) is not None:
                rows.append(
                    {
                        "name": str(place[1]),
                        "addresses": [str(ip) for ip in one.addresses],
                        "held": [str(ip) for ip in self.held.get(place, ())],
                        "error": one.error,
                        "next_seconds": max(round(one.due - now), 0),
                    }
                )
        return rows
