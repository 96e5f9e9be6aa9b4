"""The operator at the keyboard: commands to a running proxy, without a process for each."""

import contextlib
import io
import os
import subprocess
from pathlib import Path
from typing import Any

from fastlb import cli
from fastlb.control_socket import ask

from .proxy import Proxy


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `command` does, in this process: for the many commands of a long story."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def status_of(proxy: Proxy) -> dict[str, Any]:
    """`fastlb status --json`, likewise."""
    found: dict[str, Any] = ask(Path(proxy.config["proxy"]["state_dir"]), "status")["status"]
    return found


def pool_of(proxy: Proxy, pool: str = "web") -> list[dict[str, Any]]:
    """A pool's nodes in the status."""
    nodes: list[dict[str, Any]] = status_of(proxy)["pools"][pool]["nodes"]
    return nodes


def descriptors(pid: int) -> int:
    """Of a process, but for those in reserve, which a control process takes at its leisure."""
    found = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(one) != os.devnull
    return found
