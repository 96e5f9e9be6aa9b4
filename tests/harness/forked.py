"""fastlb as a forked process: what it is made of is imported once, not by every one of thousands.

A server (this file, run as a program) has imported fastlb; for each request it forks, and the
child does what `python -m fastlb` does. It is a child of the server, which says how it ended.
One server serves one process of the tests. What differs from a process of its own, the start
of Python, is in tests/proxy/test_52_command_line.py, test_62_demo.py and tests/test_packaging.py.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REQUEST_BYTES_MAX = 1 << 17


class Forked:
    """Such a process; the words are Popen's."""

    def __init__(self, server: "Server", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"fastlb, process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        with self._server.lock:  # two threads may ask about one process
            if self.returncode is not None:
                return self.returncode
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            return None
        with self._server.lock:
            if self.returncode is None:
                self.returncode = self._server.ask({"ended": self.pid})
                os.close(self._pidfd)
            return self.returncode


class Server:
    """The server of this process, as its client sees it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.lock = threading.RLock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment,
            )  # fmt: skip
        atexit.register(self.end)

    def end(self) -> None:
        self._socket.close()
        self._process.wait()

    def start(
        self, arguments: Sequence[str], stdout: int, stderr: int, cwd: Path | None,
        environment: dict[str, str],
    ) -> Forked:  # fmt: skip
        """`fastlb` with these arguments."""
        request = {"run": list(arguments), "cwd": str(cwd or Path.cwd()), "env": environment}
        with self.lock:
            return Forked(self, self.ask(request, [stdout, stderr]))

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        with self.lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer = self._socket.recv(100)
        assert answer, "the server of forked processes has ended"
        return int(answer)


def serve(ours: socket.socket) -> None:
    """Answers requests until the client closes its end."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(ours, REQUEST_BYTES_MAX, 2)
        if not data:
            return
        request = json.loads(data)
        if "ended" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["ended"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                ours.close()
                become(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        ours.send(str(answer).encode())


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Does not return: this process is `fastlb`."""
    from fastlb.cli import main

    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["fastlb", *request["run"]]
    sys.exit(main())


def imported() -> None:
    """All that a process may need later, so that it is there after a fork."""
    import fastlb.cli
    import fastlb.control
    import fastlb.tls_files  # noqa: F401


if __name__ == "__main__":
    imported()
    serve(socket.socket(fileno=int(sys.argv[1])))
