"""TLS clients: Python's ssl with a session that it keeps, openssl, gnutls-cli and curl.

Each says whether its handshake resumed a session; a TlsNode says the same from the other side.
"""

import json
import re
import ssl
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .client import Address, Client, curl, tool_environment
from .tls_node import VERSIONS, PoliteSocket
from .wait import TIMEOUT
from .wire import Reader, request


def trusting_context(version: str, tickets: bool) -> ssl.SSLContext:
    """Of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version, context.maximum_version = VERSIONS[version]
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    return context


@cache
def client_context(version: str = "any", tickets: bool = True, alpn: str = "") -> ssl.SSLContext:
    """One for all clients alike: Python takes a session back only in the context that it is of."""
    context = trusting_context(version, tickets)
    context.sslsocket_class = PoliteSocket
    if alpn:
        context.set_alpn_protocols(alpn.split(","))
    return context


class TlsClient(Client):
    """One connection with its handshake done; `first` goes ahead of it (a PROXY header)."""

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        name: str | None = "www.example.com",
        source: str | None = None,
        first: bytes = b"",
    ):
        super().__init__(address, source)
        context = context or client_context()
        try:
            self.send(first)
            self.tls = context.wrap_socket(self.sock, server_hostname=name, session=session)
        except BaseException:
            self.sock.close()
            raise
        self.sock = self.tls
        self.reader = Reader(self.tls)
        self.reused = bool(self.tls.session_reused)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.tls.close()

    @property
    def session(self) -> ssl.SSLSession | None:
        return self.tls.session

    @property
    def version(self) -> str | None:
        return self.tls.version()


class TlsUser:
    """A user whose client keeps one TLS session, as a browser does, and a connection never."""

    def __init__(
        self, address: Address, version: str = "any", tickets: bool = True,
        source: str | None = None, name: str = "www.example.com",
    ):  # fmt: skip
        self.address = address
        self.context = client_context(version, tickets)
        self.source = source
        self.name = name
        self.session: ssl.SSLSession | None = None
        self.reused: list[bool] = []  # of each visit
        self.nodes: list[str] = []

    def visit(self, target: str = "/") -> str:
        """A connection, a request; the name of the node. The last session granted is kept."""
        with TlsClient(self.address, self.context, self.session, self.name, self.source) as client:
            answer = client.ask(target, ("X-User", str(id(self)))).json()
            assert answer["reused"] == client.reused, "client and node see two handshakes"
            self.session = client.session
        self.reused.append(client.reused)
        self.nodes.append(answer["node"])
        return self.nodes[-1]


@dataclass
class Said:
    """What a command-line client said."""

    returncode: int
    text: str
    reused: list[bool]  # of each handshake, as the client says
    answers: list[dict[str, Any]]  # of TlsNodes

    @property
    def nodes(self) -> list[str]:
        return [answer["node"] for answer in self.answers]

    def field(self, name: str) -> str:
        """The value of "name: value" or "name = value"; empty: it is not there."""
        found = re.search(rf"^\s*{re.escape(name)}\s*[:=]\s*(.*)$", self.text, re.MULTILINE)
        return found[1].strip() if found else ""


def _run(command: list[str], sent: bytes, reused: str) -> Said:
    done = subprocess.run(
        command, input=sent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=3 * TIMEOUT, env=tool_environment(), check=False,
    )  # fmt: skip
    text = done.stdout.decode("latin-1")
    answers = [json.loads(each) for each in re.findall(r"^\{.*\}", text, re.MULTILINE)]
    words = [word == reused for word in re.findall(rf"^(New|{reused})\b", text, re.MULTILINE)]
    return Said(done.returncode, text, words, answers)


ASK = request("/", ("Connection", "close"))


def openssl(address: tuple[str, int], *options: str, sent: bytes = ASK) -> Said:
    """`openssl s_client`: one handshake, or six with -reconnect, and a request after the last."""
    host, port = address
    host = f"[{host}]" if ":" in host else host
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-ign_eof", *options]
    return _run(command, sent, "Reused")


def gnutls(
    address: tuple[str, int], *options: str, sent: bytes = ASK, insecure: bool = True
) -> Said:
    """`gnutls-cli`; with --resume two handshakes, of which the second can be a resumption."""
    host, port = address
    trust = ["--insecure"] if insecure else []
    command = ["gnutls-cli", *trust, "--port", str(port), *options, host]
    said = _run(command, sent, "Resumed")
    count = len(re.findall(r"^- (?:Resume )?Handshake was completed", said.text, re.MULTILINE))
    resumed = "*** This is a resumed session" in said.text
    said.reused = [False] * count
    if resumed:
        said.reused[-1] = True
    return said


def curl_https(address: tuple[str, int], count: int, *options: str) -> Said:
    """curl asking `count` times in one process, each on a connection of its own."""
    host, port = address
    urls = [f"https://{host}:{port}/{number}" for number in range(count)]
    done = curl("-k", "-H", "Connection: close", "-w", "\\n", *options, *urls)
    text = done.stdout.decode() + done.stderr.decode()
    answers = [json.loads(each) for each in re.findall(r"^\{.*\}", text, re.MULTILINE)]
    return Said(done.returncode, text, [each["reused"] for each in answers], answers)


class Kept:
    """Where openssl keeps a session between two of its runs."""

    def __init__(self, folder: Path):
        self.file = folder / "session"

    def options(self) -> list[str]:
        before = ["-sess_in", str(self.file)] if self.file.exists() else []
        return [*before, "-sess_out", str(self.file)]
