"""Which number each name has in the core's tables, the same over every reload.

A number is freed once no request's plan has it (in_force.py), and handed out again as late as
possible. Nothing here is written to shared memory; control.py does
that once a reload is certain.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

from fastlb import config
from fastlb.config import Config
from fastlb.units import HostAddress, InetAddress, UnixAddress
from fastlb.uses import rules_of

K = TypeVar("K", bound=Hashable)


class Numbers(Generic[K]):
    """Numbers below `room`, each for one key while the key is in use."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.used: dict[K, int] = {}
        self.freed: deque[int] = deque()
        self.begun = 0  # numbers below were handed out at least once

    def take(self, keys: Iterable[K]) -> list[K]:
        """Gives a number to each key that has none; returns those keys, raises when full."""
        new = [key for key in dict.fromkeys(keys) if key not in self.used]
        if len(self.used) + len(new) > self.room:
            raise OverflowError(f"{len(self.used) + len(new)} of at most {self.room}")
        for key in new:
            self.used[key] = self._next()
        return new

    def _next(self) -> int:
        if self.begun < self.room:
            self.begun += 1
            return self.begun - 1
        return self.freed.popleft()

    def restore(self, used: Iterable[tuple[K, int]], freed: Iterable[int], begun: int) -> None:
        """As another control process had them."""
        self.used, self.freed, self.begun = dict(used), deque(freed), begun

    def free(self, key: K) -> int:
        """Takes a key's number back and returns it."""
        number = self.used.pop(key)
        self.freed.append(number)
        return number


class NodeKey(NamedTuple):
    """A node: the same address in two pools is two nodes."""

    pool: str
    ip: str
    port: int


class ListenerKey(NamedTuple):
    """A listening address of a virtual server."""

    virtual_server: str
    address: InetAddress | UnixAddress


class Slots:
    """The numbers of everything that a plan names."""

    def __init__(self) -> None:
        self.nodes: Numbers[NodeKey] = Numbers(config.NODES_MAX)
        self.pools: Numbers[str] = Numbers(config.NODES_MAX)
        self.classes: Numbers[str] = Numbers(config.CLASSES_MAX)
        self.virtual_servers: Numbers[str] = Numbers(config.VIRTUAL_SERVERS_MAX)
        self.listeners: Numbers[ListenerKey] = Numbers(1 << 32)
        self.rules: Numbers[str] = Numbers(config.RULES_MAX)

    def take(self, cfg: Config) -> "Taken":
        """Numbers for all of `cfg`; returns what is new, for `give_back`. Raises OverflowError."""
        taken = Taken()
        try:
            for name, pool in cfg.pools.items():
                taken.nodes += self.nodes.take(node_key(name, node.address) for node in pool.nodes)
            taken.pools = self.pools.take(cfg.pools)
            taken.classes = self.classes.take(cfg.persistence)
            taken.virtual_servers = self.virtual_servers.take(cfg.virtual_servers)
            taken.listeners = self.listeners.take(listener_keys(cfg))
            taken.rules = self.rules.take(rules_of(cfg))
        except OverflowError:
            self.give_back(taken)
            raise
        return taken

    def give_back(self, taken: "Taken") -> None:
        """Undoes `take`, when the configuration is not used after all."""
        for key in taken.nodes:
            self.nodes.free(key)
        for listener in taken.listeners:
            self.listeners.free(listener)
        for numbers, names in (
            (self.pools, taken.pools),
            (self.classes, taken.classes),
            (self.virtual_servers, taken.virtual_servers),
            (self.rules, taken.rules),
        ):
            for name in names:
                numbers.free(name)

    def unused(self, cfg: Config) -> "Taken":
        """What has a number and is not in `cfg`."""
        gone = Taken()
        nodes = {node_key(name, node.address) for name, p in cfg.pools.items() for node in p.nodes}
        gone.nodes = [key for key in self.nodes.used if key not in nodes]
        gone.pools = [name for name in self.pools.used if name not in cfg.pools]
        gone.classes = [name for name in self.classes.used if name not in cfg.persistence]
        servers = self.virtual_servers.used
        gone.virtual_servers = [name for name in servers if name not in cfg.virtual_servers]
        rules = set(rules_of(cfg))
        gone.rules = [name for name in self.rules.used if name not in rules]
        kept = set(listener_keys(cfg))
        gone.listeners = [key for key in self.listeners.used if key not in kept]
        return gone


class Taken:
    """Keys of each kind."""

    def __init__(self) -> None:
        self.nodes: list[NodeKey] = []
        self.pools: list[str] = []
        self.classes: list[str] = []
        self.virtual_servers: list[str] = []
        self.listeners: list[ListenerKey] = []
        self.rules: list[str] = []


def node_key(pool: str, address: InetAddress | HostAddress) -> NodeKey:
    assert isinstance(address, InetAddress)  # host names were replaced (host_names.py)
    return NodeKey(pool, str(address.ip), address.port)


def listener_keys(cfg: Config) -> list[ListenerKey]:
    """Every listening address, in the order of the file."""
    return [
        ListenerKey(name, address)
        for name, server in cfg.virtual_servers.items()
        for address in server.listen
    ]
