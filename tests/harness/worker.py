"""One worker process with the test as its control process.

    with worker(settings(node)) as w:
        w.ask("/")

The test owns the channel, the segment and the listening sockets, so it can send what a control
process never would. Listening addresses are written as settings.ANY_PORT and get real ports.
The tear-down asks for an orderly end and reads the report of objects that a debug build prints.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastlb import channel
from fastlb._core.node import open_slot
from fastlb._core.stats import read_node, read_virtual_server, read_worker
from fastlb.channel import Entry, Kind, Message
from fastlb.check import check_text
from fastlb.config import Config as CheckedConfig
from fastlb.plan import compile_plan, seal
from fastlb.plan_class import Place
from fastlb.segment import SharedSegment
from fastlb.slots import Slots, listener_keys
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_files import load_tls

from .client import Client
from .proxy import OBJECTS, TROUBLE, debug_build, environment
from .settings import ANY_PORT, Config, copy_of, toml
from .wait import TIMEOUT, until
from .wire import Message as HttpMessage

KEYS = [bytes([number]) * 16 for number in range(4)]


def listen(address: tuple[str, int] | str = ("127.0.0.1", 0)) -> socket.socket:
    """A listening socket as the control process makes them."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    one.bind(address)
    one.listen(512)
    return one


class WorkerProcess:
    """A worker under test."""

    def __init__(self, folder: Path, log: int = -1):
        self.folder = folder
        self.log = log
        self.generation = 0
        self.slots = Slots()
        self.ticket_keys = TicketKeys()
        self.shared = SharedSegment(1)
        self.sockets: dict[str, socket.socket] = {}  # by the configuration's word for it
        self.given: set[int] = set()  # listener ids that the worker has
        self.channel, self._theirs = channel.socket_pair()
        self.adoption = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.adoption.setblocking(False)
        self.adoption.bind(str(folder / "adoption"))
        self.adoption.listen()
        self.process: subprocess.Popen[bytes] | None = None

    # --- life ---

    def start(self) -> None:
        fds = [self.shared.fd, self._theirs.fileno(), self.adoption.fileno()]
        arguments = [0, *fds[:2], self.log, 0, fds[2]]
        fds += [self.log] if self.log >= 0 else []
        with open(self.folder / "stderr", "ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastlb.worker_main", *map(str, arguments)],
                stderr=err, stdin=subprocess.DEVNULL, pass_fds=fds, env=environment(),
            )  # fmt: skip
        self._theirs.close()

    def asked_for(self) -> socket.socket:
        """A connection as a new control process makes it."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.settimeout(TIMEOUT)
        one.connect(str(self.folder / "adoption"))
        return one

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """What happens inside reaches the worker all at once, when it goes on."""
        self.signal(signal.SIGSTOP)
        until(lambda: " T " in Path(f"/proc/{self.pid}/stat").read_text(), "the worker stopped")
        yield
        self.signal(signal.SIGCONT)

    def wait_end(self) -> int:
        assert self.process is not None
        return self.process.wait(TIMEOUT)

    def stop(self, drain_ms: int = 0) -> None:
        """STOP, and all that must be true afterwards."""
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(OSError):  # closed by the test: then a signal
                channel.send(self.channel, Message(Kind.STOP, 0, drain_ms))
            if self.channel.fileno() < 0:
                self.signal(signal.SIGQUIT)
        code, err = self.wait_end(), self.stderr()
        assert code == 0, f"exit code {code}:\n{err}"
        assert not TROUBLE.search(err), f"trouble in stderr:\n{err}"
        if debug_build():
            (report,) = [line for line in err.splitlines() if line.startswith(OBJECTS)]
            pairs = (pair.split("=") for pair in report.removeprefix(OBJECTS).split())
            left = {kind: count for kind, count in pairs if int(count) != 0}
            assert not left, f"leaked: {left}\n{err}"

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        for one in self.sockets.values():
            one.close()
        self.channel.close()
        self._theirs.close()
        self.adoption.close()
        self.shared.close()

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    # --- plans ---

    def blob(self, config: Config) -> bytes:
        """The next generation's plan of a configuration, and all that it needs made ready."""
        self.generation += 1
        cfg = self._checked(config)
        taken = self.slots.take(cfg)
        self.shared.adopt(self.shared.prepare(cfg))
        table = self.shared.address(self.shared.node_table)
        for key in taken.nodes:
            open_slot(table, self.slots.nodes.used[key], "up")
        stores = self.shared.stores
        place = Place(
            self.slots, self.shared.node_table, self.shared.epoch_ms,
            {name: store.place for name, store in stores.caches.items()},
            {name: store.place for name, store in stores.reservations.items()},
        )  # fmt: skip
        self.keys = listener_keys(cfg)
        return compile_plan(
            cfg, place, keys=KEYS, generation=self.generation, workers=1, tls=load_tls(cfg),
            ticket_keys=self.ticket_keys.keys,
        )  # fmt: skip

    def send_plan(self, config: Config) -> None:
        blob = self.blob(config)
        numbers = {self.slots.listeners.used[key]: key for key in self.keys}
        entries = [
            (Entry(number, 0), self.sockets[str(key.address)].fileno())
            for number, key in numbers.items()
            if number not in self.given
        ]
        self.given = set(numbers)
        self.send_blob(blob, entries)

    def send_blob(self, blob: bytes, entries: list[tuple[Entry, int]]) -> None:
        fd = seal(blob, self.generation)
        channel.send_plan(self.channel, self.generation, fd, entries)
        os.close(fd)

    def use(self, config: Config) -> None:
        """The plan in force."""
        self.send_plan(config)
        assert self.hear() == (Kind.ACK, 0, self.generation)

    def hear(self) -> Message | None:
        """The worker's next message but those that say that old plans are released."""
        while True:
            message = self.hear_any()
            if message is None or message.kind != Kind.RELEASED:
                return message

    def hear_any(self) -> Message | None:
        assert select.select([self.channel], [], [], TIMEOUT)[0], "the worker says nothing"
        return channel.receive(self.channel)

    def silent(self) -> bool:
        """Whether the worker has said nothing but RELEASED so far."""
        while select.select([self.channel], [], [], 0)[0]:
            message = channel.receive(self.channel)
            if message is None or message.kind != Kind.RELEASED:
                return False
        return True

    def _checked(self, config: Config) -> CheckedConfig:
        new = copy_of(config)
        for name, server in new["virtual_servers"].items():
            server["listen"] = [
                self._place(f"{name}{index}", word) for index, word in enumerate(server["listen"])
            ]
        checked = check_text(toml(new), self.folder / "fastlb.toml")
        assert checked.config is not None, checked.errors
        return checked.config

    def _place(self, name: str, word: str) -> str:
        """The same socket for the same place in every plan."""
        if name not in self.sockets:
            if word == ANY_PORT:
                self.sockets[name] = listen()
            else:
                self.sockets[name] = listen(word.removeprefix("unix:"))
        at = self.sockets[name].getsockname()
        word = f"unix:{at}" if isinstance(at, str) else f"{at[0]}:{at[1]}"
        self.sockets[word] = self.sockets[name]
        return word

    # --- what the tests ask ---

    def address(self, server: str = "shop", index: int = 0) -> Any:
        return self.sockets[f"{server}{index}"].getsockname()

    def client(self, server: str = "shop", **more: Any) -> Client:
        return Client(self.address(server), **more)

    def ask(self, target: str = "/", *fields: tuple[str, str]) -> HttpMessage:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(target, *fields)

    @property
    def stats(self) -> dict[str, Any]:
        return read_worker(self.shared.address(self.shared.counters[0]))

    @property
    def objects(self) -> dict[str, int]:
        return self.stats["objects"]

    def node_stats(self, slot: int = 0) -> dict[str, int]:
        return read_node(self.shared.address(self.shared.counters[0]), slot)

    def server_stats(self, slot: int = 0) -> dict[str, Any]:
        return read_virtual_server(self.shared.address(self.shared.counters[0]), slot)

    def wait_objects(self, **wanted: int) -> None:
        def look() -> bool:
            objects = self.objects
            return all(objects[kind] == count for kind, count in wanted.items())

        try:
            until(look, f"objects {wanted}")
        except AssertionError as error:
            error.add_note(f"objects: {self.objects}")
            raise

    def wait_turn(self) -> None:
        """What has happened before is dealt with: the loop has turned twice since."""
        turns = self.stats["turns"]
        with socket.create_connection(self.address(), TIMEOUT), self.client() as client:
            client.send(b"-\r\n\r\n")
            client.response()
        until(lambda: self.stats["turns"] > turns + 1, "two turns of the loop")

    def plans_mapped(self) -> int:
        return Path(f"/proc/{self.pid}/maps").read_text().count("fastlb-plan-")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """The process has all that it may have."""
    most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest_free = min(set(range(len(used) + 1)) - used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, most[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, most)


@contextlib.contextmanager
def worker(config: Config | None, log: int = -1) -> Iterator[WorkerProcess]:
    """A worker for the length of a with statement; without a configuration it waits for one."""
    with tempfile.TemporaryDirectory(prefix="fastlb-test-") as folder:
        running = WorkerProcess(Path(folder), log)
        try:
            running.start()
            if config is not None:
                running.use(config)
            yield running
            running.stop()
        except BaseException as error:
            if (running.folder / "stderr").exists():
                error.add_note(f"stderr of the worker:\n{running.stderr()[-4000:]}")
            raise
        finally:
            running.close()
