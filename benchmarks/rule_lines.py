"""What the rules' benchmark compares, and how both proxies are told to do it.

One line of the table is a virtual server of fastlb or a frontend of HAProxy. The Lua actions do
the same work as the rules beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .peers.base import Place, present, program, version_of
from .peers.fastlb import command, write_configuration

PARKED, SLEEP_S = 1000, 0.1  # clients in an async rule, which sleeps so long
SLOTS = 64  # connections, and clients, of each line

RULES = '''"""The rules of benchmarks/rule_lines.py."""

import asyncio

from fastlb import rule


@rule.request
def nothing(request):
    pass


@rule.request
def read(request):
    request.cookies.get("SESSIONID")


@rule.request
def key(request):
    request.persistence_key = request.cookies.get("SESSIONID")


@rule.request
def field(request):
    request.headers["X-Rule"] = "seen"


@rule.response
def response_nothing(request, response):
    pass


@rule.response
def header(request, response):
    response.headers["X-Rule"] = "seen"


@rule.request
async def at_once(request):
    pass


@rule.request
async def turn(request):
    await asyncio.sleep(0)


@rule.request
async def nap(request):
    await asyncio.sleep(SECONDS)
'''.replace("SECONDS", str(SLEEP_S))

LUA = """\
core.register_action("key", {"http-req"}, function(txn)
    txn:set_var("txn.key", txn.f:req_cook("SESSIONID"))
end)
core.register_action("header", {"http-res"}, function(txn)
    txn.http:res_set_header("X-Rule", "seen")
end)
core.register_action("turn", {"http-req"}, function(txn)
    core.yield()
end)
"""


@dataclass(frozen=True)
class Line:
    """A virtual server of fastlb or a frontend of HAProxy."""

    proxy: str  # the process; those with rules and those without are two
    name: str
    rules: tuple[str, ...] = ()  # of fastlb: functions in RULES
    actions: tuple[str, ...] = ()  # of HAProxy
    ladder: bool = False
    reference: str = ""  # slug of the line that it is compared with

    @property
    def slug(self) -> str:
        return f"{self.proxy}-{self.name}".replace(",", "").replace(" ", "-").replace(":", "")


def _own(name: str, *rules: str, ladder: bool = False) -> Line:
    reference = "fastlb-no-rule" if name != "no rule" else ""
    return Line("fastlb", name, rules, ladder=ladder, reference=reference)


def _other(name: str, *actions: str) -> Line:
    reference = "haproxy-no-rule" if name != "no rule" else ""
    return Line("haproxy", name, actions=actions, reference=reference)


REQUEST, BOTH, ASYNC = "request", "request and response", "async"
LINES = (
    Line("fastlb without rules", "no rule", reference="fastlb-no-rule"),
    _own("no rule"),
    _own("no rule, again"),
    _own(REQUEST, "key"),
    _own(BOTH, "key", "header"),
    _own(ASYNC, "turn"),
    _own("nothing", "nothing", ladder=True),
    _own("read a cookie", "read", ladder=True),
    _own("set a field", "field", ladder=True),
    _own("response: nothing", "response_nothing", ladder=True),
    _own("response: set a field", "header", ladder=True),
    _own("async: nothing", "at_once", ladder=True),
    Line("haproxy without Lua", "no rule", reference="haproxy-no-rule"),
    _other("no rule"),
    _other(REQUEST, "http-request lua.key"),
    _other(BOTH, "http-request lua.key", "http-response lua.header"),
    _other(ASYNC, "http-request lua.turn"),
    _other(
        "request and response, not in Lua",
        "http-request set-var(txn.key) req.cook(SESSIONID)",
        'http-response set-header X-Rule "seen"',
    ),
)


def _nodes_text(place: Place) -> str:
    return json.dumps([f"127.0.0.1:{port}" for port in place.node_ports])


def fastlb_command(
    lines: Sequence[Line], place: Place, ports: Sequence[int], worker_python: str = sys.executable
) -> list[str]:
    (place.directory / "bench_rules.py").write_text(RULES)
    text = f"\n[pools.nodes]\nnodes = {_nodes_text(place)}\n"
    text += 'algorithm = "round-robin"\npersistence = "session"\n\n[persistence.session]\n'
    text += 'type = "universal"\nkey = "cookie:SESSIONID"\n'
    for number, (line, port) in enumerate(zip(lines, ports, strict=True)):
        text += f'\n[virtual_servers.s{number}]\nlisten = ["127.0.0.1:{port}"]\n'
        text += 'protocol = "http"\npool = "nodes"\n'
        if line.rules:
            text += f"rules = {json.dumps([f'bench_rules:{rule}' for rule in line.rules])}\n"
    connections = 2 * SLOTS * len(lines) + 2 * PARKED
    path = write_configuration(place.directory, text, workers=1, connections=connections)
    return command("run", path, worker_python)


_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    no strict-limits
    tune.pool-high-fd-ratio 100
    tune.pool-low-fd-ratio 100
    {load}
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 60s
    timeout http-keep-alive 300s
    option forwardfor
    http-reuse always
"""


def haproxy_command(lines: Sequence[Line], place: Place, ports: Sequence[int]) -> list[str]:
    (place.directory / "bench.lua").write_text(LUA)
    load = f"lua-load {place.directory}/bench.lua" if len(lines) > 1 else ""
    text = _HAPROXY.format(connections=2 * SLOTS * len(lines), load=load)
    servers = "".join(
        f"    server n{number} 127.0.0.1:{port}\n" for number, port in enumerate(place.node_ports)
    )
    text += "backend keys\n    stick-table type string len 32 size 100k expire 30m\n"
    for number, (line, port) in enumerate(zip(lines, ports, strict=True)):
        text += f"frontend f{number}\n    bind 127.0.0.1:{port}\n"
        text += "".join(f"    {action}\n" for action in line.actions)
        text += f"    default_backend b{number}\nbackend b{number}\n    balance roundrobin\n"
        by_rule = any(".key" in action for action in line.actions)
        key = "var(txn.key)" if by_rule else "req.cook(SESSIONID)"
        text += f"    stick on {key} table keys\n{servers}"
    path = place.directory / "haproxy.cfg"
    path.write_text(text)
    return [present(program("haproxy"), "haproxy"), "-db", "-f", str(path)]


def haproxy_version() -> str | None:
    """None: there is none, or it has no Lua."""
    binary = program("haproxy")
    if not binary or not version_of([binary, "-vv"], r"(Built with Lua) version"):
        return None
    return version_of([binary, "-v"], r"version (\d[\w.]*)")
