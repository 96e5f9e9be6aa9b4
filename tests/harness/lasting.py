"""A fastlb whose control process comes and goes, and clients that must not notice.

The control process is a process of its own, since it executes itself at an upgrade. `program` is a
directory that has the package `fastlb`; it is a link, so that another version can take its place.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fastlb

from .client import Client
from .node import Exchange
from .proxy import Proxy, environment, proxy
from .settings import Config
from .wait import TIMEOUT, until

MARK = "FASTLB_TEST_FOLDER"
PACKAGE = Path(fastlb.__file__).parent


def version_of(folder: Path, version: str, **changes: tuple[str, str]) -> Path:
    """A directory with a fastlb of another version; `changes`: of modules, (before, after)."""
    folder.mkdir()
    shutil.copytree(
        PACKAGE,
        folder / "fastlb",
        copy_function=lambda source, target: os.symlink(source, target),
        ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.pxd", "*.h"),
    )
    edits = {"__init__": (f'__version__ = "{fastlb.__version__}"', f'__version__ = "{version}"')}
    for module, (before, after) in {**edits, **changes}.items():
        file = folder / "fastlb" / f"{module}.py"
        text = file.read_text()
        assert before in text
        file.unlink()
        file.write_text(text.replace(before, after, 1))
    return folder


class Lasting(Proxy):
    """Started as a service manager would."""

    def __init__(self, config: Config | str, folder: Path) -> None:
        super().__init__(config, folder)
        self.program = folder / "program"
        self.program.symlink_to(PACKAGE.parent)
        self.more: dict[str, str] = {}  # environment
        (folder / "stderr").touch()

    def install(self, version: Path) -> None:
        """From now on this is the program that is there."""
        new = self.folder / "new"
        new.symlink_to(version)
        new.replace(self.program)

    def _environment(self) -> dict[str, str]:
        found = environment()
        paths = [str(self.program), found["PYTHONPATH"]]
        more = {"PYTHONPATH": os.pathsep.join(paths), MARK: str(self.folder)}
        return {**found, **more, **self.more}

    def spawn(self) -> None:
        """Only starts it."""
        with open(self.folder / "stderr", "ab") as err:
            self.process = subprocess.Popen(  # type: ignore[assignment]
                [sys.executable, "-m", "fastlb", *self.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                cwd=self.folder,
                env=self._environment(),
            )

    def start(self) -> None:
        self.workers = int(self.config["proxy"]["workers"])
        readies = self._ready_count() + 1
        self.spawn()
        until(lambda: self._ready_count() >= readies or self._ended(), "the ready line")
        assert not self._ended(), f"the proxy ended with {self._ended()}:\n{self.stderr()}"

    def crash(self) -> None:
        """The control process dies, at any instruction."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """Ends everything of this folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        super().stop()
        left = self.processes()
        self.kill()
        assert left == [], "processes outlive a stop"

    def processes(self) -> list[int]:
        """All that run of it."""
        mark, found = f"{MARK}={self.folder}\0".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One of the installed version; run with its configuration."""
        return subprocess.run(
            [sys.executable, "-m", "fastlb", *arguments, "-c", str(self.file)],
            capture_output=True, text=True, timeout=6 * TIMEOUT, env=self._environment(),
            cwd=self.folder, check=False,
        )  # fmt: skip

    def upgrade(self) -> dict[str, Any]:
        done = self.command("upgrade", "--json")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def orphans(self) -> list[int]:
        """Pids that `status` names while nobody controls them."""
        done = self.command("status")
        assert done.returncode == 1
        assert "FLB-S139" in done.stderr, done.stderr
        found = re.search(r"workers ([\d, ]+) serve on", done.stderr)
        assert found is not None
        return [int(pid) for pid in found[1].split(", ")]

    def left(self) -> None:
        """Waits until no worker leaves any more."""
        until(lambda: self.status()["leaving"] == [], "the end of workers that leave")


class Impatient(Lasting):
    """Of a version that waits a second for workers, so that a story is short."""

    def start(self) -> None:
        if not (self.folder / "impatient").exists():
            short = {
                "worker_process": ("SILENT_S = 5.0", "SILENT_S = 1.0"),
                "adopt": ("ANSWER_S = 5.0", "ANSWER_S = 1.0"),
                "commands_running": ("EXTRA_STOP_S = 15", "EXTRA_STOP_S = 1"),
            }
            self.install(version_of(self.folder / "impatient", "9.9.9", **short))
        super().start()


@contextmanager
def lasting(config: Config | str) -> Iterator[Lasting]:
    with proxy(config, Lasting) as running:
        assert isinstance(running, Lasting)
        yield running


class Load:
    """Clients that ask all the time: some on connections that they keep, some on new ones."""

    def __init__(self, running: Proxy, kept: int = 4, new: int = 2) -> None:
        self.running = running
        self.failures: list[str] = []
        self.served = 0
        self.nodes: dict[str, set[str]] = {}  # of each source
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number, number < kept), daemon=True)
            for number in range(kept + new)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def more(self, count: int = 50) -> None:
        """Waits until so many more requests were answered."""
        goal = self.served + count
        until(lambda: self.served >= goal or self.failures, f"{count} more requests")

    def _ask(self, number: int, keeps: bool) -> None:
        source = f"127.0.70.{number + 1}"
        client: Client | None = None
        try:
            while not self._stop.is_set():
                client = client or self.running.client(source)
                answer = client.ask(f"/{number}")
                if answer.status != 200:
                    raise AssertionError(f"status {answer.status}")
                self.nodes.setdefault(source, set()).add(str(answer.node))
                self.served += 1
                if not keeps or answer.get("Connection") == b"close":
                    client.sock.close()
                    client = None
        except Exception as error:
            self.failures.append(f"client {number}: {error!r}")
        finally:
            if client is not None:
                client.sock.close()


def echo(exchange: Exchange) -> None:
    """A node's side of an upgraded connection."""
    exchange.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    while data := exchange.connection.reader.sock.recv(100):
        exchange.send(data)
    exchange.close()


class Tunnel:
    """An upgraded connection, like a WebSocket's."""

    def __init__(self, running: Proxy, target: str = "/echo") -> None:
        self.client = running.client()
        answer = self.client.ask(target, ("Connection", "upgrade"), ("Upgrade", "echo"))
        assert answer.status == 101
        self.count = 0

    def says(self) -> None:
        """A word goes there and back."""
        self.count += 1
        word = b"%08d" % self.count
        self.client.send(word)
        assert self.client.reader.exactly(8) == word

    def __enter__(self) -> "Tunnel":
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.sock.close()
