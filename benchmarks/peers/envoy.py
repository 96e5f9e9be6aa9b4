"""Envoy from PyPI: a worker thread per worker, and its main thread."""

from __future__ import annotations

import json
from typing import Any

from ..cases import Persistence, Task
from .base import Peer, Place, packaged_program, present, version_of

_TYPES = "type.googleapis.com/envoy.extensions"
_MANAGER = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_STATEFUL = f"{_TYPES}.filters.http.stateful_session.v3.StatefulSession"
_COOKIE = f"{_TYPES}.http.stateful_session.cookie.v3.CookieBasedSessionState"
_ROUTER = f"{_TYPES}.filters.http.router.v3.Router"
_HTTP_OPTIONS = f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions"


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _filters(task: Task) -> list[dict[str, Any]]:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}
    if task.persistence is not Persistence.COOKIE:
        return [router]
    state = {"@type": _COOKIE, "cookie": {"name": "srv", "path": "/"}}
    session = {
        "name": "envoy.filters.http.stateful_session",
        "typed_config": {
            "@type": _STATEFUL,
            "session_state": {
                "name": "envoy.http.stateful_session.cookie",
                "typed_config": state,
            },
        },
    }
    return [session, router]


def _listener(task: Task, port: int) -> dict[str, Any]:
    route: dict[str, Any] = {"cluster": "nodes"}
    if task.persistence is Persistence.SOURCE:
        route["hash_policy"] = [{"connection_properties": {"source_ip": True}}]
    virtual_host = {
        "name": "bench",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": route}],
    }
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "bench",
        "use_remote_address": True,
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [virtual_host]},
        "http_filters": _filters(task),
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    return {"name": "bench", "address": _address(port), "filter_chains": [chain]}


def _cluster(task: Task, ports: tuple[int, ...]) -> dict[str, Any]:
    limits = {
        "max_connections": 20000,
        "max_pending_requests": 20000,
        "max_requests": 20000,
    }
    return {
        "name": "nodes",
        "type": "STATIC",
        "lb_policy": "RING_HASH" if task.persistence is Persistence.SOURCE else "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP_OPTIONS,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "nodes",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}
            ],
        },
    }


class Envoy(Peer):
    name = "envoy"

    def binary(self) -> str | None:
        return packaged_program("envoy", "_bin/envoy")

    def version(self) -> str | None:
        binary = self.binary()
        return version_of([binary, "--version"], r"/(\d+\.\d+\.\d+)") if binary else None

    def refuses(self, task: Task) -> str | None:
        return "has no session table" if task.persistence is Persistence.TABLE else None

    def prepare(self, task: Task, place: Place) -> list[str]:
        resources = {
            "listeners": [_listener(task, place.port)],
            "clusters": [_cluster(task, place.node_ports)],
        }
        path = place.directory / "envoy.json"
        path.write_text(json.dumps({"static_resources": resources}, indent=1))
        command = [present(self.binary(), self.name), "-c", str(path)]
        return [
            *command,
            *("--concurrency", str(task.workers), "--disable-hot-restart", "-l", "critical"),
        ]
