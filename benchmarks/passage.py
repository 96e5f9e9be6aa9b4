"""python -m benchmarks.passage: proxy CPU per new TLS connection that is passed through.

fastlb (protocol "tls", persistence `ssl`) beside nginx (stream, ssl_preread), HAProxy (tcp,
its recipe for session ids) and a floor that only moves bytes. A connection is accepted,
taken to a node, has a handshake, one request of 420 bytes, one answer of 1,360, and ends.
Handshakes are played without cryptography (tls_bytes.h), so that the load does not
drown the proxy on a small machine: what a proxy sees and may read is the same. `real` has
real ones: OpenSSL at the client, and nginx at the nodes, which share no sessions.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fastlb.check import check_file

from . import machine
from .certificate import certificate_make
from .peers.base import Place, present
from .peers.fastlb import Fastlb, command, write_configuration
from .peers.haproxy import HAProxy
from .peers.nginx import Nginx
from .rotation import Aim, Case, Contestant, Topic, accepts, main
from .session import Session, leave, run_proxy, run_ready

BOTH = ("nginx", "haproxy")
_CLIENTS = 2000
_CONNECTIONS_MAX = 4000
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def _case(name: str, title: str, kind: str, **more: object) -> Case:
    arguments = ("-c", "32", "-k", str(_CLIENTS), "-h", kind)
    return Case(name, title, "stream_load", arguments, 1500, **more)  # type: ignore[arg-type]


CASES = (
    _case(
        "session-id",
        "TLS 1.2, every client resumes its session by its id",
        "id",
        aim=Aim(0.95, BOTH),
        kept=True,
    ),
    _case(
        "full",
        "TLS 1.2, every connection is granted a new session id",
        "full",
        aim=Aim(0.95, BOTH),
    ),
    _case(
        "ticket",
        "TLS 1.2, every client resumes its session by a ticket",
        "ticket",
        kept=True,
    ),
    _case("tls13", "TLS 1.3: nothing to learn", "13"),
    _case(
        "tcp",
        "the connections of `session-id`, relayed as tcp, without persistence",
        "id",
        settings={"tls": ""},
    ),
    Case(
        "real",
        "TLS 1.2 by OpenSSL at both ends, every client resumes its session by its id",
        "https_load",
        ("-c", "16", "-m", "resume", "-t", "12", "-N"),
        500,
        kept=True,
        settings={"nodes": "nginx"},
    ),
)


class Floor(Contestant):
    name = "floor"

    def version(self) -> str | None:
        return "(mover.c, -O2)"

    def prepare(self, case: Case, place: Place) -> list[str]:
        ports = ",".join(map(str, place.node_ports))
        program = str(place.programs / "mover")
        splice = ["-s"] if case.settings.get("splice") else []
        return [program, "-l", str(place.port), "-p", ports, *splice]


_FASTLB = """
[virtual_servers.bench]
listen = ["127.0.0.1:{port}"]
protocol = "{protocol}"
pool = "nodes"

[pools.nodes]
nodes = {nodes}
algorithm = "round-robin"
{persistence}
"""
_FASTLB_SSL = """persistence = "bench"

[persistence.bench]
type = "ssl"
size = 100000
"""


class FastlbPassage(Contestant):
    name = "fastlb"

    def version(self) -> str | None:
        return Fastlb().version()

    def _written(self, case: Case, place: Place) -> Path:
        tls = "tls" not in case.settings
        tables = _FASTLB.format(
            port=place.port,
            protocol="tls" if tls else "tcp",
            nodes=json.dumps([f"127.0.0.1:{port}" for port in place.node_ports]),
            persistence=_FASTLB_SSL if tls else "",
        )
        return write_configuration(place.directory, tables, workers=1, connections=_CONNECTIONS_MAX)

    def refuses(self, case: Case, root: Path) -> str | None:
        directory = root / "refused"
        directory.mkdir(exist_ok=True)
        found = check_file(self._written(case, Place(directory, root, 1, (2, 3)))).errors
        return found[0].text if found else None

    def prepare(self, case: Case, place: Place) -> list[str]:
        return command("run", self._written(case, place))


_NGINX = """\
load_module {module};
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr crit;
worker_processes 1;
worker_rlimit_nofile 65536;
events {{
    worker_connections {connections};
    use epoll;
}}
stream {{
    proxy_buffer_size {buffer};
    upstream nodes {{ {balance} {servers} }}
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        {preread}
        proxy_pass nodes;
    }}
}}
"""


class NginxPassage(Contestant):
    """It knows no session ids: ssl_preread reads the server's name, clients stay by address."""

    name = "nginx"

    def version(self) -> str | None:
        return Nginx().version() if _STREAM_MODULE.exists() else None

    def prepare(self, case: Case, place: Place) -> list[str]:
        tls = "tls" not in case.settings
        path = place.directory / "nginx.conf"
        path.write_text(
            _NGINX.format(
                module=_STREAM_MODULE,
                directory=place.directory,
                connections=2 * _CONNECTIONS_MAX,
                buffer=case.settings.get("nginx_buffer", "16k"),
                balance="hash $remote_addr consistent;" if tls else "",
                servers=" ".join(f"server 127.0.0.1:{port};" for port in place.node_ports),
                port=place.port,
                preread="ssl_preread on;" if tls else "",
            )
        )
        command = [present(Nginx().binary(), self.name), "-p", str(place.directory)]
        return [*command, "-c", str(path), "-e", "stderr"]


_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    no strict-limits
    {pipe}
defaults
    mode tcp
    timeout connect 2s
    timeout client 300s
    timeout server 300s
    {splice}
frontend bench
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance roundrobin
{persistence}
{servers}
"""
_HAPROXY_SESSIONS = """\
    stick-table type binary len 32 size 100k expire 30m
    acl client_hello req.ssl_hello_type 1
    acl server_hello res.ssl_hello_type 2
    tcp-request inspect-delay 5s
    tcp-request content accept if client_hello
    tcp-response inspect-delay 5s
    tcp-response content accept if server_hello
    stick on payload_lv(43,1) if client_hello
    stick store-response payload_lv(43,1) if server_hello"""


class HAProxyPassage(Contestant):
    """Its manual's recipe for session ids; without the second delay it would store none."""

    def __init__(self, name: str = "haproxy", splice: str = "") -> None:
        self.name = name
        self._splice = splice

    def version(self) -> str | None:
        return HAProxy().version()

    def prepare(self, case: Case, place: Place) -> list[str]:
        tls = "tls" not in case.settings
        path = place.directory / "haproxy.cfg"
        path.write_text(
            _HAPROXY.format(
                connections=_CONNECTIONS_MAX,
                pipe="tune.pipesize 1048576" if self._splice else "",
                splice=self._splice,
                port=place.port,
                persistence=_HAPROXY_SESSIONS if tls else "",
                servers="\n".join(
                    f"    server n{i} 127.0.0.1:{port}" for i, port in enumerate(place.node_ports)
                ),
            )
        )
        return [present(HAProxy().binary(), self.name), "-db", "-f", str(path)]


_NODES = """\
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr crit;
worker_processes 1;
worker_rlimit_nofile 65536;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_session_tickets off;
{servers}
}}
"""
_NODE = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_session_cache shared:n{port}:2m;
        location / {{ return 200 "{body}"; }}
    }}
"""


@contextlib.contextmanager
def _nginx_nodes(layout: machine.Layout, place: Place) -> Iterator[None]:
    """Nodes that end TLS; a session is known where it was granted only."""
    key, certificate, _ = certificate_make(place.directory, "rsa")
    path = place.directory / "nodes.conf"
    servers = [_NODE.format(port=port, body="x" * 1024) for port in place.node_ports]
    path.write_text(
        _NODES.format(
            directory=place.directory,
            connections=_CONNECTIONS_MAX,
            certificate=certificate,
            key=key,
            servers="".join(servers),
        )
    )
    command = [present(Nginx().binary(), "nginx"), "-p", str(place.directory), "-c", str(path)]
    beside = machine.Layout(layout.others, layout.others)
    session = Session(place.programs, beside, replace(place, port=place.node_ports[0]))
    with (
        (place.directory / "nodes.log").open("w") as log,
        run_proxy(session, [*command, "-e", "stderr"], log, answers=accepts),
    ):
        yield


@contextlib.contextmanager
def nodes(root: Path, layout: machine.Layout, case: Case, place: Place) -> Iterator[None]:
    ports = ",".join(map(str, place.node_ports))
    if case.settings.get("nodes") == "nginx":
        with _nginx_nodes(layout, place):
            yield
    else:
        with run_ready(layout, [str(root / "stream_node"), "-p", ports]):
            yield


TOPIC = Topic(
    "passage",
    "Proxy CPU per new TLS connection that is passed through, with session persistence.",
    CASES,
    (FastlbPassage(), NginxPassage(), HAProxyPassage(), Floor()),
    ("stream_node", "stream_load", "https_load", "mover"),
    nodes,
)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main(TOPIC))
    except KeyboardInterrupt:
        sys.exit(130)
