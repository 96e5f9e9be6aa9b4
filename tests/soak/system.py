"""The proxy and its nodes, as processes: started, asked, told, ended."""

import asyncio
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastlb.control_socket import ask
from tests.harness.certificates import Authority
from tests.harness.proxy import children, environment, free_port

from . import configuration
from .configuration import HOST, KINDS

HERE = Path(__file__).parent
NODES = 4  # and one more, which is added at times
WORKERS = 2
START_S = 30.0


class Node:
    def __init__(self, name: str, host: str, port: int) -> None:
        self.name, self.host, self.port = name, host, port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        words = [sys.executable, str(HERE / "node.py"), self.name, self.host, str(self.port)]
        self.process = subprocess.Popen(words)
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self.host, self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class System:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = _clock_library(folder)
        self.offset = _mapped(folder / "clock") if self.clock is not None else None
        every = [Node(f"n{i}", f"127.2.0.{i + 1}", free_port()) for i in range(NODES + 1)]
        self.nodes, self.spare = every[:NODES], every[NODES]
        self.ports = {kind: free_port() for kind in KINDS}
        self.authority = Authority(folder)
        self.pair = self.authority.certificate(HOST)
        self.workers = WORKERS
        self.turn = 0
        self.alone = asyncio.Lock()  # of who replaces the control process, and of who commands it
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        return self.folder / "access.log"

    @property
    def control(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def write(self) -> None:
        """Another configuration than the one before."""
        self.turn += 1
        nodes = [node.address for node in self.nodes]
        configuration.write(
            self.folder, self.turn, self.workers, self.ports, nodes, self.pair
        )  # fmt: skip

    async def start(self) -> None:
        """The control process, which takes over the workers that there are."""
        env = environment()
        readies = self.stderr().count("fastlb: ready")
        if self.clock is not None:
            before = env.get("LD_PRELOAD")
            env["LD_PRELOAD"] = f"{before} {self.clock}" if before else str(self.clock)
            env["SOAK_CLOCK"] = str(self.folder / "clock")
        with (self.folder / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastlb", "run", "-c", str(self.folder / "fastlb.toml")],
                stderr=err, stdout=err, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while self.stderr().count("fastlb: ready") <= readies:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"fastlb does not start:\n{self.stderr()}")
            await asyncio.sleep(0.05)

    def end(self) -> None:
        """Whatever is left."""
        if self.process is not None and self.process.poll() is None:
            workers = children(self.process.pid)
            self.process.kill()
            self.process.wait()
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for node in (*self.nodes, self.spare):
            node.kill()

    def stderr(self) -> str:
        file = self.folder / "stderr"
        return file.read_text() if file.exists() else ""

    async def command(self, name: str, **values: Any) -> dict[str, Any]:
        """Once nobody else commands: the control process may be away just now."""
        async with self.alone:
            return await self.ask(name, **values)

    async def ask(self, name: str, **values: Any) -> dict[str, Any]:
        """By whoever has `alone`."""
        return await asyncio.to_thread(ask, self.folder / "state", name, **values)

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.command("status"))["status"]
        return found

    def set_clock(self, seconds: int) -> None:
        """The wall clock of the proxy, against the machine's."""
        if self.offset is not None:
            struct.pack_into("<q", self.offset, 0, seconds)


def _clock_library(folder: Path) -> Path | None:
    """The preloaded clock, compiled; None where no compiler is."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock.c")]
    subprocess.run(command, check=True)
    return library


def _mapped(place: Path) -> mmap.mmap:
    place.write_bytes(bytes(8))
    with place.open("r+b") as file:
        return mmap.mmap(file.fileno(), 8)
