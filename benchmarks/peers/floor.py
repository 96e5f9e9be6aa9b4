"""The program that only moves the bytes; see floor.c."""

from __future__ import annotations

from ..cases import Persistence, Task
from .base import Peer, Place


class Floor(Peer):
    name = "floor"

    def version(self) -> str | None:
        return "this directory's floor.c, -O2"

    def refuses(self, task: Task) -> str | None:
        return "remembers nothing" if task.persistence is Persistence.TABLE else None

    def prepare(self, task: Task, place: Place) -> list[str]:
        ports = ",".join(map(str, place.node_ports))
        command = [str(place.programs / "floor"), "-l", str(place.port), "-p", ports]
        command += ["-w", str(task.workers), "-b", str(task.body_bytes)]
        return [*command, "-c"] if task.new_connections else command
