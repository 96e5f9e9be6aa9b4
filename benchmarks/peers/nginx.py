"""nginx as Debian has it: a master and its workers, -O2, without the `sticky` directive.

Cookie persistence is then the usual recipe of two maps: the cookie picks an upstream
block of one node; a client without one gets a node in turn, and its cookie. It does
less than `sticky` (no node state is asked), so it is a hard peer to beat.
"""

from __future__ import annotations

from ..cases import Persistence, Task
from .base import Peer, Place, present, program, version_of

_CONFIGURATION = """\
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr crit;
worker_processes {workers};
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
{upstreams}
    server {{
        listen 127.0.0.1:{port} backlog=16384 {listen};
        location / {{
{location}
        }}
    }}
}}
"""
# nginx closes kept connections when a sixteenth of worker_connections is left, hence the
# ninth eighth in `prepare`.
# Without these a body that outruns the client is written to a file.
_LARGE = "proxy_max_temp_file_size 0; proxy_buffers 8 64k; proxy_buffer_size 16k;"


def _upstream(name: str, first_line: str, ports: tuple[int, ...]) -> str:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
    kept = "keepalive 256; keepalive_requests 1000000000; keepalive_timeout 300s;"
    return f"    upstream {name} {{ {first_line} {servers} {kept} }}"


class Nginx(Peer):
    name = "nginx"
    has_sticky = False

    def binary(self) -> str | None:
        return program("nginx")

    def version(self) -> str | None:
        binary = self.binary()
        return version_of([binary, "-v"], r"nginx/(\d[\w.]*)") if binary else None

    def refuses(self, task: Task) -> str | None:
        if task.persistence is Persistence.TABLE and not self.has_sticky:
            return "no `sticky learn` in this version"
        return None

    def _persistence(self, task: Task, ports: tuple[int, ...]) -> tuple[str, str]:
        """The upstream blocks and the body of the location."""
        location = "            proxy_pass http://nodes;"
        if task.persistence is Persistence.SOURCE:
            return _upstream("nodes", "hash $remote_addr consistent;", ports), location
        if task.persistence is Persistence.TABLE:
            learn = "sticky learn create=$remote_addr lookup=$remote_addr"
            zone = f"zone=sessions:{max(1, task.sessions_max // 4096)}m timeout=30m;"
            return _upstream("nodes", f"{learn} {zone}", ports), location
        if self.has_sticky:
            return _upstream("nodes", "sticky cookie srv path=/ httponly;", ports), location
        return self._cookie_by_maps(ports)

    def _cookie_by_maps(self, ports: tuple[int, ...]) -> tuple[str, str]:
        blocks = [_upstream("nodes", "", ports)]
        blocks += [_upstream(f"n{i}", "", (port,)) for i, port in enumerate(ports)]
        chosen = " ".join(f"n{i} n{i};" for i in range(len(ports)))
        owner = " ".join(f'"127.0.0.1:{port}" n{i};' for i, port in enumerate(ports))
        blocks.append(f"    map $cookie_srv $pool {{ default nodes; {chosen} }}")
        blocks.append(f"    map $upstream_addr $owner {{ {owner} }}")
        blocks.append(
            '    map $cookie_srv $fresh { default ""; "" "srv=$owner; Path=/; HttpOnly"; }'
        )
        location = "            add_header Set-Cookie $fresh;\n            proxy_pass http://$pool;"
        return "\n".join(blocks), location

    def prepare(self, task: Task, place: Place) -> list[str]:
        upstreams, location = self._persistence(task, place.node_ports)
        path = place.directory / "nginx.conf"
        path.write_text(
            _CONFIGURATION.format(
                directory=place.directory,
                workers=task.workers,
                connections=task.connections_max * 9 // 8 + 256,
                large=_LARGE if task.body_bytes >= 65536 else "",
                upstreams=upstreams,
                port=place.port,
                listen="reuseport" if task.workers > 1 else "",
                location=location,
            )
        )
        command = [present(self.binary(), self.name), "-p", str(place.directory), "-c", str(path)]
        return [*command, "-e", "stderr"]
