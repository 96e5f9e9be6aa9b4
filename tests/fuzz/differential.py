"""What fastlb forwards, from random valid and nearly valid messages, as other parsers read it.

    .venv/bin/python -m tests.fuzz.differential --requests 100000 --responses 30000

Each message goes through a running fastlb with a marked one behind it on the same connection. What
comes out is cut into messages by the recording node (or client), and each of them, with a marked
one behind it, is read by h11, llhttp and nginx (requests) or h11, llhttp and http.client
(responses). All have to find the same: this message, then the marked one. A parser may refuse what
it does not know (llhttp: methods that are not registered; nginx: odd targets), never read it
otherwise; refusals are counted. The node must not see a request that is not in fastlb's access log,
and the client no answer that it did not ask for.
"""

import argparse
import contextlib
import json
import random
import re
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz import messages, readers
from tests.fuzz.readers import INCOMPLETE, REFUSED
from tests.harness import RawNode, proxy, reply, settings, until
from tests.harness.node import Exchange
from tests.harness.proxy import Proxy
from tests.harness.wire import Message, Truncated

TAIL = b"GET /tail HTTP/1.1\r\nHost: tail\r\n\r\n"
TAIL_READ = ((b"GET", b"/tail"), [(b"host", b"tail")], b"")
TAIL_BY_NGINX = ((b"GET", b"/tail"), b"tail")
LAST = b"GET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
BATCH = 500
ANSWER = reply(200, b"", reason="OK")


@dataclass
class Result:
    """Counts by kind, and what was read in two ways."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str) -> None:
        self.counts[kind] += 1

    def blame(self, what: str, data: bytes) -> None:
        self.counts["WRONG: " + what] += 1
        self.wrong.append(f"{what}: {data[:2000]!r}")

    def report(self) -> str:
        rows = [f"{count:>9}  {kind}" for kind, count in sorted(self.counts.items())]
        return "\n".join(rows + self.wrong[:10])


# --- requests ---


class Recorder(RawNode):
    """A node that answers, and keeps each request's bytes: of a connection, each `requests[i]`
    begins at `marks[i]`."""

    def __init__(self) -> None:
        super().__init__(self._record, "recorder")
        self.units: list[tuple[Message, bytes]] = []
        self.broken: list[bytes] = []

    def _record(self, exchange: Exchange) -> None:
        reader = exchange.connection.reader
        began = len(reader.received) - len(reader.buffer) - len(exchange.request.head)
        try:
            exchange.read_body()
        except Truncated:
            # Its client broke off or was refused in its body: no parser may think it whole.
            self.broken.append(bytes(reader.received[began:]))
            raise
        ended = len(reader.received) - len(reader.buffer)
        self.units.append((exchange.request, bytes(reader.received[began:ended])))
        exchange.send(ANSWER)
        if len(reader.received) > 1 << 18:
            exchange.close()


def ask(p: Proxy, pick: random.Random, data: bytes) -> bytes:
    """All that comes back for these bytes, sent in one or more pieces."""
    with p.client() as client:
        with contextlib.suppress(OSError):
            for piece in pieces(pick, data):
                client.sock.sendall(piece)
            client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            client.reader.rest()
        return bytes(client.reader.received)


def pieces(pick: random.Random, data: bytes) -> list[bytes]:
    """Mostly whole; else cut at random places."""
    if pick.random() < 0.8 or len(data) < 2:
        return [data]
    cuts = sorted(pick.sample(range(1, len(data)), min(pick.randint(1, 4), len(data) - 1)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def expected(message: Message) -> Any:
    """The recorder's own reading."""
    return (message.method, message.target), readers.folded(message.fields), message.body


def compare_requests(units: list[tuple[Message, bytes]], nginx: Any, result: Result) -> None:
    """Each request with a marked one behind it, as everybody reads it."""
    seen = nginx.requests([data + TAIL for _, data in units])
    for (message, data), by_nginx in zip(units, seen, strict=True):
        wanted = [expected(message), TAIL_READ]
        host = dict(wanted[0][1]).get(b"host", b"")
        judge(result, "h11", readers.h11_requests(data + TAIL), wanted, data)
        judge(result, "llhttp", readers.llhttp_requests(data + TAIL), wanted, data)
        told = [((message.method, origin_form(message.target)), host), TAIL_BY_NGINX]
        judge(result, "nginx", by_nginx, told, data)


def origin_form(target: bytes) -> bytes:
    """How nginx tells of an absolute form: without the authority, which is its Host."""
    return re.sub(
        rb"^https?://[^/?]*(?=(.?))", lambda m: b"" if m[1] == b"/" else b"/", target, flags=re.I
    )


def judge(result: Result, who: str, seen: list[Any], wanted: list[Any], data: bytes) -> None:
    if seen == wanted:
        result.note(f"{who}: read the same")
    elif seen == [REFUSED]:
        result.note(f"{who}: refused")
    else:
        result.blame(f"{who} read {seen!r:.900}, not {wanted!r:.900}", data)


def compare_broken(broken: list[bytes], result: Result) -> None:
    """What fastlb began to forward and did not finish."""
    for data in broken:
        result.note("requests: broken off at the node")
        for who, read in (("h11", readers.h11_requests), ("llhttp", readers.llhttp_requests)):
            if read(data) not in ([INCOMPLETE], [REFUSED]):
                result.blame(f"{who} took a request for whole that was broken off", data)


def run_requests(count: int, seed: int = 1) -> Result:
    result = Result()
    with Recorder() as node, readers.NginxReader() as nginx, proxy(request_settings(node)) as p:
        account = Account(p)
        for begin in range(0, count, BATCH):
            node.units, node.broken = [], []
            asked = min(BATCH, count - begin)
            for number in range(begin, begin + asked):
                pick = random.Random(f"{seed} {number}")
                data = messages.request(pick)
                got = ask(p, pick, data + LAST)
                note_answers(result, got, data)
            account.check(node.units, result)
            compare_requests(node.units, nginx, result)
            compare_broken(node.broken, result)
            node.connections = [one for one in node.connections if one.end is None]
        result.counts["requests: sent (each with a good one behind it)"] = count
    return result


def request_settings(node: RawNode) -> Any:
    return settings(node, timeouts={"client_header": "2s", "client_body": "2s"})


def note_answers(result: Result, got: bytes, data: bytes) -> None:
    if not got:
        result.note("requests: closed without an answer")
        return
    if not got.startswith(b"HTTP/1.1 "):
        result.blame("no status line", data)
    status = got[9:12].decode("latin-1")
    result.note(f"requests: first answer {status}")
    if status[0] == "5" and status not in ("501", "505"):
        result.blame(f"a client's message became a {status}", data)


class Account:
    """Requests at the node, and in the log as forwarded, since the run began: none more than the
    other. (A line may come later than its answer.)"""

    def __init__(self, p: Proxy):
        self.log_file = p.log_file
        self.at = 0
        self.excess: Counter[tuple[str, str]] = Counter()

    def check(self, units: list[tuple[Message, bytes]], result: Result) -> None:
        for message, _ in units:
            self.excess[message.method.decode("latin-1"), message.target.decode("latin-1")] += 1
        result.counts["requests: at the node"] += len(units)
        try:
            until(self._balanced, "a line in the log for each request at the node")
        except AssertionError:
            left = {one: count for one, count in self.excess.items() if count > 0}
            result.blame("smuggled: more at the node than in the log", repr(left).encode())
            self.excess.clear()

    def _balanced(self) -> bool:
        text = self.log_file.read_bytes()[self.at :]
        for line in text[: text.rfind(b"\n") + 1].splitlines():
            one = json.loads(line)
            if one.get("node"):
                self.excess[one["method"], one["target"]] -= 1
        self.at += text.rfind(b"\n") + 1
        return max(self.excess.values(), default=0) <= 0


# --- responses ---


class Mutant(RawNode):
    """A node whose answer to /mutant is what the run says; to others it is a good one."""

    def __init__(self) -> None:
        super().__init__(self._play_mutant, "mutant")
        self.data = b""

    def _play_mutant(self, exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.request.target == b"/mutant":
            exchange.send(self.data)
            exchange.close()
        else:
            exchange.send(reply(200, b"tail", ("X-Tail", "1"), reason="OK"))


def run_responses(count: int, seed: int = 1) -> Result:
    result = Result()
    with Mutant() as node, proxy(settings(node, timeouts={"response": "2s"})) as p:
        for number in range(count):
            pick = random.Random(f"{seed} response {number}")
            node.data = messages.response(pick)
            method = pick.choice([b"GET", b"GET", b"GET", b"HEAD"])
            version = pick.choice([b"1.1", b"1.1", b"1.1", b"1.0"])
            head = method + b" /mutant HTTP/" + version + b"\r\nHost: a\r\nConnection: keep-alive"
            exchange = (
                head + b"\r\n\r\n" + b"GET /tail HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            compare_responses(p, exchange, method, node.data, result)
            node.connections = [one for one in node.connections if one.end is None]
        result.counts["responses: sent by the node"] = count
    return result


def compare_responses(
    p: Proxy, exchange: bytes, method: bytes, data: bytes, result: Result
) -> None:
    with p.client() as client:
        client.send(exchange)
        closed = True
        try:
            client.reader.rest()
        except ConnectionResetError:
            closed = False
        got = bytes(client.reader.received)
    first = _first(got)
    result.note(f"responses: first answer {first}")
    methods = [method, b"GET"]
    seen = {
        "h11": readers.h11_responses(got, methods, closed),
        "http.client": readers.library_responses(got, methods, closed),
    }
    if method != b"HEAD":
        seen["llhttp"] = readers.llhttp_responses(got, methods, closed)
    reference = seen.pop("h11")
    result.note("responses: " + _kind(reference, closed))
    for who, other in seen.items():
        if other == reference:
            result.note(f"{who}: read the same")
        elif REFUSED in (other[-1:] + reference[-1:]) and other[:-1] == reference[: len(other) - 1]:
            result.note(f"{who}: refused")
        else:
            result.blame(f"{who} read {other!r:.900}, h11 {reference!r:.900}", got)
    for one in reference[1:]:
        if one[0] == 200 and (b"x-tail", b"1") not in one[1]:
            result.blame("an answer that nobody asked for", data)


def _first(got: bytes) -> str:
    return got[9:12].decode("latin-1") if got.startswith(b"HTTP/1.1 ") else repr(got[:12])


def _kind(reading: list[Any], closed: bool) -> str:
    if reading[-1:] == [INCOMPLETE]:
        return "cut, and seen to be" + ("" if closed else " by the reset")
    return f"{len(reading)} whole" + ("" if closed else ", then a reset")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--responses", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = 0
    for run, count in ((run_requests, given.requests), (run_responses, given.responses)):
        if count:
            began = time.monotonic()
            result = run(count, given.seed)
            print(result.report())
            print(f"{time.monotonic() - began:9.1f}  seconds\n")
            wrong += len(result.wrong)
    print(f"{wrong} wrong")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
