"""HAProxy as Debian has it: one process, a thread per worker.

The two ratios keep its connections to the nodes open when clients hold more than a
quarter of its descriptors; without them it would connect anew for nearly every request.
Large responses: `splice-auto` did not recognise 1 MiB responses as worth splicing, so
splicing is asked for, with pipes that hold a whole one: its best of seven settings tried.
"""

from __future__ import annotations

from ..cases import Persistence, Task
from .base import Peer, Place, present, program, version_of

_CONFIGURATION = """\
global
    nbthread {workers}
    maxconn {connections}
    no strict-limits
    tune.pool-high-fd-ratio 100
    tune.pool-low-fd-ratio 100
    {large}
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 60s
    timeout http-keep-alive 300s
    option forwardfor
    http-reuse always
    {defaults}
frontend bench
    bind 127.0.0.1:{port} {bind}
    default_backend nodes
backend nodes
    balance {balance}
{persistence}
{servers}
"""


class HAProxy(Peer):
    name = "haproxy"

    def binary(self) -> str | None:
        return program("haproxy")

    def version(self) -> str | None:
        binary = self.binary()
        return version_of([binary, "-v"], r"version (\d[\w.]*)") if binary else None

    def prepare(self, task: Task, place: Place) -> list[str]:
        large = task.body_bytes >= 65536
        cookie = task.persistence is Persistence.COOKIE
        persistence = ""
        if cookie:
            persistence = "    cookie SRV insert indirect nocache"
        elif task.persistence is Persistence.TABLE:
            table = f"    stick-table type ip size {task.sessions_max} expire 30m"
            persistence = f"{table}\n    stick on src"
        text = _CONFIGURATION.format(
            workers=task.workers,
            connections=task.connections_max,
            defaults="option splice-response" if large else "",
            large="tune.pipesize 1048576" if large else "",
            port=place.port,
            bind="shards by-thread" if task.workers > 1 else "",
            balance="source" if task.persistence is Persistence.SOURCE else "roundrobin",
            persistence=persistence,
            servers="\n".join(
                f"    server n{i} 127.0.0.1:{port}" + (f" cookie n{i}" if cookie else "")
                for i, port in enumerate(place.node_ports)
            ),
        )
        path = place.directory / "haproxy.cfg"
        path.write_text(text)
        return [present(self.binary(), self.name), "-db", "-f", str(path)]
