"""No proxy at all: the generator asks a node. Latency is counted from here."""

from __future__ import annotations

from ..cases import Task
from .base import Peer, Place


class Direct(Peer):
    name = "direct"

    def version(self) -> str | None:
        return "no proxy"

    def prepare(self, task: Task, place: Place) -> list[str]:
        return []
