"""fastlb itself, from this Python environment: the control process and its workers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from ..cases import Persistence, Task
from .base import Peer, Place, version_of

SOURCE = Path(__file__).resolve().parents[2]

_COMMON = """\
[proxy]
workers = {workers}
state_dir = "{directory}/state"
access_log = "off"

[limits]
max_connections = {connections}

[timeouts]
keep_alive = "5m"
"""

_BENCH = """
[virtual_servers.bench]
listen = ["127.0.0.1:{port}"]
protocol = "http"
pool = "nodes"

[pools.nodes]
nodes = {nodes}
algorithm = "round-robin"
persistence = "bench"

[persistence.bench]
{persistence}
"""


def write_configuration(directory: Path, tables: str, *, workers: int, connections: int) -> Path:
    """What all benchmarks have in common, and `tables`; returns the file."""
    path = directory / "fastlb.toml"
    common = _COMMON.format(workers=workers, directory=directory, connections=connections)
    path.write_text(common + tables)
    return path


def command(verb: str, path: Path, worker_python: str = sys.executable) -> list[str]:
    """fastlb of the checkout that holds this file, whatever the working directory is."""
    code = (
        f"import sys, os; sys.path.insert(0, {str(SOURCE)!r}); "
        f"os.environ['PYTHONPATH'] = {str(SOURCE)!r}; sys.executable = {worker_python!r}; "
        "from fastlb.cli import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code, verb, "-c", str(path)]


class Fastlb(Peer):
    name = "fastlb"

    def version(self) -> str | None:
        if importlib.util.find_spec("fastlb.__main__") is None:
            return None
        return version_of([sys.executable, "-m", "fastlb", "--version"], r"(\d+\.\d[\w.]*)")

    def prepare(self, task: Task, place: Place) -> list[str]:
        persistence = 'type = "transparent"'
        if task.persistence is not Persistence.COOKIE:
            persistence = f'type = "ip"\nsize = {task.sessions_max}'
        tables = _BENCH.format(
            port=place.port,
            nodes=json.dumps([f"127.0.0.1:{port}" for port in place.node_ports]),
            persistence=persistence,
        )
        path = write_configuration(
            place.directory, tables, workers=task.workers, connections=task.connections_max
        )
        return command("run", path)
