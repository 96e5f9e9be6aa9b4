"""`openssl s_server` as a TLS node: one connection at a time, each a status page or a file."""

import re
import subprocess
import tempfile
from pathlib import Path

from .client import Client, tool_environment
from .node import next_host
from .proxy import free_port
from .wait import TIMEOUT, until


class OpensslServer:
    """A context manager. Its page tells by "New" or "Reused" how the connection began; what it
    printed is in `output`. `options` as for s_server: -no_ticket, -tls1_2, -rev, …"""

    def __init__(self, pem: bytes, *options: str, page: bool = True):
        self.host = next_host()
        self.port = free_port(self.host)
        self.pem = pem
        self.options = [*options, "-www"] if page else list(options)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def __enter__(self) -> "OpensslServer":
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-openssl-")
        folder = Path(self._folder.name)
        file = folder / "both.pem"
        file.write_bytes(self.pem)
        self._log = folder / "log"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                ["openssl", "s_server", "-accept", self.address, "-cert", str(file),
                 "-key", str(file), *self.options],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=tool_environment(),
            )  # fmt: skip
        until(lambda: "ACCEPT" in self.output or self._process.poll() is not None, "s_server")
        assert self._process.poll() is None, self.output
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._folder.cleanup()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")


def page_says_reused(text: str) -> bool:
    """Of the page that s_server answers with."""
    page = text[text.index("HTTP/1.0 200") :]
    (word,) = re.findall(r"^(New|Reused), ", page, re.MULTILINE)
    return word == "Reused"


class GnutlsServer:
    """`gnutls-serv` as a TLS node; it listens at every address. A context manager."""

    def __init__(self, pem: bytes, *options: str):
        self.host = "127.0.0.1"
        self.port = free_port()
        self.address = f"{self.host}:{self.port}"
        self.pem = pem
        self.options = options

    def __enter__(self) -> "GnutlsServer":
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-gnutls-")
        file = Path(self._folder.name, "both.pem")
        file.write_bytes(self.pem)
        self._process = subprocess.Popen(
            ["gnutls-serv", "--http", "--quiet", "--port", str(self.port),
             "--x509certfile", str(file), "--x509keyfile", str(file), *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=tool_environment(),
        )  # fmt: skip
        until(self._accepting, "gnutls-serv accepting")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._folder.cleanup()

    def _accepting(self) -> bool:
        assert self._process.poll() is None, "gnutls-serv ended"
        try:
            Client((self.host, self.port)).sock.close()
        except ConnectionRefusedError:
            return False
        return True
