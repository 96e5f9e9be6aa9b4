"""`fastlb status` for people: one small table for each kind of thing."""

from collections.abc import Iterable
from typing import Any

CACHE_FIGURES = ("hits", "misses", "expiries", "evictions")
NODE_HEAD = (
    "pool", "node", "state", "weight", "connections", "sessions", "given", "requests", "idle",
)  # fmt: skip
LIMIT_HEAD = (
    "limited node", "open", "waiting", "in pool", "waited", "ms/wait", "refused", "timed out",
)  # fmt: skip
TLS = ("handshakes", "resumed", "failed", "waiting")
RULE_FIGURES = ("waiting", "errors", "timeouts", "cancelled", "blocked")
RULE_HEAD = ("rule", "kind", "calls", "ms/call", *RULE_FIGURES)
CLASS_HEAD = ("class", "type", "maps", "oldest", *CACHE_FIGURES, "outcomes")


def as_tables(status: dict[str, Any]) -> str:
    """The same for people: one small table for each kind of thing."""
    workers, uptime = status["workers"], duration(status["uptime_seconds"])
    parts = [f"fastlb {status['version']}, up {uptime}, generation {status['generation']}"]
    parts.append(
        table(
            ("worker", "pid", "connections", "requests", "restarts"),
            (
                (w["index"], w["pid"], w["connections"], w["requests"], w["restarts"])
                for w in workers
            ),
        )
    )
    parts.append(_virtual_servers(status["virtual_servers"]))
    parts.append(_pools(status["pools"]))
    if status["edits"]:
        made = ", ".join("{address} of {pool} {change}".format(**one) for one in status["edits"])
        parts.append(f"by command, until the next reload: {made}")
    if status["persistence"]:
        parts.append(
            table(
                CLASS_HEAD,
                (_class_row(name, cls) for name, cls in status["persistence"].items()),
            )
        )
    if status["rules"]:
        parts.append(_rules(status["rules"], status["shared"]))
    if status["causes"]:
        failed = ", ".join(f"{cause} {count}" for cause, count in status["causes"].items())
        parts.append(f"failed exchanges: {failed}")
    return "\n\n".join(parts)


def _virtual_servers(servers: dict[str, Any]) -> str:
    head = ("virtual server", "listen", "protocol", "connections", "requests", "4xx", "5xx")
    rows = []
    for name, one in servers.items():
        http = one["protocol"] in ("http", "https")
        failed = [one["statuses"][digit] if http else "-" for digit in ("4xx", "5xx")]
        figures = (one["protocol"], one["connections"], one["requests"])
        rows.append((name, ", ".join(one["listen"]), *figures, *failed))
    tables = [table(head, rows)]
    tls = [(name, *(one["tls"][key] for key in TLS)) for name, one in servers.items() if one["tls"]]
    if tls:
        tables.append(table(("TLS", *TLS), tls))
    return "\n\n".join(tables)


def _pools(pools: dict[str, Any]) -> str:
    nodes = [(name, node) for name, pool in pools.items() for node in pool["nodes"]]
    nodes_table = table(NODE_HEAD, (_node_row(pool, node) for pool, node in nodes))
    leaving = [
        f"{pool} {node['address']} {node['leaving']['why']}"
        for pool, node in nodes
        if node["leaving"]
    ]
    failing = [
        f'{pool} {node["address"]} monitor "{one["name"]}" finds it down for '
        f"{duration(one['seconds'])}: {one['reason']}"
        for pool, node in nodes
        for one in node["monitors"]
        if one["state"] == "down"
    ]
    limited = [(pool, node) for pool, node in nodes if node["max_connections"]]
    parts = [nodes_table]
    if limited:
        parts.append(table(LIMIT_HEAD, (_limit_row(pools, pool, node) for pool, node in limited)))
    return "\n\n".join([*parts, *("\n".join(each) for each in (leaving, failing) if each)])


def _limit_row(pools: dict[str, Any], pool: str, node: dict[str, Any]) -> tuple[object, ...]:
    of_pool = pools[pool]
    mean = 1000 * of_pool["waited_seconds"] / of_pool["waited"] if of_pool["waited"] else 0.0
    return (
        f"{pool} {node['address']}",
        f"{node['open']}/{node['max_connections']}",
        node["waiting"],
        of_pool["waiting"],
        of_pool["waited"],
        f"{mean:.0f}",
        of_pool["queue_full"],
        of_pool["queue_timeouts"],
    )


def _node_row(pool: str, node: dict[str, Any]) -> tuple[object, ...]:
    live = node["live_sessions"]
    return (
        pool,
        node["address"],
        _state(node),
        node["weight"],
        node["connections"],
        "-" if live is None else live,
        node["sessions"],
        node["requests"],
        "-" if node["idle_seconds"] is None else duration(node["idle_seconds"]),
    )


def _state(node: dict[str, Any]) -> str:
    """With what else is to be said of it."""
    more = [node["asked"]] if node["state"] == "down" and node["asked"] != "up" else []
    more += ["ejected"] if node["health"]["ejected"] else []
    more += ["backup"] if node["backup"] else []
    return str(node["state"]) + "".join(f" ({one})" for one in more)


def _rules(rules: dict[str, Any], shared: dict[str, int] | None) -> str:
    parts = [table(RULE_HEAD, (_rule_row(name, rule) for name, rule in rules.items()))]
    if shared and (shared["entries"] or shared["evictions"]):
        entries = f"{shared['entries']}/{shared['entries_max']} entries"
        parts.append(f"shared tables: {entries}, {shared['evictions']} evictions")
    return "\n\n".join(parts)


def _rule_row(name: str, rule: dict[str, Any]) -> tuple[object, ...]:
    kind = f"{'async ' if rule['async'] else ''}{rule['kind'] or '-'}"
    mean = f"{1000 * rule['seconds'] / rule['calls']:.3f}" if rule["calls"] else "-"
    return name, kind, rule["calls"], mean, *(rule[key] for key in RULE_FIGURES)


def _class_row(name: str, cls: dict[str, Any]) -> tuple[object, ...]:
    maps, oldest = "-", "-"
    if cls["entries"] is not None:
        maps, oldest = f"{cls['entries']}/{cls['entries_max']}", duration(cls["oldest_seconds"])
    outcomes = ", ".join(f"{key} {count}" for key, count in cls["outcomes"].items() if count)
    figures = ("-" if cls[key] is None else cls[key] for key in CACHE_FIGURES)
    return name, cls["type"], maps, oldest, *figures, outcomes or "-"


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def duration(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
