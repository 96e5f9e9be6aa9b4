"""A DNS server of the tests' own (RFC 1035), over UDP at a loopback address.

    with DnsServer() as dns:
        dns.say("app.test", "127.0.1.1", "::1", ttl=1)

What it was not told of does not exist. `mode` "silent" answers nothing, "failing" SERVFAIL; `only`
restricts either to questions of one type, "A" or "AAAA". It knows nothing of dnspython.
"""

import ipaddress
import socket
import struct
import threading

from .node import next_host
from .wait import TIMEOUT, until

TYPES = {1: "A", 28: "AAAA"}
NXDOMAIN, SERVFAIL, NOERROR = 3, 2, 0


class DnsServer:
    """A context manager."""

    def __init__(self) -> None:
        self.host = next_host()
        self.asked: list[tuple[str, str]] = []  # name and type
        self.mode = "well"
        self.only: str | None = None
        self._names: dict[str, tuple[list[str], int]] = {}

    def say(self, name: str, *addresses: str, ttl: int = 1) -> None:
        """From now on."""
        self._names[name] = (list(addresses), ttl)

    def forget(self, name: str) -> None:
        del self._names[name]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def wait_asked(self, name: str, more: int = 1) -> None:
        """Until the addresses of a name were asked for so often again."""
        before = self.asked.count((name, "AAAA"))
        until(lambda: self.asked.count((name, "AAAA")) >= before + more, f"questions about {name}")

    def __enter__(self) -> "DnsServer":
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.host, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"", (self.host, self.port))
        self._thread.join(TIMEOUT)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(4096)
            if not query:
                return
            answer = self._answer(query)
            if answer:
                self._socket.sendto(answer, peer)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : at + 5]
        name = ".".join(labels).lower()
        kind = TYPES.get(struct.unpack_from("!H", query, at + 1)[0], "?")
        self.asked.append((name, kind))
        if self.mode != "well" and self.only in (None, kind):
            return b"" if self.mode == "silent" else self._reply(query, question, SERVFAIL, b"", 0)
        if name not in self._names:
            return self._reply(query, question, NXDOMAIN, b"", 0)
        addresses, ttl = self._names[name]
        records = b""
        count = 0
        for text in addresses:
            ip = ipaddress.ip_address(text)
            if {4: "A", 6: "AAAA"}[ip.version] == kind:
                number = {"A": 1, "AAAA": 28}[kind]
                records += struct.pack("!HHHIH", 0xC00C, number, 1, ttl, len(ip.packed)) + ip.packed
                count += 1
        return self._reply(query, question, NOERROR, records, count)

    @staticmethod
    def _reply(query: bytes, question: bytes, code: int, records: bytes, count: int) -> bytes:
        head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, count, 0, 0)
        return head + question + records
