"""What must hold between the values of monitors: the keys of each type, patterns, ranges."""

import re
from typing import Any

from fastlb import errors
from fastlb.config import Config, Monitor
from fastlb.decode import Report

Path = tuple[str | int, ...]

TYPES_OF = {  # keys that not every type has
    "path": ("http",),
    "host": ("http",),
    "method": ("http",),
    "status": ("http",),
    "body": ("http",),
    "tls": ("http", "tls"),
    "port": ("http", "tcp", "tls"),
    "function": ("python",),
}


def check_monitors(cfg: Config, document: dict[str, Any], report: Report) -> None:
    """Reports every breach; `document` tells what was written from what is a default."""
    tables = document.get("monitors")
    for name, monitor in cfg.monitors.items():
        path = ("monitors", name)
        written = tables[name] if isinstance(tables, dict) else {}
        if monitor.type:
            _keys(monitor, written, path, report)
        _status(monitor, path, report)
        _body(monitor, path, report)
    for name, pool in cfg.pools.items():
        for index, found in enumerate(pool.monitors):
            if found in pool.monitors[:index]:
                report(errors.MONITOR_TWICE, ("pools", name, "monitors", index), found=found)


def _keys(monitor: Monitor, written: dict[str, Any], path: Path, report: Report) -> None:
    for key, types in TYPES_OF.items():
        if key in written and monitor.type not in types:
            expected = ", ".join(types)
            report(errors.KEY_OF_OTHER_TYPE, (*path, key), type=monitor.type, expected=expected)
    if monitor.type == "python" and "function" not in written:
        report(errors.MISSING_KEY, (*path, "function"), expected='"module:function"')


def _status(monitor: Monitor, path: Path, report: Report) -> None:
    if not monitor.status:
        report(errors.NO_STATUS, (*path, "status"))
    for index, text in enumerate(monitor.status):
        first, _, last = text.partition("-")
        if last and first > last:
            report(errors.STATUSES_TURNED, (*path, "status", index), found=text)


def _body(monitor: Monitor, path: Path, report: Report) -> None:
    if monitor.body is None:
        return
    try:
        re.compile(monitor.body.encode())
    except (re.error, OverflowError, RecursionError) as error:
        report(errors.BAD_PATTERN, (*path, "body"), found=monitor.body, reason=error)
    if monitor.method == "HEAD":
        report(errors.HEAD_WITHOUT_BODY, (*path, "body"))
