"""Workers from start to stop under valgrind's memcheck.

Python itself is not clean there, nor is what looks for ticket keys in the TLS library's memory:
what counts are errors, and memory lost, in the compiled core and in what it calls without Python
code in between. The control process cannot run there: valgrind 3.19 has no pidfd_open(2).
"""

import re
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import HttpNode, Proxy, proxy, request, sticky, until
from tests.harness.certificates import Authority
from tests.harness.proxy import TROUBLE, environment
from tests.harness.wait import TIMEOUT

SPACE = 30 << 30  # less than valgrind can give: fastlb reserves no more than it may
SLOWER = 20
OURS = re.compile(r"__pyx_|fastlb/_core/")
PYTHON = re.compile(r"_PyEval_|gc_collect_")
VALGRIND = [
    "valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--error-limit=no",
    "--num-callers=40",
]  # fmt: skip


class UnderValgrind(Proxy):
    def start(self) -> None:
        python = self.folder / "python"  # the worker's
        python.write_text(
            f"#!/bin/sh\nexec {' '.join(VALGRIND)} --log-file={self.folder}/valgrind.%p "
            f'{sys.executable} "$@"\n'
        )
        python.chmod(0o700)
        code = (
            f"import sys; sys.executable = {str(python)!r}; "
            "from fastlb.cli import main; sys.exit(main())"
        )
        command = ["prlimit", f"--as={SPACE}", sys.executable, "-c", code, *self.arguments()]
        with open(self.folder / "stderr", "ab") as err:
            self.process = subprocess.Popen(
                command, stdout=err, stderr=err, cwd=self.folder,
                env={**environment(), "PYTHONMALLOC": "malloc"},
            )  # fmt: skip
        until(lambda: self._ready_count() or self._ended(), "the ready line", SLOWER * TIMEOUT)
        assert not self._ended(), self.stderr()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SLOWER * TIMEOUT) == 0
        assert not TROUBLE.search(self.stderr()), self.stderr()
        self.reports = [log.read_text() for log in sorted(self.folder.glob("valgrind.*"))]


def errors(report: str) -> list[str]:
    """Those of one process in which the core had a part."""
    found = []
    for one in re.split(r"^==\d+== $", report, flags=re.MULTILINE):
        _, at, frames = one.partition(" at 0x")
        if at and OURS.search(PYTHON.split(frames)[0]):
            found.append(one)
    return found


@pytest.fixture(autouse=True)
def _valgrind() -> None:
    assert shutil.which("valgrind"), "valgrind is not installed (ci/apt-install valgrind)"


@pytest.mark.deep
def test_workers_from_start_to_stop(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.certificate("shop.test")
    with HttpNode("a") as a, HttpNode("b") as b:
        config = sticky(a, b, workers=2, timeouts={"drain": "3m"})  # its end takes long, too
        config["proxy"]["worker_timeout"] = "0s"
        shop = config["virtual_servers"]["shop"]
        config["virtual_servers"]["secure"] = {
            **shop, "protocol": "https", "tls": {"certificates": [certificate.table()]},
        }  # fmt: skip
        with proxy(config, UnderValgrind) as p:
            user = p.user("alice")
            home = user.get().node
            assert {user.get().node for _ in range(20)} == {home}
            with p.client() as client:
                assert client.ask("/", method="POST", body=b"x" * 100_000).status == 200
            generation = p.status()["generation"]
            p.process.send_signal(signal.SIGHUP)
            until(lambda: p.status()["generation"] > generation, "a reload", SLOWER * TIMEOUT)
            assert user.get().node == home
            context = ssl.create_default_context(cafile=authority.file)
            with p.client(server="secure") as plain:
                with context.wrap_socket(plain.sock, server_hostname="shop.test") as client:
                    client.sendall(request("/", ("Connection", "close")))
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert sum("HEAP SUMMARY" in report for report in p.reports) == 2
    found = [one for report in p.reports for one in errors(report)]
    assert not found, "".join(found)


@pytest.mark.deep
def test_an_error_of_the_core_is_seen(tmp_path: Path) -> None:
    code = (
        "import contextlib, ctypes\n"
        "from fastlb._core.node import get_state\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype = ctypes.c_void_p\n"
        "gone = libc.malloc(4096)\n"
        "libc.free(ctypes.c_void_p(gone))\n"
        "with contextlib.suppress(IndexError):\n"
        "    get_state(gone, 0)\n"
    )
    log = tmp_path / "log"
    run = [*VALGRIND, f"--log-file={log}", sys.executable, "-c", code]
    subprocess.run(run, env={**environment(), "PYTHONMALLOC": "malloc"}, check=True)
    assert any("Invalid read" in one for one in errors(log.read_text()))
