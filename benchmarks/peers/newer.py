"""Later HAProxy and nginx, built with -O2 from the sources of later Debian releases."""

from __future__ import annotations

from .base import built_program
from .haproxy import HAProxy
from .nginx import Nginx


class NewerHAProxy(HAProxy):
    name = "haproxy-newer"

    def binary(self) -> str | None:
        return built_program("haproxy/haproxy")


class NewerNginx(Nginx):
    name = "nginx-newer"
    has_sticky = True

    def binary(self) -> str | None:
        return built_program("nginx/objs/nginx")
