"""Configurations in the tests: a short way to the common one, and a writer of TOML.

A configuration is a plain dictionary in the shape of docs/configuration.md, so a test changes
what it is about by key. Nodes of the harness may stand where an address is expected.
"""

import copy
import json
from typing import Any

from .node import RawNode

Config = dict[str, Any]
ANY_PORT = "127.0.0.1:0"  # replaced by a free port when the proxy starts, the same on reload


def settings(
    *nodes: Any,
    persistence: Config | None = None,
    classes: Config | None = None,
    pool: Config | None = None,
    server: Config | None = None,
    limits: Config | None = None,
    timeouts: Config | None = None,
    **proxy: Any,
) -> Config:
    """One virtual server "shop" with one pool "web"; `persistence` becomes its class "shop"."""
    config: Config = {
        "proxy": {"workers": 1, **proxy},
        "virtual_servers": {"shop": {"listen": [ANY_PORT], "protocol": "http", "pool": "web"}},
        "pools": {"web": {"nodes": list(nodes), "algorithm": "round-robin", **(pool or {})}},
        "timeouts": {"drain": "1s", **(timeouts or {})},
    }
    config["virtual_servers"]["shop"].update(server or {})
    config["persistence"] = dict(classes or {})
    if persistence is not None:
        config["persistence"]["shop"] = persistence
        config["pools"]["web"].setdefault("persistence", "shop")
    if limits:
        config["limits"] = limits
    return config


def sticky(*nodes: Any, **more: Any) -> Config:
    """The common case: transparent session persistence. Keywords that settings() does not know
    are keys of the class."""
    known = {"classes", "pool", "server", "limits", "timeouts", "workers", "access_log"}
    keys = {key: more.pop(key) for key in list(more) if key not in known}
    return settings(*nodes, persistence={"type": "transparent", **keys}, **more)


def changed(config: Config, path: str, value: Any) -> Config:
    """A copy with one value set: changed(c, "pools.web.nodes", [...])."""
    new = copy_of(config)
    *tables, last = path.split(".")
    table = new
    for name in tables:
        table = table.setdefault(name, {})
    table[last] = value
    return new


def copy_of(value: Any) -> Any:
    """A deep copy that keeps the harness's nodes (they are not configuration)."""
    if isinstance(value, dict):
        return {key: copy_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copy_of(each) for each in value]
    return value if isinstance(value, RawNode) else copy.deepcopy(value)


def toml_value(value: Any) -> str:
    if isinstance(value, RawNode):
        return json.dumps(value.address)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(each) for each in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)


def toml(config: Config) -> str:
    """The configuration as a TOML document."""
    lines: list[str] = []
    for name, table in config.items():
        named = name in ("virtual_servers", "pools", "persistence", "monitors")
        for section, values in table.items() if named else [("", table)]:
            lines.append(f"[{name}.{section}]" if named else f"[{name}]")
            lines += [f"{key} = {toml_value(value)}" for key, value in values.items()]
            lines.append("")
    return "\n".join(lines)
