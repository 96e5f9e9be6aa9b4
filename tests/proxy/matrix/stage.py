"""The proxy of one method. Each situation has a slot in it: a virtual server, a pool of three
nodes and a class of its own, so that what one story breaks no other one sees."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastlb.control_socket import ask
from tests.harness import ANY_PORT, Client, proxy, until
from tests.harness.rules import ruled
from tests.harness.settings import Config, toml

from .application import AppNode
from .methods import Kind, Method
from .visitor import Visitor

WORKERS = 2
NODES = "abc"
FALLBACK = "_fallback"  # what the name of a slot's fallback class ends in
CONNECTIONS_MAX = 100  # opened to reach every worker: one misses all of 100 in 2 ** 100 cases


@dataclass(frozen=True)
class Situation:
    """One column of the table."""

    name: str
    story: Callable[[Slot], None]
    keys: Callable[[Method], dict[str, Any]] = lambda _method: {}  # of the class
    more: Callable[[Slot, Config], None] = lambda _slot, _config: None  # to the configuration
    early: Callable[[Slot], None] = lambda _slot: None  # done at the start of the proxy
    server: dict[str, Any] = field(default_factory=dict)  # keys of the virtual server

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())


class Slot:
    """What a story has to itself."""

    def __init__(self, stage: Stage, situation: Situation, nodes: dict[str, AppNode]):
        self.stage = stage
        self.method = stage.method
        self.situation = situation
        self.name = f"{self.method.slug}_{situation.slug}"[:50]
        self.nodes = nodes
        self.everybody = dict(nodes)  # with the nodes of other pools
        self.own_names: set[str] = set()  # of the cookies that its virtual server sets
        self.early: Any = None  # what `Situation.early` left for the story

    # --- configuration ---

    def class_keys(self) -> dict[str, Any]:
        size = {"size": 64} if self.method.kind is Kind.CACHE else {}
        files = self.method.files(self.stage.folder)
        keys = {**self.method.keys, **size, **files, **self.situation.keys(self.method)}
        if "fallback" in keys:
            keys["fallback"] = self.name + keys["fallback"]
        return keys

    def add(
        self, config: Config, suffix: str = "", *, cls: str | None = None,
        nodes: list[Any] | None = None, **server: Any,
    ) -> None:  # fmt: skip
        """A virtual server with its pool; the class is this slot's unless one is named."""
        name = self.name + suffix
        config["virtual_servers"][name] = {
            "listen": [ANY_PORT], "protocol": "http", "pool": name,
            "decision_header": ["127.0.0.0/8"], "rules": list(self.method.rules), **server,
        }  # fmt: skip
        config["pools"][name] = {
            "nodes": list(self.nodes.values()) if nodes is None else nodes,
            "algorithm": "round-robin", "persistence": cls or self.name,
        }  # fmt: skip

    def configure(self, config: Config) -> None:
        config["persistence"][self.name] = self.class_keys()
        self.add(config, **self.situation.server)
        self.situation.more(self, config)

    def nodes_are(self, *nodes: Any) -> None:
        """A reload with other nodes in the pool."""
        self.stage.config["pools"][self.name]["nodes"] = list(nodes)
        self.stage.reload()

    # --- what the stories ask ---

    def address(self, server: str = "") -> tuple[str, int]:
        return self.stage.proxy.address(self.name + server)

    def visitor(self, jar: dict[str, str] | None = None, shared: bool = False) -> Visitor:
        return Visitor(self, jar, shared)

    def settled(self) -> tuple[Visitor, str]:
        """A user with a session, and its node."""
        user = self.visitor()
        home = user.begin().node
        assert home is not None
        return user, home

    def settled_on(self, wanted: Callable[[str], bool]) -> tuple[Visitor, str]:
        """The next newcomer whose node is wanted."""
        users = (self.settled() for _ in range(60))
        return next(pair for pair in users if wanted(pair[1]))

    def crowd(self) -> dict[str, Visitor]:
        """One user on each node."""
        return {name: self.settled_on(lambda node, name=name: node == name)[0] for name in NODES}

    def status(self) -> dict[str, Any]:
        """Of the slot's class."""
        answer = ask(self.stage.state_dir, "status")
        return answer["status"]["persistence"][self.name]

    def connection(self, source: str | None = None) -> Client:
        return Client(self.address(), source)

    @contextlib.contextmanager
    def connections(self, source: str) -> Iterator[list[Client]]:
        """A connection to each worker, from an address."""
        pids = self.stage.worker_pids()
        found: dict[int, Client] = {}
        with contextlib.ExitStack() as opened:
            for _ in range(CONNECTIONS_MAX):
                client = opened.enter_context(self.connection(source))
                found.setdefault(worker_of(client, pids), client)
                if len(found) == len(pids):
                    break
            assert len(found) == WORKERS, f"{CONNECTIONS_MAX} connections reached {found}"
            yield list(found.values())


class Stage:
    """A running proxy with a slot for each situation."""

    def __init__(
        self, method: Method, situations: list[Situation], folder: Path,
        nodes: dict[str, AppNode] | None = None,
    ):  # fmt: skip
        self.method = method
        self.folder = folder
        self.open = contextlib.ExitStack()
        self.slots = {
            one.name: Slot(self, one, self.three_nodes() if nodes is None else nodes)
            for one in situations
        }
        self.config: Config = {
            "proxy": {"workers": WORKERS}, "virtual_servers": {}, "pools": {},
            "persistence": {}, "timeouts": {"drain": "1s"},
        }  # fmt: skip

    def three_nodes(self) -> dict[str, AppNode]:
        return {name: self.node(name) for name in NODES}

    def node(self, name: str, host: str | None = None) -> AppNode:
        one = AppNode(name, self.method.application, host)
        return self.open.enter_context(one)

    @property
    def state_dir(self) -> Path:
        return self.proxy.folder / "state"

    def worker_pids(self) -> list[int]:
        return [one["pid"] for one in ask(self.state_dir, "status")["status"]["workers"]]

    def reload(self) -> None:
        """The configuration as it is now, in force."""
        self.proxy.file.write_text(toml(self.proxy._place(self.config)))
        answer = ask(self.state_dir, "reload")
        assert answer["ok"], answer


@contextlib.contextmanager
def stage(
    method: Method, situations: list[Situation], folder: Path,
    nodes: dict[str, AppNode] | None = None,
) -> Iterator[Stage]:  # fmt: skip
    made = Stage(method, situations, folder, nodes)
    with made.open:
        for slot in made.slots.values():
            slot.configure(made.config)
        modules = {rule.partition(":")[0]: text for rule, text in method.rules.items()}
        with proxy(made.config, ruled(**modules)) as made.proxy:
            for slot in made.slots.values():
                slot.situation.early(slot)
            yield made


def worker_of(client: Client, pids: list[int]) -> int:
    """The pid of the worker that has accepted a connection, from /proc."""
    near, far = (hex_of(*end) for end in (client.sock.getpeername(), client.sock.getsockname()))

    def look() -> int:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[1:3] == [near, far]:
                return owner(f"socket:[{parts[9]}]", pids)
        return 0

    return until(look, "a worker has accepted the connection")


def hex_of(host: str, port: int) -> str:
    (number,) = struct.unpack("=I", bytes(map(int, host.split("."))))
    return f"{number:08X}:{port:04X}"


def owner(socket: str, pids: list[int]) -> int:
    for pid in pids:
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == socket:
                    return pid
    return 0
