"""From a Config to the plan that the workers run by (fastlb/_core/plan.pxd).

Everything that takes thought is done here, once: texts of cookies, schedules, indices. What it
needs besides the configuration (numbers of slots, places in shared memory, keys) is given.
"""

import fcntl
import hashlib
import math
import os
from collections.abc import Sequence

from fastlb._core.plan import PlanBuilder
from fastlb.config import Config, Passive, VirtualServer
from fastlb.error_pages import Page, Pages
from fastlb.plan_class import Place, class_values
from fastlb.slots import Slots, listener_keys, node_key
from fastlb.ticket_keys import NAME_BYTES
from fastlb.tls_material import NOTHING, TlsFiles, encode
from fastlb.units import HostAddress, InetAddress, Network
from fastlb.uses import asks_for_certificates, rules_of, told_of_certificates

SCHEDULE_MAX = 65535  # entries of one pool's weighted schedule
EXACT_STEPS_MAX = 1_000_000  # additions that one schedule may cost


def compile_plan(
    cfg: Config,
    place: Place,
    *,
    keys: list[bytes],
    generation: int,
    workers: int,
    tls: TlsFiles = NOTHING,
    ticket_keys: Sequence[bytearray] = (),
    columns: int = 0,
    manifest: bytes = b"",
    pages: Pages | None = None,
) -> bytes:
    """The plan's blob; every name in `cfg` must have its slot in `place`.

    `columns`: of the node table in use, 0: one per worker; `manifest`: as in manifest.py.
    """
    builder = PlanBuilder()
    builder.set_global(
        generation=generation,
        workers=workers,
        log_format="off" if cfg.proxy.access_log == "off" else cfg.proxy.access_log_format,
        node_table_offset=place.node_table,
        epoch_ms=place.epoch_ms,
        keys=keys,
        columns=columns,
        manifest=manifest,
    )
    _bounds(builder, cfg)
    first_context = _tls(builder, tls, ticket_keys)
    classes = {name: index for index, name in enumerate(cfg.persistence)}
    for name in cfg.persistence:
        builder.add_class(**class_values(cfg, name, place))
    pools = {name: index for index, name in enumerate(cfg.pools)}
    for name in cfg.pools:
        context = first_context + tls.pools[name] if name in tls.pools else -1
        _pool(builder, cfg, name, classes, place.slots, context)
    servers = {name: index for index, name in enumerate(cfg.virtual_servers)}
    told = told_of_certificates(cfg)
    rules = _rules(builder, cfg, place)
    for name, server in cfg.virtual_servers.items():
        own = (pages or {}).get(name, [])
        _virtual_server(builder, name, server, pools, place.slots, tls, told, rules, own)
    for key in listener_keys(cfg):
        number = place.slots.listeners.used[key]
        builder.add_listener(id=number, virtual_server=servers[key.virtual_server])
    return builder.finish()


def seal(blob: bytes, generation: int) -> int:
    """A descriptor of a memory file that holds `blob` and that nobody can change any more."""
    fd = os.memfd_create(f"fastlb-plan-{generation}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(blob)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _bounds(builder: PlanBuilder, cfg: Config) -> None:
    limits, timeouts = cfg.limits, cfg.timeouts
    builder.set_limits(
        max_connections=limits.max_connections,
        request_line_bytes=limits.request_line_bytes,
        head_bytes=limits.request_line_bytes + limits.headers_bytes,
        field_count=limits.header_count,
        body_bytes=limits.body_bytes,
        buffer_bytes=limits.buffers_bytes,
        handshakes=limits.handshakes,
        handshakes_per_second=limits.handshakes_per_second,
        field_bytes=limits.field_bytes,
        empty_lines=limits.empty_lines,
        chunk_line_bytes=limits.chunk_line_bytes,
        trailer_bytes=limits.trailers_bytes,
    )
    builder.set_timeouts(
        client_header=timeouts.client_header_ms,
        client_body=timeouts.client_body_ms,
        keep_alive=timeouts.keep_alive_ms,
        connect=timeouts.connect_ms,
        response=timeouts.response_ms,
        tunnel=min(timeouts.tunnel_ms, (1 << 32) - 1),
        drain=timeouts.drain_ms,
        node_keep_alive=timeouts.node_keep_alive_ms,
        handshake=timeouts.handshake_ms,
    )


def _tls(builder: PlanBuilder, tls: TlsFiles, ticket_keys: Sequence[bytearray]) -> int:
    """Returns where the pools' contexts begin among all."""
    certificates, pools = len(tls.material.certificates), len(tls.material.pools)
    if not certificates and not pools:
        return 0
    keys = ticket_keys if certificates else ()
    builder.set_tls(
        material=encode(tls.material, keys),
        certificates=certificates,
        ticket_names=[bytes(key[:NAME_BYTES]) for key in keys],
        pools=pools,
    )
    return certificates * len(keys)


def _pool(
    builder: PlanBuilder,
    cfg: Config,
    name: str,
    classes: dict[str, int],
    slots: Slots,
    tls_context: int,
) -> None:
    pool = cfg.pools[name]
    first = 0
    for index, node in enumerate(pool.nodes):
        key = node_key(name, node.address)
        at = builder.add_node(
            ip=key.ip,
            port=key.port,
            slot=slots.nodes.used[key],
            weight=node.weight,
            max_connections=node.max_connections,
            backup=node.backup,
            hash_seed=hash_seed(node.address),
        )
        first = at if index == 0 else first
    builder.add_pool(
        name=name,
        slot=slots.pools.used[name],
        algorithm=pool.algorithm,
        first_node=first,
        node_count=len(pool.nodes),
        persistence=-1 if pool.persistence is None else classes[pool.persistence],
        retries=pool.retries,
        refuse_last_draining=pool.drain_last == "refuse",
        schedule=schedule([node.weight for node in pool.nodes]),
        named=builder.add_networks(_networks(pool.allow_named_networks)),
        proxy_protocol=pool.proxy_protocol,
        tls_context=tls_context,
        tls_server_name=(pool.tls.server_name or "") if pool.tls is not None else "",
        retry_budget=pool.retry_budget,
        slow_start=pool.slow_start_ms,
        queue=(pool.queue, pool.queue_timeout_ms),
        passive=_passive(pool.passive),
    )


def _passive(passive: Passive) -> dict[str, int]:
    return {
        "failures": passive.failures,
        "errors": passive.errors,
        "errors_of": passive.errors_of,
        "window": passive.window_ms // 1000,
        "backoff_min": passive.backoff_ms,
        "backoff_max": passive.backoff_max_ms,
    }


def hash_seed(address: InetAddress | HostAddress) -> int:
    """What a node is in the consistent hash: of its address alone, so that order is no matter."""
    digest = hashlib.sha256(str(address).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def schedule(weights: list[int]) -> list[int]:
    """Node indices in the order of smooth weighted round robin.

    Each round every node gains its weight; the one that is ahead serves and pays the sum. After
    one sum of rounds all stand where they began. Weights whose sum is too large are scaled down,
    but no node that has a weight falls out.
    """
    divisor = math.gcd(*weights) or 1
    shares = [weight // divisor for weight in weights]
    while sum(shares) > SCHEDULE_MAX:
        shares = [-(-share // 2) for share in shares]
    return _smooth(shares, sum(shares))


def _smooth(shares: list[int], total: int) -> list[int]:
    if total * len(shares) > EXACT_STEPS_MAX:
        return _spread(shares)
    ahead = [0] * len(shares)
    order = []
    for _ in range(total):
        for index, share in enumerate(shares):
            ahead[index] += share
        best = max(range(len(shares)), key=ahead.__getitem__)
        ahead[best] -= total
        order.append(best)
    return order


def _spread(shares: list[int]) -> list[int]:
    """Nearly the same order for very many nodes: each one's turns at even distances."""
    turns = [
        ((2 * turn + 1) / share, index)
        for index, share in enumerate(shares)
        for turn in range(share)
    ]
    return [index for _, index in sorted(turns)]


def _virtual_server(
    builder: PlanBuilder,
    name: str,
    server: VirtualServer,
    pools: dict[str, int],
    slots: Slots,
    tls: TlsFiles,
    told: set[str],
    rules: dict[str, int],
    pages: list[Page],
) -> None:
    first = 0
    for index, route in enumerate(server.routes):
        at = builder.add_route(
            host=_host(route.host),
            path=route.path or "",
            sni=_host(route.sni),
            alpn=route.alpn or "",
            pool=pools[route.pool],
        )
        first = at if index == 0 else first
    builder.add_virtual_server(
        name=name,
        slot=slots.virtual_servers.used[name],
        protocol=server.protocol,
        pool=pools[server.pool],
        routes=(first, len(server.routes)),
        trusted=builder.add_networks(_networks(server.trusted_proxies)),
        decision=builder.add_networks(_networks(server.decision_header)),
        server_names=builder.add_server_names(tls.names.get(name, {})),
        certificate=tls.first.get(name, 0),
        flags=server_flags(server, name in told),
        rules=[rules[rule] for rule in server.rules],
        error_pages=pages,
        retry_after=-(-server.retry_after_ms // 1000),
    )


def _rules(builder: PlanBuilder, cfg: Config, place: Place) -> dict[str, int]:
    """Returns the index of each rule."""
    builder.set_rules(
        directory=str(cfg.file.absolute().parent),
        on_error=cfg.rules.on_error,
        timeout=cfg.rules.timeout_ms,
        watchdog=cfg.rules.watchdog_ms,
        parked_max=cfg.rules.parked,
        shared=place.shared,
    )
    return {
        name: builder.add_rule(name=name, slot=place.slots.rules.used[name])
        for name in rules_of(cfg)
    }


def _host(name: str | None) -> str:
    return (name or "").lower().removesuffix(".")


def server_flags(server: VirtualServer, told: bool = False) -> set[str]:
    """The names of its flags, of SERVER_FLAGS; `told`: see told_of_certificates."""
    flags = {
        "proxy_protocol": server.proxy_protocol,
        "not_tls_is_tcp": server.protocol == "tls" and server.not_tls == "tcp",
        "client_subject": asks_for_certificates(server),
        "no_subject_of_clients": told,
    }
    return {name for name, given in flags.items() if given} | set(server.forwarded_fields)


def _networks(networks: tuple[Network, ...]) -> list[tuple[str, int]]:
    return [(str(network.network_address), network.prefixlen) for network in networks]
