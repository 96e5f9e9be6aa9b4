"""What `fastlb status` shows of virtual servers of each protocol."""

from typing import Any

from fastlb.config import VirtualServer, VirtualServerTls
from fastlb.rule_mark import RuleKind
from fastlb.status import STATUS_CLASSES, _rule, _virtual_server
from fastlb.status_tables import _rules, as_tables
from fastlb.units import UnixAddress

SOME = {"handshakes": 7, "resumed": 5, "failed": 1, "waiting": 2}


def server(protocol: Any) -> dict[str, Any]:
    tls = VirtualServerTls(certificates=()) if protocol == "https" else None
    one = VirtualServer(listen=(UnixAddress("/a"),), pool="web", protocol=protocol, tls=tls)
    counters = {"connections": 3, "accepted": 4, "requests": 9, "bytes_in": 0, "bytes_out": 0}
    statuses = list(range(len(STATUS_CLASSES)))
    return _virtual_server(one, {**counters, "statuses": statuses, "tls": dict(SOME)})


def shown(**servers: dict[str, Any]) -> list[list[str]]:
    status = {
        "version": "1", "uptime_seconds": 0, "generation": 1, "workers": [], "pools": {},
        "edits": [],
        "virtual_servers": servers, "persistence": {}, "causes": {"not-tls": 3}, "rules": {},
    }  # fmt: skip
    return [line.split() for line in as_tables(status).splitlines()]


def test_a_virtual_server_for_programs() -> None:
    assert server("https") == {
        "listen": ["unix:/a"], "protocol": "https", "connections": 3, "accepted": 4,
        "requests": 9, "bytes_in": 0, "bytes_out": 0, "tls": SOME,
        "statuses": {"none": 0, "1xx": 1, "2xx": 2, "3xx": 3, "4xx": 4, "5xx": 5},
    }  # fmt: skip
    assert [server(one)["tls"] for one in ("http", "tls", "tcp")] == [None] * 3


def test_only_requests_have_statuses() -> None:
    lines = shown(a=server("http"), b=server("tls"), c=server("tcp"))
    assert ["a", "unix:/a", "http", "3", "9", "4", "5"] in lines
    assert ["b", "unix:/a", "tls", "3", "9", "-", "-"] in lines
    assert ["c", "unix:/a", "tcp", "3", "9", "-", "-"] in lines
    assert [line for line in lines if line[:1] == ["TLS"]] == []
    assert lines[-1] == ["failed", "exchanges:", "not-tls", "3"]


def test_handshakes_have_a_table_of_their_own() -> None:
    lines = shown(a=server("http"), b=server("https"))
    assert ["b", "unix:/a", "https", "3", "9", "4", "5"] in lines
    at = lines.index(["TLS", "handshakes", "resumed", "failed", "waiting"])
    assert lines[at + 1] == ["b", "7", "5", "1", "2"]
    assert lines[at + 2] == []


RULE = {
    "calls": 4, "errors": 1, "timeouts": 2, "cancelled": 3, "waiting": 0, "busy_us": 50,
    "blocked": 5,
}  # fmt: skip


def test_a_rule_for_programs() -> None:
    counters = {key: value for key, value in RULE.items() if key != "busy_us"}
    assert _rule(RuleKind("request", True), dict(RULE)) == {
        "kind": "request", "async": True, "seconds": 0.00005, **counters,
    }  # fmt: skip
    assert _rule(None, dict(RULE))["kind"] is None


def test_rules_have_a_table_and_shared_tables_a_line_when_used() -> None:
    rules = {
        "shop:route": _rule(RuleKind("request", True), dict(RULE)),
        "shop:tag": _rule(RuleKind("response", False), {**RULE, "calls": 0}),
    }
    used = {"entries": 2, "entries_max": 1024, "evictions": 1}
    lines = [line.split("  ") for line in _rules(rules, used).splitlines()]
    assert [[word.strip() for word in line if word] for line in lines[:3]] == [
        ["rule", "kind", "calls", "ms/call", "waiting", "errors", "timeouts", "cancelled",
         "blocked"],
        ["shop:route", "async request", "4", "0.013", "0", "1", "2", "3", "5"],
        ["shop:tag", "response", "0", "-", "0", "1", "2", "3", "5"],
    ]  # fmt: skip
    assert lines[-1] == ["shared tables: 2/1024 entries, 1 evictions"]
    unused = {"entries": 0, "entries_max": 1024, "evictions": 0}
    assert "shared" not in _rules(rules, unused) + _rules(rules, None)
