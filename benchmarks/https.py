"""python -m benchmarks.https: proxy CPU per HTTPS request, per handshake, per GB encrypted.

fastlb (protocol "https") beside nginx and HAProxy: TLS ends at the proxy, the nodes speak
plain HTTP over connections that stay open, a client stays on its node by its address.
Cases `full` and `resumed` are whole connections: TCP, handshake, one request with an
answer of 1 KiB, end. All use X25519 and AES-128-GCM; the TLS library is each proxy's own.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.backends.openssl.backend import backend

from fastlb.check import check_file

from . import machine
from .cases import Task
from .certificate import certificate_make
from .peers.base import Place, present, version_of
from .peers.fastlb import Fastlb, command, write_configuration
from .peers.haproxy import HAProxy
from .peers.nginx import Nginx
from .rotation import Aim, Case, Contestant, Topic, main
from .session import leave, run_nodes

BOTH = ("nginx", "haproxy")
_CONNECTIONS_MAX = 4000
_MIB = 1 << 20


def _keep(version: str, title: str) -> Case:
    arguments = ("-c", "32", "-m", "keep", "-t", version)
    return Case(
        f"request-{version}",
        f"{title}, requests on 32 connections that stay open",
        "https_load",
        arguments,
        10000,
        unit="CPU µs/request",
        aim=Aim(1.0, BOTH),
    )


def _full(version: str, key: str) -> Case:
    shown = {"rsa": "RSA of 2048 bits", "ecdsa": "ECDSA P-256"}[key]
    return Case(
        f"full-{version}-{key}",
        f"TLS 1.{version[1]}, a full handshake for each connection, {shown}",
        "https_load",
        ("-c", "16", "-m", "full", "-t", version),
        300,
        settings={"key": key},
    )


def _resumed(name: str, title: str, *more: str) -> Case:
    arguments = ("-c", "16", "-m", "resume", *more)
    return Case(name, title, "https_load", arguments, 800, kept=True)


CASES = (
    _keep("13", "TLS 1.3"),
    _keep("12", "TLS 1.2"),
    *(_full(version, key) for version in ("13", "12") for key in ("rsa", "ecdsa")),
    _resumed("resumed-13", "TLS 1.3, each connection resumes by a ticket", "-t", "13"),
    _resumed("resumed-12", "TLS 1.2, each connection resumes by a ticket", "-t", "12"),
    _resumed("resumed-id", "TLS 1.2, each connection resumes by its id", "-t", "12", "-N"),
    Case(
        "download",
        "TLS 1.3, answers of 1 MiB over 16 connections that stay open",
        "https_load",
        ("-c", "16", "-m", "keep", "-t", "13"),
        400,
        unit="CPU s/GB",
        settings={"body": str(_MIB)},
    ),
)


def _key(case: Case) -> str:
    return case.settings.get("key", "rsa")


_FASTLB = """
[virtual_servers.bench]
listen = ["127.0.0.1:{port}"]
protocol = "https"
pool = "nodes"
tls = {{ certificates = [{{ certificate = "{certificate}", key = "{key}" }}] }}

[pools.nodes]
nodes = {nodes}
algorithm = "round-robin"
persistence = "bench"

[persistence.bench]
type = "ip"
"""


class FastlbHttps(Contestant):
    name = "fastlb"

    def version(self) -> str | None:
        version = Fastlb().version()
        return f"{version} ({backend.openssl_version_text()})" if version else None

    def _written(self, case: Case, place: Place) -> Path:
        key, certificate, _ = certificate_make(place.directory, _key(case))
        tables = _FASTLB.format(
            port=place.port,
            certificate=certificate,
            key=key,
            nodes=json.dumps([f"127.0.0.1:{port}" for port in place.node_ports]),
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
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    {large}
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:bench:20m;
    ssl_session_timeout 1h;
    upstream nodes {{
        hash $remote_addr consistent;
        {servers}
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=16384;
        location / {{
            proxy_pass http://nodes;
        }}
    }}
}}
"""
_NGINX_LARGE = "proxy_max_temp_file_size 0; proxy_buffers 8 64k; proxy_buffer_size 16k;"


class NginxHttps(Contestant):
    name = "nginx"

    def version(self) -> str | None:
        binary = Nginx().binary()
        if not binary:
            return None
        library = version_of([binary, "-V"], r"running with (OpenSSL [\w.]+)")
        library = library or version_of([binary, "-V"], r"built with (OpenSSL [\w.]+)")
        return f"{Nginx().version()} ({library})"

    def prepare(self, case: Case, place: Place) -> list[str]:
        key, certificate, _ = certificate_make(place.directory, _key(case))
        path = place.directory / "nginx.conf"
        path.write_text(
            _NGINX.format(
                directory=place.directory,
                connections=2 * _CONNECTIONS_MAX,
                large=_NGINX_LARGE if "body" in case.settings else "",
                certificate=certificate,
                key=key,
                servers=" ".join(f"server 127.0.0.1:{port};" for port in place.node_ports),
                port=place.port,
            )
        )
        command = [present(Nginx().binary(), self.name), "-p", str(place.directory)]
        return [*command, "-c", str(path), "-e", "stderr"]


_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    no strict-limits
    tune.pool-high-fd-ratio 100
    tune.pool-low-fd-ratio 100
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 60s
    timeout http-keep-alive 300s
    option forwardfor
    http-reuse always
frontend bench
    bind 127.0.0.1:{port} ssl crt {both} ssl-min-ver TLSv1.2
    http-request set-header X-Forwarded-Proto https
    default_backend nodes
backend nodes
    balance source
{servers}
"""


class HAProxyHttps(Contestant):
    name = "haproxy"

    def version(self) -> str | None:
        binary = HAProxy().binary()
        if not binary:
            return None
        library = version_of([binary, "-vv"], r"Running on OpenSSL version : (OpenSSL [\w.]+)")
        return f"{HAProxy().version()} ({library})"

    def prepare(self, case: Case, place: Place) -> list[str]:
        both = certificate_make(place.directory, _key(case))[2]
        path = place.directory / "haproxy.cfg"
        path.write_text(
            _HAPROXY.format(
                connections=_CONNECTIONS_MAX,
                port=place.port,
                both=both,
                servers="\n".join(
                    f"    server n{i} 127.0.0.1:{port}" for i, port in enumerate(place.node_ports)
                ),
            )
        )
        return [present(HAProxy().binary(), self.name), "-db", "-f", str(path)]


@contextlib.contextmanager
def nodes(root: Path, layout: machine.Layout, case: Case, place: Place) -> Iterator[None]:
    task = Task(body_bytes=int(case.settings.get("body", 1024)))
    with run_nodes(root, layout, task, place):
        yield


TOPIC = Topic(
    "https",
    "Proxy CPU per HTTPS request, per handshake, per GB encrypted.",
    CASES,
    (FastlbHttps(), NginxHttps(), HAProxyHttps()),
    ("node", "https_load"),
    nodes,
    rounds=15,
)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    try:
        sys.exit(main(TOPIC))
    except KeyboardInterrupt:
        sys.exit(130)
