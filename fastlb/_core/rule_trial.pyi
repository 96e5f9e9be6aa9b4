"""A call of rules outside of any worker; fastlb.testing is made of it."""

from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

from fastlb._core.rule_objects import Request
from fastlb._core.rule_response import Response
from fastlb._core.rule_run import RuleRun
from fastlb.rule_types import Node

class Effects(TypedDict):
    """What rules asked for; what is not in it they did not."""

    action: NotRequired[str]
    decided_by: NotRequired[int]
    status: NotRequired[int]
    fields: NotRequired[bytes]
    body: NotRequired[bytes]
    pool: NotRequired[str]
    persistence: NotRequired[str | None]
    key: NotRequired[bytes]
    node: NotRequired[Node | None]
    client: NotRequired[str]
    head: NotRequired[bytes]
    log: NotRequired[bytes]

class Trial:
    """One call; `plan` is a PlanBuilder's, its first virtual server is the one."""

    def __init__(self, kind: str, plan: bytes) -> None: ...
    def set_addresses(
        self,
        client: str | None,
        client_port: int,
        peer: str | None,
        local: str | None,
        local_port: int,
    ) -> None: ...
    def set_tls(
        self,
        version: int,
        sni: bytes,
        alpn: bytes,
        subject: bytes,
        certificate: bytes,
        ends_here: bool,
    ) -> None: ...
    def set_request(self, head: bytes, body: bytes | None = None) -> None: ...
    def forget_parsed(self) -> None: ...
    def set_response(self, head: bytes, node: str, connect_us: int, response_us: int) -> None: ...
    def set_earlier(
        self,
        *,
        data: dict[Any, Any] | None = None,
        pool: int = -1,
        persistence: int = -2,
        key: bytes | None = None,
        node: str | None = None,
    ) -> None: ...
    @property
    def data(self) -> dict[Any, Any] | None: ...
    def set_rules(self, functions: Iterable[Any], is_async: bool = False) -> None: ...
    def run_plain(self) -> None: ...
    def open(self, failures: list[BaseException] | None = None) -> RuleRun: ...
    def show_request(self) -> Request: ...
    def show_response(self) -> Response: ...
    def time(self, rounds: int) -> int: ...
    def effects(self) -> Effects: ...
