"""Random exchanges of many clients at once. Client and node draw the same plan from the request's
target, so that either knows, byte for byte, what the other must send: whatever is lost, doubled,
mixed up between clients, out of order, or cut off and taken for whole, shows.

A failure names its seed; `FASTLB_STRESS_SEED=n pytest -m deep …` repeats it.
"""

import contextlib
import itertools
import os
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.harness import (
    Client,
    Closed,
    Exchange,
    Malformed,
    Message,
    Proxy,
    RawNode,
    Truncated,
    changed,
    proxy,
    settings,
    until,
)

BORDERS = (0, 1, 4096, 16384, 65536, 81920, 131072, 262144)
METHODS = ("GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS")
ANSWERS = ("length", "length", "length", "chunked", "chunked", "close", "204", "304")
BREAKS = ("reset before", "close before", "reset within", "close within")


def draw_size(dice: random.Random) -> int:
    if dice.random() < 0.4:
        return dice.randrange(400)
    if dice.random() < 0.5:
        return dice.randrange(300_000)
    return max(0, dice.choice(BORDERS) + dice.randrange(-300, 300))


def pieces(data: bytes, dice: random.Random, most: int = 6) -> list[bytes]:
    """The data cut at random places, one of them perhaps near its beginning."""
    cuts = {dice.randrange(len(data) + 1) for _ in range(dice.randrange(most))}
    if data and dice.random() < 0.3:
        cuts.add(min(len(data), dice.randrange(400)))
    places = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def coded(data: bytes, dice: random.Random) -> bytes:
    """The chunked coding, now and then with an extension and a trailer."""
    extension = b";part=1" if dice.random() < 0.2 else b""
    trailer = b"X-Sum: 42\r\n" if dice.random() < 0.2 else b""
    body = [b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in pieces(data, dice, 40)]
    return b"".join(body) + b"0\r\n" + trailer + b"\r\n"


def padding(dice: random.Random) -> bytes:
    """A field that makes some heads fill a buffer."""
    if dice.random() < 0.7:
        return b""
    return b"X-Pad: %s\r\n" % (b"p" * dice.choice((10, 3000, 11_000, 15_700, 16_100, 20_000)))


@dataclass
class Ask:
    """One exchange, as both of its ends know it."""

    name: str  # "client-number"
    method: str
    version: str
    request: bytes
    body: bytes
    status: int
    interims: list[int]
    answer_head: bytes
    answer_coded: bytes
    answer_body: bytes
    framing: str
    early: bool  # the node answers before it reads the body
    breaks: str  # how the node fails, or ""
    hangs_up: bool  # the node closes after its answer without having said so
    ends: bool  # the client asks for the connection's end
    dice: random.Random  # of the node's pace


def draw(seed: str, client: int, number: int) -> Ask:
    dice = random.Random(f"{seed}/{client}/{number}")
    name = f"{client}-{number}"
    method = dice.choice(METHODS)
    version = "1.0" if dice.random() < 0.1 else "1.1"
    has_body = method in ("POST", "PUT")
    body = (f"<{name}>".encode() * 60_000)[: draw_size(dice)] if has_body else b""
    head = f"{method} /{seed}/{client}/{number} HTTP/{version}\r\nHost: shop.test\r\n".encode()
    head += padding(dice)
    ends = version == "1.0"
    if dice.random() < 0.1:
        head += b"Connection: close\r\n"
        ends = True
    elif version == "1.0" and dice.random() < 0.5:
        head += b"Connection: keep-alive\r\n"
        ends = False
    sent = body
    if has_body and version == "1.1" and dice.random() < 0.5:
        head += b"Transfer-Encoding: chunked\r\n"
        sent = coded(body, dice)
    elif has_body:
        head += b"Content-Length: %d\r\n" % len(body)
    ask = Ask(
        name, method, version, head + b"\r\n" + sent, body, 200,
        [dice.choice((102, 103)) for _ in range(dice.choice((0, 0, 0, 1, 2)))],
        b"", b"", b"", dice.choice(ANSWERS),
        has_body and dice.random() < 0.15,
        dice.choice(BREAKS) if dice.random() < 0.08 else "",
        dice.random() < 0.1, ends, dice,
    )  # fmt: skip
    draw_answer(ask, dice)
    return ask


def draw_answer(ask: Ask, dice: random.Random) -> None:
    data = (f"[{ask.name}]".encode() * 60_000)[: draw_size(dice)]
    ask.answer_coded = data
    field = b""
    if ask.framing in ("204", "304"):
        ask.status, ask.framing, ask.answer_coded = int(ask.framing), "none", b""
    elif ask.framing == "length":
        field = b"Content-Length: %d\r\n" % len(data)
    elif ask.framing == "chunked":
        field = b"Transfer-Encoding: chunked\r\n"
        ask.answer_coded = coded(data, dice)
    if ask.method == "HEAD":
        ask.answer_coded = b""
        ask.framing = "none"
    ask.answer_body = data if ask.framing != "none" else b""
    if ask.breaks.endswith("within") and not ask.answer_coded:
        ask.breaks = ""
    if ask.breaks == "close within" and ask.framing == "close":
        ask.breaks = "reset within"  # an orderly end would be the body's own
    ask.answer_head = b"HTTP/1.1 %d Fine\r\nX-Name: %s\r\n" % (ask.status, ask.name.encode())
    ask.answer_head += padding(dice) + field + b"\r\n"


class Judge(RawNode):
    """A node that knows what it must be sent."""

    def __init__(self, name: str):
        super().__init__(self.answer, name)
        self.whole: Counter[str] = Counter()  # requests that arrived with all of their body

    def answer(self, exchange: Exchange) -> None:
        seed, client, number = exchange.request.target.decode().strip("/").split("/")
        ask = draw(seed, int(client), int(number))
        assert exchange.request.method.decode() == ask.method
        if not ask.early:
            self.take(exchange, ask)
        if ask.breaks.endswith("before"):
            self.give_up(exchange, ask)
            return
        for status in ask.interims:
            exchange.send(b"HTTP/1.1 %d Wait\r\nX-Name: %s\r\n\r\n" % (status, ask.name.encode()))
        data = ask.answer_head + ask.answer_coded
        if ask.breaks:
            data = data[: len(ask.answer_head) + ask.dice.randrange(len(ask.answer_coded))]
        for piece in pieces(data, ask.dice):
            exchange.send(piece)
            time.sleep(ask.dice.choice((0, 0, 0, 0.001, 0.004)))
        if ask.breaks:
            self.give_up(exchange, ask)
            return
        if ask.early:
            self.take(exchange, ask)
        # A HEAD request's answer has no body to end with the connection, but no length either.
        if ask.hangs_up or ask.framing == "close":
            exchange.close()

    def take(self, exchange: Exchange, ask: Ask) -> None:
        assert exchange.read_body() == ask.body, f"the body of {ask.name} is another"
        with self._lock:
            self.whole[ask.name] += 1

    @staticmethod
    def give_up(exchange: Exchange, ask: Ask) -> None:
        if ask.breaks.startswith("reset"):
            exchange.reset()
        else:
            exchange.close()


class Crowd:
    """The clients of one seed."""

    def __init__(self, p: Proxy, seed: str):
        self.p = p
        self.seed = seed
        self.failures: list[str] = []
        self.seen: Counter[str] = Counter()

    def run(self, clients: int, asks: int) -> None:
        threads = [threading.Thread(target=self.guard, args=(n, asks)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guard(self, client: int, asks: int) -> None:
        try:
            self.live(client, asks)
        except BaseException as error:
            self.failures.append(f"seed {self.seed}, client {client}: {error!r}")

    def live(self, client: int, asks: int) -> None:
        dice = random.Random(f"{self.seed}/{client}")
        number = 0
        while number < asks:
            with self.p.client(receive_buffer=dice.choice((0, 0, 4096))) as connection:
                alive = True
                while alive and number < asks:
                    count = dice.choice((1, 1, 1, 2, 5))
                    batch = self.batch(client, number, count)
                    number += len(batch)
                    alive = self.play(connection, batch, dice)

    def batch(self, client: int, number: int, count: int) -> list[Ask]:
        """Up to `count` requests for one go. None follows one that ends the connection (RFC 9112
        9.6): what comes after the proxy has closed is met by a reset, which may destroy the
        answer."""
        batch = []
        for n in range(count):
            batch.append(draw(self.seed, client, number + n))
            if batch[-1].ends:
                break
        return batch

    def play(self, connection: Client, batch: list[Ask], dice: random.Random) -> bool:
        """Sends the requests in one go, reads the answers; whether the connection lives on."""
        data = b"".join(ask.request for ask in batch)
        if dice.random() < 0.05:
            self.run_away(connection, data[: dice.randrange(len(data) + 1)], dice)
            return False
        parts = [(part, dice.choice((0, 0, 0, 0.001, 0.005))) for part in pieces(data, dice, 12)]
        sender = Sender(connection, parts)
        sender.start()
        alive = False
        try:
            alive = self.hear(connection, batch, sender)
        finally:
            if not alive:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)  # a sender that waits gives up
            sender.join()
        return alive

    def run_away(self, connection: Client, data: bytes, dice: random.Random) -> None:
        connection.sock.settimeout(0.3)
        with contextlib.suppress(OSError):
            connection.sock.sendall(data)
        time.sleep(dice.choice((0, 0.002, 0.02)))
        if dice.random() < 0.5:
            connection.reset()
        self.seen["ran away"] += 1

    def hear(self, connection: Client, batch: list[Ask], sender: "Sender") -> bool:
        for place, ask in enumerate(batch):
            try:
                answer = connection.response(ask.method.encode())
                if answer.framing == "close" and sender.met_reset():
                    raise ConnectionResetError
            except (Closed, Truncated, ConnectionResetError) as end:
                # What is broken ends in a reset, which may destroy the answers before it.
                if not any(each.breaks for each in batch[place:]):
                    raise AssertionError(f"{ask.name}: {end!r}") from end
                self.seen["broken"] += 1
                return False
            self.judge(ask, answer)
            if answer.get("Connection") == b"close" or answer.framing == "close":
                with contextlib.suppress(ConnectionResetError):
                    assert connection.reader.rest() == b"", f"{ask.name}: bytes after the end"
                return False
        return True

    def judge(self, ask: Ask, answer: Message) -> None:
        self.seen[f"{answer.status} {answer.framing}"] += 1
        if answer.status == 502:
            # A body on its way to a node that was just hanging up can't be sent again.
            assert ask.breaks.endswith("before") or ask.method in ("POST", "PUT"), ask.name
            return
        name = answer.get("X-Name")
        assert name == ask.name.encode(), f"{ask.name} got the answer of {name!r}"
        assert not ask.breaks, f"{ask.name}: broken ({ask.breaks}), but it looks whole"
        assert answer.status == ask.status, f"{ask.name}: {answer.status}"
        assert answer.body == ask.answer_body, f"{ask.name}: another body, {len(answer.body)} bytes"
        interims = ask.interims if ask.version == "1.1" else []
        assert [each.status for each in answer.interim] == interims, f"{ask.name}: interims"


class Sender(threading.Thread):
    """Sends beside the reading. Of a reset the kernel tells only one of the two, so that a plain
    end may be the rest of what the sender met."""

    def __init__(self, connection: Client, parts: list[tuple[bytes, float]]):
        super().__init__()
        self.connection = connection
        self.parts = parts
        self.reset = False

    def run(self) -> None:
        try:
            for part, pause in self.parts:
                self.connection.sock.sendall(part)
                time.sleep(pause)
        except ConnectionResetError:
            self.reset = True
        except OSError:
            return

    def met_reset(self) -> bool:
        self.join(5)
        return self.reset


def quiet(p: Proxy) -> bool:
    """Nothing is left over: no client, no running request."""
    status = p.status()
    nodes = status["pools"]["web"]["nodes"]
    return not any(
        [worker["connections"] for worker in status["workers"]]
        + [node["connections"] for node in nodes]
    )


def storm(seed: str, clients: int, asks: int, reloads: int = 0) -> None:
    with Judge("a") as a, Judge("b") as b:
        config = settings(a, b)
        with proxy(config) as p:
            crowd = Crowd(p, seed)
            runner = threading.Thread(target=crowd.run, args=(clients, asks))
            runner.start()
            for number in range(reloads):
                nodes = [a, b] if number % 2 else [a]
                assert p.reload(changed(config, "pools.web.nodes", nodes)).returncode == 0
            runner.join()
            assert not crowd.failures, "\n".join(crowd.failures[:5])
            assert len(crowd.seen) > 6, crowd.seen
            until(lambda: quiet(p), "everything has ended")
        twice = a.whole + b.whole
        again = [name for name, count in twice.items() if count > 1]
        assert all(draw(seed, *map(int, n.split("-"))).method != "POST" for n in again), again
        for node in (a, b):
            assert not [e for e in node.errors if isinstance(e, AssertionError | Malformed)]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_random_exchanges_of_many_clients_are_never_mixed_up(seed):
    storm(seed, clients=8, asks=25)


@pytest.mark.deep
@pytest.mark.parametrize("round_number", range(20))
def test_random_exchanges_at_length(round_number):
    seed = os.environ.get("FASTLB_STRESS_SEED", str(random.randrange(1 << 30)))
    storm(seed, clients=16, asks=100, reloads=round_number % 5)
