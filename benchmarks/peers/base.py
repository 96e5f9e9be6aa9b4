"""What a peer must know: whether it is here, what it can do, how it is configured."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ..cases import Task


@dataclass(frozen=True)
class Place:
    """Where one run of a proxy happens."""

    directory: Path  # its own, empty
    programs: Path  # the compiled programs of this package
    port: int
    node_ports: tuple[int, ...]


def present(binary: str | None, name: str) -> str:
    """The binary; it may have gone since the peers were listed, and nothing stands in for it."""
    if binary is None:
        raise FileNotFoundError(f"the program of {name} is gone")
    return binary


class Peer(ABC):
    name: str

    @abstractmethod
    def version(self) -> str | None:
        """As it says itself; None when it is not installed."""

    def refuses(self, task: Task) -> str | None:
        """Why it cannot do this task, in words, or None."""
        return None

    @abstractmethod
    def prepare(self, task: Task, place: Place) -> list[str]:
        """Writes its configuration; returns the command that runs it in the foreground."""


def program(name: str) -> str | None:
    """A system program, also where /usr/sbin is not on the path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def packaged_program(package: str, pattern: str) -> str | None:
    """A program inside a package of this Python environment, without its Python launcher."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in Path(spec.origin).parent.glob(pattern)), None)


def built_program(path: str) -> str | None:
    """A program that `ci/install-bench-peers --newer` built."""
    whole = Path(__file__).parents[2] / "build/peers" / path
    return str(whole) if whole.exists() else None


def version_of(command: list[str], pattern: str) -> str | None:
    """The first group of `pattern` in what the command prints."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, result.stdout + result.stderr)
    return found[1] if found else None
