"""Compiles a plan; the layout is plan.pxd's."""

from collections.abc import Iterable, Sequence
from typing import Any

LAYOUT: int
CLASS_FLAGS: dict[str, int]
SERVER_FLAGS: dict[str, int]
PROXY_FLAGS: dict[str, int]
KEY_NAMES: tuple[str, ...]

class PlanBuilder:
    def set_global(
        self,
        *,
        generation: int,
        workers: int,
        log_format: str,
        node_table_offset: int,
        epoch_ms: int,
        keys: list[bytes],
        columns: int = 0,
        manifest: bytes = b"",
    ) -> None: ...
    def set_limits(
        self,
        *,
        max_connections: int,
        request_line_bytes: int,
        head_bytes: int,
        field_count: int,
        body_bytes: int,
        buffer_bytes: int,
        handshakes: int = 0,
        handshakes_per_second: int = 0,
        field_bytes: int = 0,
        empty_lines: int = ...,
        chunk_line_bytes: int = ...,
        trailer_bytes: int = ...,
    ) -> None: ...
    def set_timeouts(
        self,
        *,
        client_header: int,
        client_body: int,
        keep_alive: int,
        connect: int,
        response: int,
        tunnel: int,
        drain: int,
        node_keep_alive: int,
        handshake: int = 10000,
    ) -> None: ...
    def set_tls(
        self, *, material: bytes, certificates: int, ticket_names: list[bytes], pools: int
    ) -> None: ...
    def set_rules(
        self,
        *,
        directory: str,
        on_error: str,
        timeout: int,
        watchdog: int,
        parked_max: int,
        shared: tuple[int, int] = (0, 0),
    ) -> None: ...
    def add_rule(self, *, name: str, slot: int) -> int: ...
    def add_server_names(self, names: dict[str, int]) -> tuple[int, int]: ...
    def add_listener(self, *, id: int, virtual_server: int) -> int: ...
    def add_networks(self, networks: list[tuple[str, int]]) -> tuple[int, int]: ...
    def add_route(
        self, *, host: str, path: str, pool: int, sni: str = "", alpn: str = ""
    ) -> int: ...
    def add_virtual_server(
        self,
        *,
        name: str,
        slot: int,
        protocol: str,
        pool: int,
        routes: tuple[int, int],
        trusted: tuple[int, int],
        decision: tuple[int, int],
        server_names: tuple[int, int] = (0, 0),
        certificate: int = 0,
        flags: Iterable[str] = (),
        rules: Sequence[int] = (),
        error_pages: Iterable[tuple[int, str, bytes]] = (),
        retry_after: int = 1,
    ) -> int: ...
    def add_node(
        self,
        *,
        ip: str,
        port: int,
        slot: int,
        weight: int,
        max_connections: int,
        backup: bool,
        hash_seed: int,
    ) -> int: ...
    def add_pool(
        self,
        *,
        name: str,
        slot: int,
        algorithm: str,
        first_node: int,
        node_count: int,
        persistence: int,
        retries: int,
        refuse_last_draining: bool,
        schedule: list[int],
        named: tuple[int, int] = (0, 0),
        proxy_protocol: str = "off",
        tls_context: int = -1,
        tls_server_name: str = "",
        retry_budget: int = 20,
        slow_start: int = 0,
        queue: tuple[int, int] = (0, 0),
        passive: dict[str, int] | None = None,
    ) -> int: ...
    def add_class(
        self,
        *,
        name: str,
        id: int,
        slot: int,
        type: str,
        fallback: int,
        failure_mode: str,
        redirect_url: str,
        flags: int,
        **values: Any,
    ) -> int: ...
    def finish(self) -> bytes: ...
