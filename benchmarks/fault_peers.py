"""fastlb, HAProxy and nginx as a service runs them: configured to be reloaded, with the checks of
nodes' health that each does by itself, and retries of what may be repeated."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from fastlb.control_socket import ask
from fastlb.errors import StartError

from . import proc
from .peers.base import program, version_of
from .peers.fastlb import command

WORKERS = 2
START_S = 20.0

_FASTLB = """\
[proxy]
workers = {workers}
state_dir = "{directory}/state"
access_log = "{log}"
[timeouts]
connect = "1s"
keep_alive = "5m"
[virtual_servers.bench]
listen = ["127.0.0.1:{port}"]
pool = "nodes"
[pools.nodes]
nodes = {nodes}
algorithm = "round-robin"
# {turn}
"""

_HAPROXY = """\
global
    nbthread {workers}
    maxconn 10000
    no strict-limits
    mworker-max-reloads 1000
    stats socket {directory}/admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 300s
    timeout client-fin 10s
    timeout server 60s
    timeout tunnel 1h
    timeout http-request 10s
    timeout http-keep-alive 300s
    option redispatch 1
    retries 2
    retry-on conn-failure empty-response
    http-reuse always
{logging}
frontend bench
    bind 127.0.0.1:{port}
    http-request disable-l7-retry if METH_POST
    default_backend nodes
backend nodes
    balance roundrobin
    default-server observe layer4 error-limit 5 on-error mark-down check inter 1s
{servers}
# {turn}
"""

_NGINX = """\
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
worker_processes {workers};
worker_rlimit_nofile 65536;
events {{ worker_connections 20000; }}
http {{
    {logging}
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_header_timeout 10s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $to_node {{ default upgrade; "" ""; }}
    upstream nodes {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Connection $to_node;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
            proxy_connect_timeout 1s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 3;
        }}
    }}
}}
# {turn}
"""


# Each request that was given to a node has a line; and nothing is repeated, nor given up because
# the client has sent all that it will.
_HAPROXY_LOGGING = """\
    log stdout format raw local0
    log-format "seen %s %HM %HU"
    retries 0"""
_NGINX_LOGGING = """\
map $upstream_addr $given {{ default node; "" ""; }}
    log_format seen escape=none 'seen $given $request_method $request_uri';
    access_log {directory}/seen.log seen;
    proxy_ignore_client_abort on;"""
Seen = tuple[bytes, bytes]  # method and target of a request that was given to a node


def _service(process: subprocess.Popen[bytes]) -> list[int]:
    return proc.tree(process.pid)[1:]


class FaultPeer(ABC):
    """One proxy in one directory, started and told to reload."""

    name: str

    def __init__(self, directory: Path, port: int, nodes: list[int], logs: bool = False) -> None:
        self.directory, self.port, self.nodes = directory, port, nodes
        self.logs = logs
        self.turn = 0
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def version(cls) -> str | None: ...

    @abstractmethod
    def configuration(self) -> tuple[str, str]:
        """File name and text."""

    @abstractmethod
    def command(self, file: Path) -> list[str]: ...

    @abstractmethod
    def reload(self) -> None:
        """Another text of the same meaning is put in force."""

    @abstractmethod
    def upgrade(self) -> None:
        """The program is replaced by the one that is installed: here, by itself."""

    def seen(self) -> list[Seen]:
        """Of a peer that `logs`: what it says it has given to nodes."""
        lines = [line.split(b" ", 3) for line in self._log().read_bytes().splitlines()]
        return [
            (line[2], line[3])
            for line in lines
            if len(line) == 4 and line[0] == b"seen" and line[1] not in (b"", b"<NOSRV>")
        ]

    def _log(self) -> Path:
        return self.directory / "seen.log"

    def worker(self) -> int:
        """The process that serves, or one of them."""
        return self.workers()[0]

    def workers(self) -> list[int]:
        assert self.process is not None
        return _service(self.process)

    def dead(self) -> bool:
        """Whether all of it has ended."""
        return self.process is not None and self.process.poll() is not None

    def write(self) -> Path:
        name, text = self.configuration()
        file = self.directory / name
        file.write_text(text)
        self.turn += 1
        return file

    def start(self, answers: Callable[[int], bool]) -> None:
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *self.command(self.write())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not answers(self.port):
            if time.monotonic() > deadline or self.dead():
                raise RuntimeError(f"{self.name}: {(self.directory / 'log').read_text()}")
            time.sleep(0.05)

    def end(self) -> None:
        if self.process is None:
            return
        pids = proc.tree(self.process.pid)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Fastlb(FaultPeer):
    name = "fastlb"

    @classmethod
    def version(cls) -> str | None:
        import fastlb

        return fastlb.__version__

    def configuration(self) -> tuple[str, str]:
        nodes = json.dumps([f"127.0.0.1:{port}" for port in self.nodes])
        return "fastlb.toml", _FASTLB.format(
            workers=WORKERS, directory=self.directory, port=self.port, nodes=nodes, turn=self.turn,
            log=self._log() if self.logs else "off",
        )  # fmt: skip

    def seen(self) -> list[Seen]:
        lines = map(json.loads, self._log().read_bytes().splitlines())
        return [
            (line["method"].encode("latin-1"), line["target"].encode("latin-1"))
            for line in lines
            if line.get("node")
        ]

    def command(self, file: Path) -> list[str]:
        return command("run", file)

    def reload(self) -> None:
        self.write()
        answer = ask(self.directory / "state", "reload")
        if not answer["ok"]:
            raise RuntimeError(f"fastlb: {answer}")

    def upgrade(self) -> None:
        state = self.directory / "state"
        before = ask(state, "upgrade")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            time.sleep(0.05)
            with contextlib.suppress(StartError):
                found = ask(state, "about")
                if found["instance"] != before["instance"] and found["ready"]:
                    return
        raise RuntimeError("fastlb did not upgrade")

    def workers(self) -> list[int]:
        status = ask(self.directory / "state", "status")["status"]
        return [worker["pid"] for worker in status["workers"]]


class HAProxy(FaultPeer):
    name = "haproxy"

    @classmethod
    def version(cls) -> str | None:
        binary = program("haproxy")
        return version_of([binary, "-v"], r"version (\d[\w.]*)") if binary else None

    def configuration(self) -> tuple[str, str]:
        servers = "\n".join(
            f"    server n{number} 127.0.0.1:{port}" for number, port in enumerate(self.nodes)
        )
        return "haproxy.cfg", _HAPROXY.format(
            workers=WORKERS, directory=self.directory, port=self.port, servers=servers,
            turn=self.turn, logging=_HAPROXY_LOGGING if self.logs else "",
        )  # fmt: skip

    def _log(self) -> Path:
        return self.directory / "log"

    def seen(self) -> list[Seen]:
        """Quotes, number signs and what cannot be printed stand there as #XX."""

        def plain(text: bytes) -> bytes:
            return re.sub(rb"#([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), text)

        return [(plain(method), plain(target)) for method, target in super().seen()]

    def upgrade(self) -> None:
        self.reload()  # which executes the program anew

    def command(self, file: Path) -> list[str]:
        master = f"{self.directory}/master.sock"
        return [str(program("haproxy")), "-W", "-S", master, "-f", str(file)]

    def reload(self) -> None:
        assert self.process is not None
        before = set(self.workers())
        self.write()
        self.process.send_signal(signal.SIGUSR2)
        while not _new_within(self, before, 3.0):  # one that came while it was busy was lost
            self.process.send_signal(signal.SIGUSR2)


class Nginx(FaultPeer):
    """As a daemon: it ignores the signal to upgrade while whoever started it is its parent."""

    name = "nginx"

    @classmethod
    def version(cls) -> str | None:
        binary = program("nginx")
        return version_of([binary, "-v"], r"nginx/(\d[\w.]*)") if binary else None

    def configuration(self) -> tuple[str, str]:
        servers = " ".join(f"server 127.0.0.1:{port} fail_timeout=1s;" for port in self.nodes)
        logging = "access_log off;"
        if self.logs:
            logging = _NGINX_LOGGING.format(directory=self.directory)
        return "nginx.conf", _NGINX.format(
            workers=WORKERS, directory=self.directory, port=self.port, servers=servers,
            turn=self.turn, logging=logging,
        )  # fmt: skip

    def command(self, file: Path) -> list[str]:
        return [str(program("nginx")), "-p", str(self.directory), "-c", str(file), "-e", "stderr"]

    def _master(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.directory / "nginx.pid").read_text())
        return None

    def dead(self) -> bool:
        return self.process is not None and self.process.poll() not in (None, 0)

    def workers(self) -> list[int]:
        master = self._master()
        return proc.tree(master)[1:] if master else []

    def reload(self) -> None:
        before = set(self.workers())
        self.write()
        os.kill(self._known(), signal.SIGHUP)
        if not _new_within(self, before, START_S):
            raise RuntimeError("nginx did not reload")

    def _known(self) -> int:
        master = self._master()
        assert master is not None
        return master

    def upgrade(self) -> None:
        """A new master beside the old one, which then lets its workers finish and ends."""
        before = self._known()
        os.kill(before, signal.SIGUSR2)
        deadline = time.monotonic() + START_S
        while self._master() in (None, before):
            if time.monotonic() > deadline:
                raise RuntimeError("nginx did not upgrade")
            time.sleep(0.02)
        while not self.workers():
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(before, signal.SIGQUIT)

    def end(self) -> None:
        master = self._master()
        for pid in proc.tree(master) if master else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _new_within(peer: FaultPeer, before: set[int], limit_s: float) -> bool:
    """Waits until processes serve that were not there before."""
    deadline = time.monotonic() + limit_s
    while not set(peer.workers()) - before:
        if peer.dead():
            raise RuntimeError(f"{peer.name} has ended: {(peer.directory / 'log').read_text()}")
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


PEERS: tuple[type[FaultPeer], ...] = (Fastlb, HAProxy, Nginx)
