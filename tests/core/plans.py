"""Plans for the tests of the core, in the words of the configuration."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from fastlb._core._testing_decide import World
from fastlb._core._testing_parts import token
from fastlb._core._testing_plan import PlanImage
from fastlb._core.node import free_slot, open_slot, set_state
from fastlb._core.plan import CLASS_FLAGS, PlanBuilder
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment
from fastlb.plan import schedule

KEYS = [bytes(range(i, i + 16)) for i in (0, 16, 32, 48)]
TAIL = "; Path=/; HttpOnly"
CACHED = ("ip", "universal", "j2ee", "asp", "ssl")
SESSION_COOKIES = {"j2ee": "JSESSIONID", "asp": "ASP.NET_SessionId"}  # unless the class says
PASSIVE = {  # as configured by default
    "failures": 5, "errors": 0, "errors_of": 20, "window": 10, "backoff_min": 1000,
    "backoff_max": 30000,
}  # fmt: skip
INSERTED = ("transparent", "cookie-insert", "cookie")


def seed(ip: str, port: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{ip}:{port}".encode()).digest()[:8], "little")


@dataclass
class Node:
    address: str = "10.0.0.1:80"
    weight: int = 1
    backup: bool = False
    max_connections: int = 0
    state: str = "up"

    @property
    def ip(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass
class Class:
    name: str = "sessions"
    type: str = "ip"
    fallback: str = ""
    failure_mode: str = "new-node"
    flags: tuple[str, ...] = ("delete_on_failure", "hide_cookie", "protect_cache")
    redirect_url: str = "/sorry"
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64
    size: int = 64
    expiry_ticks: int = 0
    reserve_ticks: int = 0
    timeout_s: int = 0
    max_lifetime_s: int = 0
    tail: str = TAIL
    key: list[tuple[str, str]] = field(default_factory=list)
    learn: list[tuple[str, str]] = field(default_factory=list)
    session_cookie: str = ""
    session_parameter: str = "jsessionid"
    route_separators: str = ".!:"
    names: list[tuple[str, int]] | None = None  # of its cookie, and the virtual server of each
    passphrases: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def id(self) -> int:
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "little")

    @property
    def cookie_name(self) -> str:
        return f"X-Mapping-{self.id:08x}"


@dataclass
class Setting:
    """One virtual server with one pool; `build` makes a world of it."""

    nodes: list[Node] = field(default_factory=lambda: nodes(3))
    classes: list[Class] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)  # of a second pool with the same class
    algorithm: str = "round-robin"
    refuse_last_draining: bool = False
    persistence: str | None = None  # None: the first class
    queue: tuple[int, int] = (10, 1000)
    workers: int = 2
    trusted: list[tuple[str, int]] = field(default_factory=list)
    decision: list[tuple[str, int]] = field(default_factory=list)
    forwarded_fields: tuple[str, ...] = ("x-forwarded-for", "x-forwarded-proto")
    routes: list[tuple[Any, ...]] = field(default_factory=list)  # host, path, pool, sni and alpn
    named: list[tuple[str, int]] = field(default_factory=list)  # networks of unlisted nodes
    protocol: str = "http"
    log_format: str = "json"
    timeouts: dict[str, int] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=lambda: KEYS)
    rules: list[str] = field(default_factory=list)  # of the virtual server: "module:function"
    rules_directory: str = "."
    on_error: str = "continue"
    rule_timeout: int = 1000
    rule_watchdog: int = 100
    rules_parked: int = 100
    rules_shared: tuple[int, int] = (0, 0)
    passive: dict[str, int] = field(default_factory=dict)  # empty: nothing ejects a node
    slow_start: int = 0
    error_pages: list[tuple[int, str, bytes]] = field(default_factory=list)
    retry_after: int = 1

    def index(self, name: str) -> int:
        return [one.name for one in self.classes].index(name)

    def add_classes(self, builder: PlanBuilder, segment: Segment | None) -> None:
        for index, one in enumerate(self.classes):
            cache = reservations = (0, 0)
            flags = sum(CLASS_FLAGS[flag] for flag in one.flags)
            if one.type in CACHED and segment is not None:
                cache = make_cache(segment, f"cache-{index}", one.size)
                flags |= CLASS_FLAGS["has_cache"]
            if one.type in INSERTED:
                flags |= CLASS_FLAGS["inserts_cookie"]
            if one.learn or one.type in ("j2ee", "asp", "ssl"):
                flags |= CLASS_FLAGS["learns"]
            if one.type == "ssl":
                flags |= CLASS_FLAGS["keys_granted"]
            if one.reserve_ticks and segment is not None:
                reservations = make_cache(segment, f"reserved-{index}", one.size)
            builder.add_class(
                name=one.name, id=one.id, slot=index, type=one.type,
                fallback=self.index(one.fallback) if one.fallback else -1,
                failure_mode=one.failure_mode, redirect_url=one.redirect_url, flags=flags,
                ipv4_bits=one.ipv4_prefix, ipv6_bits=one.ipv6_prefix, cache=cache,
                expiry_ticks=one.expiry_ticks, reserve_ticks=one.reserve_ticks,
                reservations=reservations, timeout_s=one.timeout_s,
                max_lifetime_s=one.max_lifetime_s, cookie_tail=one.tail,
                cookie_names=one.names or [(one.cookie_name, -1)], key=one.key, learn=one.learn,
                session_cookie=one.session_cookie or SESSION_COOKIES.get(one.type, ""),
                session_parameter=one.session_parameter,
                route_separators=one.route_separators, passphrases=one.passphrases,
            )  # fmt: skip

    def add_rules(self, builder: PlanBuilder) -> list[int]:
        builder.set_rules(
            directory=self.rules_directory, on_error=self.on_error, timeout=self.rule_timeout,
            watchdog=self.rule_watchdog, parked_max=self.rules_parked, shared=self.rules_shared,
        )  # fmt: skip
        names = list(dict.fromkeys(self.rules))
        indices = {name: builder.add_rule(name=name, slot=i) for i, name in enumerate(names)}
        return [indices[name] for name in self.rules]

    def blob(self, segment: Segment | None = None) -> bytes:
        builder = PlanBuilder()
        builder.set_global(
            generation=7, workers=self.workers, log_format=self.log_format,
            node_table_offset=4096, epoch_ms=12345, keys=self.keys,
        )  # fmt: skip
        builder.set_limits(
            max_connections=1000, request_line_bytes=8192, head_bytes=32768, field_count=200,
            body_bytes=0, buffer_bytes=1 << 20,
        )  # fmt: skip
        timeouts = dict.fromkeys(
            ("client_header", "client_body", "keep_alive", "connect", "response", "tunnel",
             "drain", "node_keep_alive"), 1000,
        )  # fmt: skip
        builder.set_timeouts(**(timeouts | self.timeouts))
        self.add_classes(builder, segment)
        first = 0
        for slot, node in enumerate([*self.nodes, *self.others]):
            builder.add_node(
                ip=node.ip, port=node.port, slot=slot, weight=node.weight,
                max_connections=node.max_connections, backup=node.backup,
                hash_seed=seed(node.ip, node.port),
            )  # fmt: skip
        persistence = self.persistence or (self.classes[0].name if self.classes else "")
        builder.add_pool(
            name="web", slot=0, algorithm=self.algorithm, first_node=first,
            node_count=len(self.nodes),
            persistence=self.index(persistence) if persistence else -1, retries=2,
            refuse_last_draining=self.refuse_last_draining,
            schedule=schedule([node.weight for node in self.nodes]), queue=self.queue,
            named=builder.add_networks(self.named), slow_start=self.slow_start,
            passive=self.passive and PASSIVE | self.passive,
        )  # fmt: skip
        if self.others:
            builder.add_pool(
                name="others", slot=1, algorithm=self.algorithm, first_node=len(self.nodes),
                node_count=len(self.others),
                persistence=self.index(persistence) if persistence else -1, retries=2,
                refuse_last_draining=False, schedule=schedule([one.weight for one in self.others]),
                named=builder.add_networks([]),
            )  # fmt: skip
        for host, path, pool, *hello in self.routes:
            builder.add_route(host=host, path=path, pool=pool, **(hello[0] if hello else {}))
        rules = self.add_rules(builder)
        builder.add_virtual_server(
            name="shop", slot=0, protocol=self.protocol, pool=0, routes=(0, len(self.routes)),
            trusted=builder.add_networks(self.trusted),
            decision=builder.add_networks(self.decision), rules=rules,
            error_pages=self.error_pages, retry_after=self.retry_after,
            flags=self.forwarded_fields,
        )  # fmt: skip
        builder.add_listener(id=1, virtual_server=0)
        return builder.finish()

    def image(self) -> PlanImage:
        return PlanImage(self.blob())

    def world(self, segment: Segment) -> World:
        made = World(PlanImage(self.blob(segment)), segment)
        for slot, node in enumerate([*self.nodes, *self.others]):
            open_slot(made.table_address, slot, node.state)
        return made

    def cookie(self, node: str, name: str | None = None, **more: Any) -> str:
        """The value that the class's cookie has for a node's address."""
        one = self.classes[self.index(name) if name else 0]
        at = Node(node)
        return token(KEYS[1], KEYS[2], at.ip, at.port, one.id, **more).decode()


def make_cache(segment: Segment, name: str, size: int) -> tuple[int, int]:
    Cache.create(segment, name, size)
    return segment.find(name)


def nodes(count: int, **more: Any) -> list[Node]:
    return [Node(f"10.0.0.{i + 1}:80", **more) for i in range(count)]


def state(world: World, slot: int, name: str) -> None:
    if name == "free":
        free_slot(world.table_address, slot)
    else:
        set_state(world.table_address, slot, name)


def get(*fields: str, target: str = "/", version: str = "1.1") -> bytes:
    """A GET request's head; a Host is put in unless there is one."""
    lines = [f"GET {target} HTTP/{version}"]
    if version == "1.1" and not any(one.lower().startswith("host:") for one in fields):
        lines.append("Host: www.example.com")
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


def with_cookie(cls: Class, value: str, *more: str) -> bytes:
    return get(f"Cookie: {cls.cookie_name}={value}", *more)


def changed(cls: Class, **more: Any) -> Class:
    return Class(**(vars(cls) | more))
