"""Tests of rules without a server: make a message, run a rule over it, look at what it decided.

    from fastlb import testing
    import shop_rules

    def test_session() -> None:
        request = testing.request("GET", "/cart", cookies={"PHPSESSID": "abc"})
        decision = testing.run(shop_rules.session, request)
        assert decision.persistence_key == "abc"

It is the code of the workers that runs: the same parser, the same objects, the same checks. What a
rule raises is raised by `run`. Pools and persistence classes that a rule names must be said:
`testing.request("GET", "/", pools={"web": ["10.0.0.1:80"], "api": ["10.0.1.1:80"]})`.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from fastlb._core.plan import PlanBuilder
from fastlb._core.rule_objects import Request
from fastlb._core.rule_response import Response
from fastlb._core.rule_run import RuleRun
from fastlb._core.rule_shared import advance_local, reset_local
from fastlb._core.rule_trial import Trial
from fastlb._core.rule_views import Headers
from fastlb.rule_mark import Mark, mark_of
from fastlb.rule_types import Node, RuleTimeout

__all__ = [
    "Answer", "Decision", "Facts", "Tls", "advance", "connection", "request", "reset_shared",
    "response", "run", "run_async",
]  # fmt: skip

Protocol = Literal["http", "https", "tls", "tcp"]
Fields = Mapping[str, str] | Iterable[tuple[str, str]]
Rule = Callable[..., Any]

TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
POOLS: dict[str, list[str]] = {"web": ["10.0.0.1:80", "10.0.0.2:80"]}
LIMITS = {"request_line_bytes": 8 << 10, "head_bytes": 40 << 10, "field_count": 128}


@dataclass(frozen=True)
class Tls:
    """The client's TLS, as `tls=` of `request` and `connection`."""

    version: str = "TLSv1.3"
    sni: str | None = None
    alpn: Sequence[str] = ()
    client_subject: str | None = None
    client_certificate: bytes | None = None


@dataclass(frozen=True)
class Facts:
    """What `request` and `connection` make: all that a rule can see but the response."""

    head: bytes | None
    body: bytes
    client: str | None
    peer: str | None
    local: str | None
    virtual_server: str
    protocol: Protocol
    tls: Tls | None
    pools: Mapping[str, Sequence[str]]
    pool: str
    persistence: Sequence[str]
    data: dict[Any, Any] = field(default_factory=dict)

    def plan(self) -> bytes:
        """A plan with this virtual server, its pools and classes."""
        builder = PlanBuilder()
        builder.set_global(
            generation=1, workers=1, log_format="off", node_table_offset=0, epoch_ms=0,
            keys=[bytes(16)] * 4,
        )  # fmt: skip
        builder.set_limits(max_connections=1, body_bytes=0, buffer_bytes=1 << 20, **LIMITS)
        for slot, name in enumerate(self.persistence):
            builder.add_class(
                name=name, id=slot, slot=slot, type="universal", fallback=-1,
                failure_mode="new-node", redirect_url="", flags=0,
            )  # fmt: skip
        for slot, (name, nodes) in enumerate(self.pools.items()):
            self._pool(builder, slot, name, [Node(node) for node in nodes])
        builder.add_virtual_server(
            name=self.virtual_server, slot=0, protocol=self.protocol,
            pool=list(self.pools).index(self.pool), routes=(0, 0), trusted=(0, 0), decision=(0, 0),
        )  # fmt: skip
        return builder.finish()

    def _pool(self, builder: PlanBuilder, slot: int, name: str, nodes: list[Node]) -> None:
        first = [
            builder.add_node(
                ip=node.address, port=node.port or 80, slot=0, weight=1, max_connections=0,
                backup=False, hash_seed=int(hashlib.sha256(node.encode()).hexdigest()[:8], 16),
            )
            for node in nodes
        ]  # fmt: skip
        builder.add_pool(
            name=name, slot=slot, algorithm="round-robin", first_node=first[0] if first else 0,
            node_count=len(nodes), persistence=0 if self.persistence else -1, retries=0,
            refuse_last_draining=False, schedule=[],
        )  # fmt: skip

    def trial(self, kind: str, head: bytes | None = None) -> Trial:
        """A call of these facts; `head` takes the place of the request's."""
        trial = Trial(kind, self.plan())
        client, client_port = _address(self.client)
        local, local_port = _address(self.local)
        trial.set_addresses(client, client_port, _address(self.peer)[0], local, local_port)
        if self.tls is not None:
            trial.set_tls(
                TLS_VERSIONS[self.tls.version],
                (self.tls.sni or "").encode(),
                b"".join(bytes([len(one)]) + one.encode() for one in self.tls.alpn),
                (self.tls.client_subject or "").encode(),
                self.tls.client_certificate or b"",
                self.protocol == "https",
            )
        if self.head is not None:
            trial.set_request(head or self.head, self.body)
        trial.set_earlier(data=self.data)
        return trial


@dataclass(frozen=True)
class ResponseFacts:
    """What `response` makes."""

    head: bytes
    node: str
    connect: float
    first_byte: float


@dataclass(frozen=True)
class Answer:
    """What a rule answers the client with, instead of a node."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Decision:
    """What rules decided; what they said nothing about is as it was."""

    pool: str
    persistence: str | None
    persistence_key: str | None
    persistence_node: Node | None
    client_address: str | None
    answer: Answer | None
    """What `respond` or `redirect` said; None: the node answers."""
    closed: bool
    log: dict[str, str | int | float | bool]
    data: dict[Any, Any]
    request: Request | None
    """As the rules left it; fastlb's own changes come after that. None for connection rules."""
    response: Response | None
    """As the rules left it; None but for response rules."""
    failures: list[BaseException]
    """What rules raised; empty unless `run` was called with `raises=False`."""


def request(
    method: str = "GET",
    target: str = "/",
    *,
    headers: Fields = (),
    cookies: Mapping[str, str] | None = None,
    body: bytes = b"",
    client: str | None = "192.0.2.7:4711",
    peer: str | None = None,
    local: str | None = "192.0.2.1:80",
    virtual_server: str = "test",
    protocol: Literal["http", "https"] | None = None,
    tls: Tls | None = None,
    pools: Mapping[str, Sequence[str]] = POOLS,
    pool: str | None = None,
    persistence: Sequence[str] = (),
    data: dict[Any, Any] | None = None,
    http_version: Literal["HTTP/1.1", "HTTP/1.0"] = "HTTP/1.1",
) -> Facts:
    """A request. ValueError if fastlb would refuse it.

    `target` as it is sent: percent-encoded, with its query. Host is put in unless it is
    there, Content-Length where there is a body. `client`, `peer`: `"192.0.2.7:4711"`, None is a
    Unix socket; `peer` is who is connected, the client unless a proxy is between. `pool` is the
    one that routes chose, the first of `pools` unless said. `persistence`: names of classes, of
    which the first one is that of all pools. `data`: what connection rules kept.
    """
    lines = _pairs(headers)
    known = {name.lower() for name, _ in lines}
    if "host" not in known and http_version == "HTTP/1.1":
        lines.insert(0, ("Host", "www.example.com"))
    if cookies:
        lines.append(("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items())))
    if body and not known & {"content-length", "transfer-encoding"}:
        lines.append(("Content-Length", str(len(body))))
    facts = Facts(
        _head(f"{method} {target} {http_version}", lines), body, client, peer or client, local,
        virtual_server, protocol or ("http" if tls is None else "https"), tls, pools,
        pool or next(iter(pools)), persistence, dict(data or {}),
    )  # fmt: skip
    facts.trial("request")
    return facts


def connection(
    *,
    client: str | None = "192.0.2.7:4711",
    peer: str | None = None,
    local: str | None = "192.0.2.1:443",
    virtual_server: str = "test",
    protocol: Protocol | None = None,
    tls: Tls | None = None,
    pools: Mapping[str, Sequence[str]] = POOLS,
    pool: str | None = None,
    persistence: Sequence[str] = (),
) -> Facts:
    """A connection; its arguments are those of `request`. With `tls` it is one of protocol tls,
    without one of tcp, unless `protocol` says otherwise."""
    return Facts(
        None, b"", client, peer or client, local, virtual_server,
        protocol or ("tcp" if tls is None else "tls"), tls, pools, pool or next(iter(pools)),
        persistence,
    )  # fmt: skip


def response(
    status: int = 200,
    *,
    headers: Fields = (),
    reason: str | None = None,
    node: str = "10.0.0.1:80",
    connect: float = 0.0,
    first_byte: float = 0.001,
    http_version: Literal["HTTP/1.1", "HTTP/1.0"] = "HTTP/1.1",
) -> ResponseFacts:
    """A node's response, as fastlb would send it; several cookies are several pairs of `headers`.

    `connect` and `first_byte` in seconds, as in `response.timings`.
    """
    if reason is None:
        reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    lines = _pairs(headers)
    known = {name.lower() for name, _ in lines}
    if status not in (101, 204, 304) and not known & {"content-length", "transfer-encoding"}:
        lines.append(("Content-Length", "0"))
    head = _head(f"{http_version} {status} {reason}", lines)
    return ResponseFacts(head, node, connect, first_byte)


def run(
    rules: Rule | Sequence[Rule],
    subject: Facts,
    answered: ResponseFacts | None = None,
    *,
    raises: bool = True,
    timeout: float = 5.0,
) -> Decision:
    """Runs a rule, or several of one kind in their order, over a message.

    `answered` is the response, for response rules. What a rule raises is raised here; with
    `raises=False` it is what fastlb makes of it: the rule is undone, the next one runs, and the
    exception is in `failures`. `timeout` in seconds, of each async rule. Where an event loop runs
    already, in a test that is `async def`, await `run_async`.
    """
    functions, mark = _rules(rules)
    if any(_mark(function).is_async for function in functions):
        return asyncio.run(_decide(functions, mark, subject, answered, raises, timeout))
    return _finished(_decide(functions, mark, subject, answered, raises, timeout))


async def run_async(
    rules: Rule | Sequence[Rule],
    subject: Facts,
    answered: ResponseFacts | None = None,
    *,
    raises: bool = True,
    timeout: float = 5.0,
) -> Decision:
    """`run` in the event loop that runs already."""
    functions, mark = _rules(rules)
    return await _decide(functions, mark, subject, answered, raises, timeout)


def reset_shared() -> None:
    """Empties all tables of `rule.shared`, which belong to the process that runs the tests.

    For a fixture that runs around each test:

        @pytest.fixture(autouse=True)
        def empty_tables() -> None:
            testing.reset_shared()
    """
    reset_local()


def advance(seconds: float) -> None:
    """Lets time pass for the tables of `rule.shared`: what has a `ttl` of less is over."""
    advance_local(seconds)


# --- how it is done -----------------------------------------------------------------------


def _rules(rules: Rule | Sequence[Rule]) -> tuple[list[Rule], Mark]:
    functions = list(rules) if isinstance(rules, Sequence) else [rules]
    if not functions:
        raise ValueError("no rule to run")
    marks = [_mark(function) for function in functions]
    if len({mark.kind for mark in marks}) > 1:
        raise TypeError("rules of one kind run together; run those of another kind on their own")
    return functions, marks[0]


def _mark(function: Rule) -> Mark:
    mark = mark_of(function)
    if mark is None:
        raise TypeError(
            f"{function!r} is no rule: it needs @rule.connection, @rule.request or @rule.response"
        )
    return mark


def _trial(mark: Mark, subject: Facts, answered: ResponseFacts | None) -> Trial:
    if not isinstance(subject, Facts):
        raise TypeError("expected what testing.request or testing.connection makes")
    if mark.kind != "connection" and subject.head is None:
        raise TypeError(f"a {mark.kind} rule needs testing.request(...)")
    if (mark.kind == "response") != (answered is not None):
        raise TypeError("testing.response(...) is for response rules, and they need one")
    trial = subject.trial(mark.kind)
    if answered is not None:
        _answer(trial, answered, answered.head)
    return trial


def _answer(trial: Trial, answered: ResponseFacts, head: bytes) -> None:
    connect, first_byte = round(answered.connect * 1e6), round(answered.first_byte * 1e6)
    trial.set_response(head, answered.node, connect, first_byte)


async def _decide(
    functions: list[Rule],
    mark: Mark,
    subject: Facts,
    answered: ResponseFacts | None,
    raises: bool,
    timeout: float,
) -> Decision:
    trial = _trial(mark, subject, answered)
    trial.set_rules(functions)
    failures: list[BaseException] = []
    opened = trial.open(failures)
    try:
        for index, function in enumerate(functions):
            if not await _step(opened, index, function, timeout) or (raises and failures):
                break
    finally:
        opened.finish()
    if raises and failures:
        raise failures[0]
    return _decision(trial, subject, answered, mark.kind, failures)


async def _step(opened: RuleRun, index: int, function: Rule, timeout: float) -> bool:
    opened.begin(index)
    try:
        if _mark(function).is_async:
            async with asyncio.timeout(timeout) as limit:
                result = await function(*opened.arguments(index))
        else:
            result = function(*opened.arguments(index))
    except TimeoutError as error:
        if _mark(function).is_async and limit.expired():
            ended = RuleTimeout(f"not done after {timeout} s")
            ended.__cause__ = error
            return opened.failed(index, ended, True)
        return opened.failed(index, error)
    except BaseException as error:
        return opened.failed(index, error)
    return opened.ended(index, result)


def _finished(work: Coroutine[Any, Any, Decision]) -> Decision:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        found: Decision = end.value
        return found
    raise AssertionError("a plain rule cannot wait")


def _decision(
    trial: Trial,
    subject: Facts,
    answered: ResponseFacts | None,
    kind: str,
    failures: list[BaseException],
) -> Decision:
    effects = trial.effects()
    head = effects.get("head")
    shown = None
    if subject.head is not None:
        shown = subject.trial(kind, head if kind == "request" else None)
        if answered is not None:
            _answer(shown, answered, head or answered.head)
    pool = effects.get("pool", subject.pool)
    key = effects.get("key")
    return Decision(
        pool=pool,
        persistence=effects.get("persistence", next(iter(subject.persistence), None)),
        persistence_key=key.decode("utf-8", "surrogateescape") if key else None,
        persistence_node=effects.get("node"),
        client_address=effects.get("client", _address(subject.client)[0]),
        answer=_own_answer(subject, effects) if effects.get("action") == "answers" else None,
        closed=effects.get("action") == "closes",
        log=json.loads(b"{" + effects.get("log", b"") + b"}"),
        data=trial.data if trial.data is not None else {},
        request=shown.show_request() if shown else None,
        response=shown.show_response() if shown and answered is not None else None,
        failures=failures,
    )


def _own_answer(subject: Facts, effects: Mapping[str, Any]) -> Answer:
    trial = subject.trial("response")
    head = b"HTTP/1.1 %d \r\n%b\r\n" % (effects["status"], effects["fields"])
    trial.set_response(head, "127.0.0.1:1", 0, 0)
    return Answer(effects["status"], trial.show_response().headers, effects["body"])


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    if isinstance(fields, Mapping):
        return list(fields.items())
    return list(fields)


def _head(line: str, lines: list[tuple[str, str]]) -> bytes:
    text = "\r\n".join([line, *(f"{name}: {value}" for name, value in lines), "", ""])
    return text.encode("utf-8", "surrogateescape")


def _address(text: str | None) -> tuple[str | None, int]:
    if text is None:
        return None, 0
    node = Node(text)
    return node.address, node.port or 0
