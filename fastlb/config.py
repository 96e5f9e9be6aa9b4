"""What can be configured: one struct per table of the TOML file, one field per key.

A field's docstring is the user's text, its type says what is accepted, its default is the
default: docs/configuration.md is generated from them (ci/config_reference.py).
The same structs are what the rest of the control plane reads: numbers are milliseconds
(`_ms`) and bytes (`_bytes`), addresses are parsed, defaults filled in, references are names.
The unit suffix is no part of the key in the file. check.py makes a Config of a file.
"""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from msgspec import Meta, field

from fastlb.config_classes import (
    CLASS_TYPES,
    KEY_KINDS,
    AppCookieClass,
    AspClass,
    CacheClass,
    CookieClass,
    CookieInsertClass,
    HashClass,
    IpClass,
    J2eeClass,
    NamedClass,
    PersistenceClass,
    SslClass,
    TransparentClass,
    UniversalClass,
    XZeusClass,
)
from fastlb.config_table import NAME_PATTERN, ClassName, File, Name, Table, key_of
from fastlb.rule_mark import RuleKind
from fastlb.units import (
    Computed,
    Duration,
    FilePath,
    HostAddress,
    Inet,
    InetAddress,
    InetOrHost,
    Listen,
    Network,
    Networks,
    Pattern,
    Size,
    UnixAddress,
    Workers,
)

__all__ = [  # the classes of config_classes.py too
    "CLASSES_MAX",
    "CLASS_TYPES",
    "COOKIE_BYTES_MAX",
    "COOKIE_NAMES_MAX",
    "FALLBACK_DEPTH_MAX",
    "HEADER_COUNT_MAX",
    "HEAD_BYTES_MAX",
    "KEY_KINDS",
    "LISTENERS_MAX",
    "NAME_PATTERN",
    "NODES_MAX",
    "NO_KEYS",
    "PLACES",
    "RULES_MAX",
    "VIRTUAL_SERVERS_MAX",
    "WORKERS_MAX",
    "Admin",
    "AppCookieClass",
    "AspClass",
    "CacheClass",
    "Certificate",
    "Cluster",
    "Config",
    "CookieClass",
    "CookieInsertClass",
    "HashClass",
    "HostNode",
    "IpClass",
    "J2eeClass",
    "Limits",
    "Monitor",
    "NamedClass",
    "Node",
    "Passive",
    "PersistenceClass",
    "Pool",
    "PoolTls",
    "Proxy",
    "Route",
    "Rules",
    "SslClass",
    "Table",
    "Timeouts",
    "TransparentClass",
    "UniversalClass",
    "VirtualServer",
    "VirtualServerTls",
    "XZeusClass",
    "cpu_count",
    "default_secret_file",
    "default_state_dir",
    "key_of",
]

# Bounds that the core fixes (fastlb/_core/limits.pxd); a test compares them.
WORKERS_MAX = 64  # the core has twice as many columns: see there
NODES_MAX = 4095  # the core's last slot is that of the nodes that no pool lists
VIRTUAL_SERVERS_MAX = 256
CLASSES_MAX = 256
FALLBACK_DEPTH_MAX = 16  # classes in one chain
RULES_MAX = 128  # of all virtual servers, each counted once
COOKIE_NAMES_MAX = 16  # virtual servers that write a class's cookie, each under its own name
HEADER_COUNT_MAX = 256
HEAD_BYTES_MAX = 60 << 10  # of HEAD_BYTES_MAX; the rest is room for the fields that are added

LISTENERS_MAX = 250  # one message to a worker carries at most 253 descriptors (SCM_MAX_FD)
COOKIE_BYTES_MAX = 900  # name and attributes of an inserted cookie

PLACES = (Path("fastlb.toml"), Path("/etc/fastlb/fastlb.toml"))


def cpu_count() -> int:
    """The CPUs this process may use, at most WORKERS_MAX."""
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def default_state_dir() -> Path:
    """/var/lib/fastlb for root, else below the user's XDG state directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/fastlb")
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(home) / "fastlb"


def default_secret_file() -> Path:
    return default_state_dir() / "secret"


PoolName = Annotated[str, Pattern(r"(?s:.+)", "the name of a pool")]
MonitorName = Annotated[str, Pattern(r"(?s:.+)", "the name of a monitor")]
Address = Annotated[InetAddress, Inet()]
NodeAddress = Annotated[InetAddress | HostAddress, InetOrHost()]
ListenAddress = Annotated[InetAddress | UnixAddress, Listen()]
Cidr = Annotated[Network, Networks()]


class Proxy(Table, frozen=True, kw_only=True):
    """The program as a whole."""

    workers: Annotated[int, Computed(Workers(WORKERS_MAX, cpu_count), '"auto"')] = field(
        default_factory=cpu_count
    )
    """Worker processes; `"auto"` is one per CPU that fastlb may use."""
    state_dir: Annotated[
        Path,
        Computed(
            FilePath(),
            '`"/var/lib/fastlb"` for root, else `fastlb` in `$XDG_STATE_HOME` or `~/.local/state`',
        ),
    ] = field(default_factory=default_state_dir)
    """Directory (mode 0700) of the secret, the saved session caches and the control socket."""
    secret_file: Annotated[Path, Computed(FilePath(), "`secret` in `state_dir`")] = field(
        default_factory=default_secret_file
    )
    """The installation's secret, made at the first start (mode 0600). Proxies that share it read
    each other's cookies."""
    user: str | None = None
    """The user that fastlb becomes once its sockets are bound; absent: no change."""
    access_log: Annotated[str, Pattern(r"[^\x00]+", 'a file, "stdout", "syslog" or "off"')] = (
        "stdout"
    )
    """Where a line per request, or per connection on `tls` and `tcp`, goes: a file, `"stdout"`,
    `"syslog"` or `"off"`."""
    access_log_format: Literal["json", "combined"] = "json"
    """`"json"`, or `"combined"`, which Apache and nginx write too."""
    worker_timeout_ms: Annotated[int, Duration("1s", "24h", zero="never")] = 30_000
    """A worker whose loop does not turn for longer is ended and replaced, at the earliest after
    twice `rules.timeout`; loading rules and certificates has to be done by then. `"0s"`: never."""
    resolvers: tuple[Address, ...] = ()
    """DNS servers that are asked for the addresses of host names; none: those of
    `/etc/resolv.conf`."""


class Route(Table, frozen=True, kw_only=True):
    """Sends some requests to another pool; all conditions must hold, the first match wins."""

    host: Annotated[
        str | None, Pattern(r"(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", "a host name")
    ] = None
    """Host of the request, without port; `"*.example.com"` matches every name below."""
    path: Annotated[str | None, Pattern(r"/[!-~]*", 'a path that begins with "/"')] = None
    """Beginning of the request's path."""
    sni: Annotated[str | None, Pattern(r"(\*\.)?[A-Za-z0-9._-]+", "a server name")] = None
    """Server name in the ClientHello, `"*.example.com"` matches every name below; for protocol
    `"tls"`."""
    alpn: Annotated[str | None, Pattern(r"[!-~]{1,255}", 'a protocol name like "h2"')] = None
    """A protocol that the ClientHello offers (ALPN); for protocol `"tls"`."""
    pool: PoolName
    """The pool that serves it."""


class Certificate(Table, frozen=True, kw_only=True):
    """One certificate of a virtual server."""

    certificate: File
    """PEM file: the certificate, then its chain."""
    key: File
    """PEM file: its private key."""
    key_passphrase_file: File | None = None
    """File whose first line is the passphrase of an encrypted key."""
    ocsp: File | None = None
    """DER file with an OCSP response for it, which is stapled. A reload reads it again."""


class VirtualServerTls(Table, frozen=True, kw_only=True):
    """How TLS ends here; the client's server name picks the certificate."""

    certificates: tuple[Certificate, ...]
    """The first is the default."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest TLS version that is accepted."""
    ciphers: Annotated[str, Pattern(r"[A-Za-z0-9:+!@_.=-]+", "a list of ciphers")] = (
        "ECDHE+AESGCM:ECDHE+CHACHA20"
    )
    """Ciphers of TLS 1.2, as `openssl ciphers` reads them."""
    ciphersuites: Annotated[str, Pattern(r"[A-Za-z0-9_:]+", "a list of cipher suites")] = (
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    )
    """Cipher suites of TLS 1.3."""
    tickets: bool = True
    """Whether sessions are resumed by tickets; their keys change by themselves, and all workers
    share them."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients are asked for a certificate, and whether they have to have one."""
    client_ca: File | None = None
    """PEM file of the authorities of the clients' certificates."""


class VirtualServer(Table, frozen=True, kw_only=True):
    """A listening address, its protocol and its default pool."""

    listen: tuple[ListenAddress, ...]
    """One or more of `"0.0.0.0:80"`, `"[::]:80"`, `"unix:/run/fastlb/shop.sock"`. `[::]` is IPv6
    only: name both to serve both."""
    protocol: Literal["http", "https", "tls", "tcp"] = "http"
    """`"http"`; `"https"` (TLS ends here); `"tls"` (passed through); `"tcp"`."""
    pool: PoolName
    """The pool that serves what no route sends elsewhere."""
    rules: tuple[
        Annotated[str, Pattern(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", '"module:function"')],
        ...,
    ] = ()
    """Rules that see its connections and requests, as `"module:function"`, looked up beside the
    configuration file first."""
    routes: tuple[Route, ...] = ()
    """Routes to other pools."""
    trusted_proxies: tuple[Cidr, ...] = ()
    """Networks whose X-Forwarded-For and PROXY headers are believed."""
    proxy_protocol: bool = False
    """Whether the PROXY protocol (v1 or v2) is accepted, from `trusted_proxies` only."""
    not_tls: Literal["close", "tcp"] = "close"
    """What happens to a connection that is not TLS, on protocol `"tls"`."""
    decision_header: tuple[Cidr, ...] = ()
    """Networks whose clients are shown the decision in X-FastLB-Decision."""
    forwarded_fields: tuple[
        Literal["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"],
        ...,
    ] = ("x-forwarded-for", "x-forwarded-proto")
    """What nodes are told of the client: X-Forwarded-For, -Proto, -Host, Forwarded (RFC 7239),
    Via."""
    error_pages: dict[str, File] = field(default_factory=dict)
    """Files that are sent instead of fastlb's own pages, by status: `{ "503" = "sorry.html" }`. Up
    to 1 MiB each, read at start and reload; `.json`, `.txt` and `.xml` are sent as such, all others
    as HTML."""
    retry_after_ms: Annotated[int, Duration("1s", "24h")] = 1000
    """Retry-After of a 503, in whole seconds."""
    tls: VirtualServerTls | None = None
    """Certificates; for protocol `"https"`."""


class Node(Table, frozen=True, kw_only=True):
    """One back-end server; a plain `"address:port"` stands for a table with that `address`."""

    shorthand: ClassVar[str] = "address"

    address: NodeAddress
    """IP address, or host name, and port; each address that the name has is a node."""
    weight: Annotated[int, Meta(ge=0, le=256)] = 1
    """Its share of the new sessions, relative to the others'; 0: established sessions only."""
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Connections to it at one time, of all workers; 0: no limit."""
    backup: bool = False
    """Whether it gets new sessions only while every other node is down."""
    draining: bool = False
    """Whether it serves its established sessions only."""


class PoolTls(Table, frozen=True, kw_only=True):
    """TLS towards the nodes."""

    verify: bool = True
    """Whether the node's certificate is verified."""
    ca: File | None = None
    """PEM file of the authorities; absent: the system's."""
    server_name: Annotated[
        str | None,
        Pattern(
            r"(?!.{254})[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*",
            "a host name or an IP address",
        ),
    ] = None
    """The name that is asked for (SNI) and verified; absent: the request's host, or on `tcp` the
    node's address."""
    certificate: File | None = None
    """PEM file: the certificate, with its chain, that is shown to nodes that ask for one."""
    key: File | None = None
    """PEM file: its private key."""


class Passive(Table, frozen=True, kw_only=True):
    """What requests show of the health of a pool's nodes: one that fails is ejected for a while."""

    failures: Annotated[int, Meta(ge=0, le=10_000)] = 5
    """Failures in a row that eject a node: to connect (or no handshake, on TLS), a new connection
    that ends before a byte of an answer, no byte of one for `timeouts.response`. 0: none do."""
    errors: Annotated[int, Meta(ge=0, le=100)] = 0
    """Percent of answers with 5xx (but 501 and 505, which a client can have at will) within
    `window` that eject a node; 0: none do."""
    errors_of: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    """Answers within `window`, at least, before `errors` says anything."""
    window_ms: Annotated[int, Duration("1s", "10m")] = 10_000
    """Time over which answers are counted."""
    backoff_ms: Annotated[int, Duration("100ms", "1h")] = 1000
    """For how long a node is ejected; then one request probes it. Twice as long each time it fails
    again."""
    backoff_max_ms: Annotated[int, Duration("100ms", "24h")] = 30_000
    """And for how long at most."""


class Pool(Table, frozen=True, kw_only=True):
    """A set of nodes and how one of them is chosen."""

    nodes: tuple[Node, ...]
    """The nodes, each `"address:port"`, `"host-name:port"` or a table."""
    resolve_hold_ms: Annotated[int, Duration("1s", "24h", zero="at once")] = 300_000
    """How long a node stays that its host name leads to no more; it drains, and is taken out
    earlier if that ends no session."""
    algorithm: Literal[
        "round-robin",
        "weighted-round-robin",
        "least-connections",
        "random-of-two",
        "fastest-response",
        "hash",
    ] = "least-connections"
    """How a node is chosen for a new session."""
    persistence: ClassName = None
    """The persistence class; absent: every request is a new session."""
    monitors: tuple[MonitorName, ...] = ()
    """Health checks of its nodes."""
    tls: PoolTls | None = None
    """Speak TLS to the nodes; absent: plain."""
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    """Version of the PROXY protocol that the nodes are sent."""
    retries: Annotated[int, Meta(ge=0, le=15)] = 2
    """Other nodes tried for a request without a session, or whose session got a new node: when one
    can't be connected to, or ends the connection before a byte of an answer (not of requests that
    may not be repeated, such as a POST that was sent)."""
    retry_budget: Annotated[int, Meta(ge=1, le=100)] = 20
    """Retries at most, in percent of the requests of the last ten seconds; each worker counts its
    own, and may retry 100 more, so that a small site may, and what was under way on a node that is
    lost."""
    drain_last: Literal["serve", "refuse"] = "serve"
    """When every node drains: `"serve"` new sessions there all the same, or `"refuse"` (503)."""
    allow_named: Literal["listed", "any"] = "listed"
    """Which nodes a rule may name: those of the pool, or any in `allow_named_networks`."""
    allow_named_networks: tuple[Cidr, ...] = ()
    """Networks of the nodes that `allow_named = "any"` permits."""
    slow_start_ms: Annotated[int, Duration("1s", "1h", zero="at once")] = 0
    """Time in which a node that returns, or is added, gets its full share of new sessions."""
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """Requests that may wait while every node that may serve them has its `max_connections`, of all
    workers together; sessions wait for their node and are served first. 0: none waits."""
    queue_timeout_ms: Annotated[int, Duration("10ms", "1h")] = 10_000
    """How long a request waits there; then 503."""
    passive: Passive = Passive()
    """What requests show of its nodes' health."""


class Monitor(Table, frozen=True, kw_only=True):
    """An active health check."""

    type: Literal["http", "tcp", "tls", "python"]
    """What is checked: an HTTP answer, a connection, a TLS handshake, or what a function says."""
    path: Annotated[str, Pattern(r"/[!-~]*", 'a path that begins with "/"')] = "/"
    """The path asked for; for type `"http"`."""
    host: Annotated[str | None, Pattern(r"[!-~]+", "a host")] = None
    """Host of the request, for type `"http"`; absent: the node's address, or host name."""
    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    """Method of the request, for type `"http"`."""
    status: tuple[
        Annotated[str, Pattern(r"[1-5]\d\d(-[1-5]\d\d)?", 'a status like "200" or "200-399"')], ...
    ] = ("200-399",)
    """Statuses that are good, for type `"http"`, such as `["200", "301-302"]`."""
    body: str | None = None
    """Regular expression that must match somewhere in the first 64 KiB of the body, for type
    `"http"`."""
    tls: PoolTls | None = None
    """For types `"http"` and `"tls"`; absent: as the pool's. Where that has none, `"http"` is
    plain, and `"tls"` verifies nothing."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port that is checked; absent: the node's."""
    function: Annotated[
        str | None, Pattern(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", '"module:function"')
    ] = None
    """For type `"python"`: an `async` function of the node that says whether it is well, as
    `"module:function"`, looked up beside the configuration file first."""
    interval_ms: Annotated[int, Duration("100ms", "1h")] = 2000
    """Time between two checks of one node."""
    fast_interval_ms: Annotated[int, Duration("100ms", "1h")] = 500
    """The same while checks and state differ: after a first failure, until the node is down, and
    after a first success, until it is up."""
    jitter: Annotated[int, Meta(ge=0, le=50)] = 10
    """Percent by which the times between checks vary, so that they do not come all at once."""
    start: Literal["up", "down"] = "up"
    """What a new node counts as before its first check; `"down"`: until one succeeds."""
    timeout_ms: Annotated[int, Duration("10ms", "5m")] = 1000
    """A check without an answer for this long has failed."""
    failures: Annotated[int, Meta(ge=1, le=100)] = 3
    """Failed checks in a row after which a node is down."""
    successes: Annotated[int, Meta(ge=1, le=100)] = 2
    """Successful checks in a row after which it is up again."""


class Limits(Table, frozen=True, kw_only=True):
    """Bounds on what clients and nodes may make fastlb hold."""

    max_connections: Annotated[int, Meta(ge=1, le=10_000_000)] = 50000
    """Client connections open at one time, of all workers together; while this is the default,
    fewer where the limit of open descriptors allows no more."""
    request_line_bytes: Annotated[int, Size("64B", "60KiB")] = 8 << 10
    """The request line; a longer one is answered 414."""
    headers_bytes: Annotated[int, Size("256B", "60KiB")] = 32 << 10
    """All header fields of a request or response; more is answered 431. `request_line` and
    `headers` together are at most 60 KiB."""
    field_bytes: Annotated[int, Size("128B", "60KiB")] = 32 << 10
    """One header field of a request or response; a longer one is answered 431."""
    empty_lines: Annotated[int, Meta(ge=0, le=100)] = 4
    """Empty lines before a request that are ignored."""
    chunk_line_bytes: Annotated[int, Size("16B", "60KiB")] = 4 << 10
    """One line of a chunk's size with its extensions."""
    trailers_bytes: Annotated[int, Size("2B", "60KiB")] = 8 << 10
    """All trailer fields behind a chunked body."""
    header_count: Annotated[int, Meta(ge=8, le=HEADER_COUNT_MAX)] = 128
    """Header fields of a request or response."""
    body_bytes: Annotated[int, Size("1B", "1024GiB", zero="no limit")] = 0
    """The body of a request; a longer one is answered 413."""
    buffers_bytes: Annotated[int, Size("4MiB", "1024GiB")] = 256 << 20
    """All body and relay memory of one worker."""
    handshakes: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """TLS handshakes under way at one time, of all workers together; further ones wait, also for
    those whose clients stall, at most for `timeouts.handshake`. 0: no limit."""
    handshakes_per_second: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """TLS handshakes begun in a second, of all workers together; further ones wait. 0: no
    limit."""


class Timeouts(Table, frozen=True, kw_only=True):
    """How long fastlb waits."""

    client_header_ms: Annotated[int, Duration("100ms", "1h")] = 10_000
    """For the whole head of a request, from its first byte."""
    handshake_ms: Annotated[int, Duration("100ms", "1h")] = 10_000
    """For the PROXY header, the ClientHello and the rest of the TLS handshake, all together."""
    client_body_ms: Annotated[int, Duration("100ms", "1h")] = 30_000
    """For the next byte of a request's body."""
    keep_alive_ms: Annotated[int, Duration("100ms", "24h")] = 60_000
    """For the next request on a connection."""
    connect_ms: Annotated[int, Duration("10ms", "5m")] = 2000
    """For a node to accept a connection."""
    response_ms: Annotated[int, Duration("100ms", "24h")] = 60_000
    """For the first byte of a node's response, and then for each next one."""
    node_keep_alive_ms: Annotated[int, Duration("100ms", "24h")] = 30_000
    """How long an idle connection to a node is kept for the next request; less than the nodes
    themselves keep it."""
    tunnel_ms: Annotated[int, Duration("1s", "8760h")] = 3_600_000
    """For the next byte, either way, of a WebSocket or another tunnel, and on `tls` and `tcp`."""
    drain_ms: Annotated[int, Duration("1s", "24h", zero="at once")] = 30_000
    """For running requests to end, at `upgrade` and `stop`."""


class Rules(Table, frozen=True, kw_only=True):
    """How rules are run."""

    on_error: Literal["continue", "500"] = "continue"
    """What happens to a request whose rule failed."""
    timeout_ms: Annotated[int, Duration("10ms", "1h")] = 5000
    """Of an `async` rule."""
    watchdog_ms: Annotated[int, Duration("1ms", "1m")] = 100
    """A plain rule that holds its worker longer is reported."""
    parked: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Requests of one worker that may be in `async` rules at one time; for further ones these
    rules have failed."""
    shared: Annotated[int, Meta(ge=1024, le=16_777_216)] = 65_536
    """Entries of all tables of `rule.shared` together."""


class Admin(Table, frozen=True, kw_only=True):
    """The admin page; without this table there is the control socket only."""

    listen: ListenAddress
    """Where it listens."""
    token_file: File | None = None
    """Tokens that are let in, one per line."""


class Cluster(Table, frozen=True, kw_only=True):
    """The store and the data centres that several proxies share."""

    url: Annotated[
        str | None, Pattern(r"(valkey|redis)s?(\+sentinel|\+cluster)?://\S+", "a valkey:// URL")
    ] = None
    """The store; absent: none."""
    name: Name | None = None
    """Name of the cluster in the store."""
    claim_timeout_ms: Annotated[int, Duration("1ms", "10s")] = 50
    """How long a new session waits for the store."""
    datacenter: Name | None = None
    """The data centre of this proxy."""
    home: Literal["forward", "redirect", "adopt"] = "forward"
    """What happens to a session whose home is another data centre."""
    datacenters: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    """The proxies of each other data centre."""


class HostNode(NamedTuple):
    """What a node that was found by its host name stands for."""

    host: HostAddress
    leaving: bool  # the name leads there no more


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    proxy: Proxy = Proxy()
    """The program as a whole."""
    virtual_servers: dict[str, VirtualServer]
    """What is listened on."""
    pools: dict[str, Pool]
    """The back-end servers."""
    monitors: dict[str, Monitor] = field(default_factory=dict)
    """Health checks."""
    persistence: dict[str, PersistenceClass] = field(default_factory=dict)
    """Persistence classes."""
    limits: Limits = Limits()
    """Bounds."""
    timeouts: Timeouts = Timeouts()
    """Waiting times."""
    rules: Rules = Rules()
    """How rules are run."""
    admin: Admin | None = None
    """The admin page."""
    cluster: Cluster | None = None
    """Several proxies."""
    file: Path = Path("fastlb.toml")
    """The file that was read; no key of it."""
    rule_kinds: dict[str, RuleKind] = field(default_factory=dict)
    """What the rules are, where their modules were looked at; no key of the file."""
    hosts: dict[tuple[str, InetAddress], HostNode] = field(default_factory=dict)
    """The nodes, by pool and address, that stand for a host name; no key of the file."""
    connections_given: bool = True
    """Whether `limits.max_connections` is the operator's number; no key of the file."""


NO_KEYS = (
    "file",
    "rule_kinds",
    "hosts",
    "connections_given",
)  # fields of Config that stand for no table


def uses_tls(cfg: Config) -> bool:
    """Whether any table `tls` is there: without one, the TLS library need not be loaded."""
    servers = [server.tls for server in cfg.virtual_servers.values()]
    nodes = [pool.tls for pool in cfg.pools.values()]
    return any([*servers, *nodes, *(monitor.tls for monitor in cfg.monitors.values())])
