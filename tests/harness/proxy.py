"""fastlb as a process under test: started from a configuration, asked, reloaded, stopped.

    with proxy(sticky(a, b)) as p:
        ...

The tear-down is a test by itself: SIGTERM must lead to exit code 0, stderr must be free of
assertions, tracebacks and sanitizer reports, and in a debug build every worker must have given
back every object, buffer and descriptor.
"""

import contextlib
import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastlb

from .client import Client, User
from .forked import Forked, Server
from .settings import Config, copy_of, toml
from .wait import TIMEOUT, until
from .wire import Message

READY = "fastlb: ready"
OBJECTS = "fastlb: objects "
TROUBLE = re.compile(  # the traceback of a rule's failure has the rule's name before it
    r"BUG at|^Traceback \(most recent|AddressSanitizer|LeakSanitizer|runtime error:"
    r"|Exception ignored|Segmentation fault",
    re.MULTILINE,
)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing is bound to, below the range that the kernel gives to clients: so no
    other test's connection can take it before the proxy has bound it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(1000):
        port = random.randrange(10000, 32000)
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port in 1000 attempts")


def environment() -> dict[str, str]:
    """For a fastlb of the same build as the one that the tests import."""
    paths = [str(Path(fastlb.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@functools.cache
def _server() -> Server:
    return Server(environment())


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`fastlb …` to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _server().start(arguments, out.fileno(), err.fileno(), cwd, environment())
        try:
            code = process.wait(3 * TIMEOUT)
        except BaseException:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["fastlb", *arguments], code, *texts)


def check(text: str) -> subprocess.CompletedProcess[str]:
    """`fastlb check` of a configuration given as text."""
    with tempfile.TemporaryDirectory(prefix="fastlb-test-") as folder:
        file = Path(folder, "fastlb.toml")
        file.write_text(text)
        return command("check", "-c", str(file))


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def debug_build() -> bool:
    from fastlb._core import build

    return bool(build.DEBUG)


class Proxy:
    """A running fastlb. Addresses, status and signals by the configuration's own names."""

    def __init__(self, config: Config | str, folder: Path):
        self.folder = folder
        self.file = folder / "fastlb.toml"
        self.log_file = folder / "access.log"
        self.listens: dict[tuple[str, int], str] = {}  # (virtual server, index) → real listen
        self.config = self._place(config)
        self.file.write_text(toml(self.config))
        self.workers = int(self.config["proxy"]["workers"])  # a reload does not change it
        self.process: Forked | None = None
        self.workers = 0  # as started: a reload does not change it
        self.rules_hold = 0  # descriptors that its rules may have open at a worker's end

    # --- life ---

    def arguments(self) -> list[str]:
        return ["run", "-c", str(self.file)]

    def start(self) -> None:
        """Start and wait for the ready line."""
        self.workers = int(self.config["proxy"]["workers"])
        with open(self.folder / "stderr", "ab") as err, open(self.folder / "stdout", "ab") as out:
            self.process = _server().start(
                self.arguments(), out.fileno(), err.fileno(), self.folder, environment()
            )
        readies = self._ready_count() + 1
        until(lambda: self._ready_count() >= readies or self._ended(), "the ready line")
        assert not self._ended(), f"the proxy ended with {self._ended()}:\n{self.stderr()}"

    def stop(self) -> None:
        """SIGTERM, and all that must be true afterwards."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(TIMEOUT + 5)
        err = self.stderr()
        assert code == 0, f"exit code {code} after SIGTERM:\n{err}"
        assert not TROUBLE.search(err), f"trouble in stderr:\n{err}"
        if debug_build():
            self._demand_no_leak(err, self.workers)

    def kill(self) -> None:
        """Ends the control process and its workers, which would outlive it."""
        if self.process is not None and self.process.poll() is None:
            workers = children(self.process.pid)
            self.process.kill()
            self.process.wait(TIMEOUT)
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def reload(self, config: Config) -> subprocess.CompletedProcess[str]:
        """A new configuration in place; the ports stay those of the start."""
        placed = self._place(config)
        self.file.write_text(toml(placed))
        done = command("reload", "-c", str(self.file))
        if done.returncode == 0:
            self.config = placed
        return done

    # --- what the tests ask ---

    def address(self, server: str = "shop", index: int = 0) -> tuple[str, int]:
        host, _, port = self.listens[server, index].rpartition(":")
        return host.strip("[]"), int(port)

    def client(self, source: str | None = None, server: str = "shop", **more: Any) -> Client:
        return Client(self.address(server), source, **more)

    def user(self, name: str, source: str | None = None, server: str = "shop") -> User:
        return User(self.address(server), name, source)

    def get(
        self, target: str = "/", *fields: tuple[str, str], source: str | None = None,
        server: str = "shop",
    ) -> Message:  # fmt: skip
        """One request on a connection of its own."""
        with self.client(source, server) as client:
            return client.ask(target, *fields)

    def status(self) -> dict[str, Any]:
        done = command("status", "--json", "-c", str(self.file))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def kill_worker(self, index: int) -> int:
        """SIGKILL to a worker; returns the pid that it had."""
        pid = self.worker_pids()[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_worker_replaced(self, gone: int) -> list[int]:
        def look() -> list[int]:
            pids = self.worker_pids()
            return pids if gone not in pids and len(pids) == self.workers else []

        return until(look, f"a replacement of worker {gone}")

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log so far; a line that is still being written is left for later."""
        if not self.log_file.exists():
            return []
        lines = self.log_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def log(self, count: int) -> list[dict[str, Any]]:
        """The access log once it has at least `count` lines."""
        until(lambda: len(self.log_lines()) >= count, f"{count} lines in the access log")
        return self.log_lines()

    def log_of(self, target: str) -> dict[str, Any]:
        """The line of the only request for `target`, once it is written."""

        def look() -> list[dict[str, Any]]:
            return [line for line in self.log_lines() if line.get("target") == target]

        (line,) = until(look, f"a line for {target} in the access log")
        return line

    def outcomes(self, count: int) -> list[str]:
        return [line["outcome"] for line in self.log(count)]

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def resident_kib(self) -> int:
        """Private resident memory of all workers (the shared segment is not theirs)."""
        total = 0
        for pid in self.worker_pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
        return total

    # --- insides ---

    def _ended(self) -> str | None:
        assert self.process is not None
        code = self.process.poll()
        return None if code is None else f"exit code {code}"

    def _ready_count(self) -> int:
        return sum(line.startswith(READY) for line in self.stderr().splitlines())

    def _demand_no_leak(self, err: str, workers: int) -> None:
        reports = [line for line in err.splitlines() if line.startswith(OBJECTS)]
        assert len(reports) >= workers, f"{len(reports)} of {workers} leak reports:\n{err}"
        for report in reports:
            counts = dict(pair.split("=") for pair in report.removeprefix(OBJECTS).split())
            held = {"descriptors": self.rules_hold}
            left = {kind: n for kind, n in counts.items() if not 0 <= int(n) <= held.get(kind, 0)}
            assert not left, f"leaked: {left}\n{err}"

    def _place(self, config: Config | str) -> Config:
        """The configuration with its folder, log and ports filled in."""
        new = tomllib.loads(config) if isinstance(config, str) else copy_of(config)
        settings = new.setdefault("proxy", {})
        settings.setdefault("workers", 1)
        settings.setdefault("state_dir", str(self.folder / "state"))
        settings.setdefault("access_log", str(self.log_file))
        for name, server in new["virtual_servers"].items():
            server["listen"] = [
                self._listen(name, index, listen) for index, listen in enumerate(server["listen"])
            ]
        return new

    def _free_listen(self, host: str) -> str:
        """One that no other virtual server has been given."""
        while True:
            listen = f"{host}:{free_port(host.strip('[]'))}"
            if listen not in self.listens.values():
                return listen

    def _listen(self, server: str, index: int, listen: str) -> str:
        if listen.endswith(":0"):
            host = listen[:-2]
            if (server, index) not in self.listens:
                self.listens[server, index] = self._free_listen(host)
        else:
            self.listens[server, index] = listen
        return self.listens[server, index]


@contextlib.contextmanager
def proxy(config: Config | str, kind: type[Proxy] | None = None) -> Iterator[Proxy]:
    """A proxy for the length of a with statement; stopped and examined at its end.

    FASTLB_TEST_PROXY=haproxy, or =none, runs the same story without fastlb, to judge the story
    (see reference.py); a story that needs what only fastlb has fails there.
    """
    if kind is None:
        from .reference import KINDS

        kind = KINDS[os.environ.get("FASTLB_TEST_PROXY", "fastlb")]
    with tempfile.TemporaryDirectory(prefix="fastlb-test-") as folder:
        running = kind(config, Path(folder))
        try:
            running.start()
            yield running
            running.stop()
        except BaseException as error:
            running.kill()
            if (running.folder / "stderr").exists():
                error.add_note(f"stderr of the proxy:\n{running.stderr()[-4000:]}")
            raise
