"""`fastlb run` with fake workers, as a process under test."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("fake_fastlb.py")
TIMEOUT_S = 10.0


def free_port() -> int:
    """Below the range that the kernel gives to clients, so that nobody takes it meanwhile."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(true: Callable[[], Any], what: str) -> Any:
    """What `true` returns once it is true."""
    end = time.monotonic() + TIMEOUT_S
    while not (found := true()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)
    return found


def fastlb(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        env=environment,
        check=False,
        **more,
    )


class Running:
    """A control process and its workers; `lines` is what it wrote to standard error."""

    def __init__(self, directory: Path, text: str, fake: str = "", **proxy: object) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.file = directory / "fastlb.toml"
        self.err = directory / "stderr"
        self.port = free_port()
        self.proxy = {"workers": 2, "state_dir": str(self.state_dir), "access_log": "off", **proxy}
        self.fake = fake
        self.program = PROGRAM
        self.pids: set[int] = set()
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(text)

    def configure(self, text: str, **proxy: object) -> None:
        """Writes the configuration; `{port}` in it is a free port."""
        values = {**self.proxy, **proxy}
        head = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.file.write_text(f"[proxy]\n{head}{text.replace('{port}', str(self.port))}")

    def start(self) -> "Running":
        before = self.ready_count()
        self.spawn()
        until(lambda: self.ready_count() > before or self.ended(), "the ready line")
        assert not self.ended(), self.text()
        return self

    def spawn(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_WORKER": self.fake}
        with open(self.err, "ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(self.program), "run", "-c", str(self.file)],
                stdout=subprocess.DEVNULL,
                stderr=err,
                env=environment,
            )

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(TIMEOUT_S)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def text(self) -> str:
        return self.err.read_text() if self.err.exists() else ""

    def lines(self, part: str) -> list[str]:
        return [line for line in self.text().splitlines() if part in line]

    def ready_count(self) -> int:
        return len([line for line in self.text().splitlines() if line.startswith("fastlb: ready")])

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return fastlb(*arguments, "-c", str(self.file))

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        self.pids |= {worker["pid"] for worker in found["workers"]}
        return found

    def ask(self, address: int | str | None = None) -> dict[str, Any]:
        """What the fake worker that accepts says of itself."""
        if isinstance(address, str):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(TIMEOUT_S)
            client.connect(address)
        else:
            client = socket.create_connection(("127.0.0.1", address or self.port), TIMEOUT_S)
        with client, client.makefile("rb") as answer:
            told: dict[str, Any] = json.loads(answer.read())
            return told

    def ask_all(self, count: int = 40) -> dict[int, dict[str, Any]]:
        """The last answer of each worker, by index."""
        answers = [self.ask() for _ in range(count)]
        return {answer["index"]: answer for answer in answers}

    def end(self) -> None:
        """Ends what still runs, the control process and the workers that were seen."""
        if self.process is not None and not self.ended():
            self.signal(signal.SIGQUIT)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
