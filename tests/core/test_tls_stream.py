"""TLS through the library's own functions: Python's ssl on the other side, over real sockets."""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from fastlb import tls_addresses
from fastlb._core import _testing_tls as core
from tests.core.handshakes import certificate, client_context
from tests.harness.tls_records import Records
from tests.harness.wait import TIMEOUT

tls_addresses.load()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> SSL.Context:
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    pem = Path(tmp_path_factory.mktemp("certificate"), "both.pem")
    pem.write_bytes(certificate())
    made.use_certificate_chain_file(str(pem))
    made.use_privatekey_file(str(pem))
    return made


class Serving:
    """The core's end of a connection, and a thread that is the client."""

    def __init__(self, context: SSL.Context, client: Callable[[socket.socket], object]) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.end = core.TlsEnd(self.ours.fileno(), tls_addresses.pointer_of(context))
        self.result: object = None
        self.thread = threading.Thread(target=self._run, args=(client, theirs), daemon=True)
        self.thread.start()

    def _run(self, client: Callable[[socket.socket], object], theirs: socket.socket) -> None:
        try:
            self.result = client(theirs)
        except (OSError, ssl.SSLError) as error:
            self.result = error
        finally:
            theirs.close()

    def wait(self, write: bool = False) -> None:
        """Until the socket is ready, as epoll would tell."""
        readable, writable, _ = select.select(
            [self.ours], [self.ours] if write else [], [], TIMEOUT
        )
        assert readable or writable, "nothing came"
        self.end.note(bool(readable), bool(writable))

    def handshake(self) -> bool | str:
        while (got := self.end.handshake()) == "again":
            self.wait()
        return got

    def recv(self, room: int = 65536) -> bytes | str:
        if not self.end.state["established"] and (done := self.handshake()) is not True:
            return done
        while (got := self.end.recv(room)) == "again":
            self.wait()
        return got

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = self.recv()
            assert isinstance(got, bytes), got
            data += got
        return data

    def send(self, *pieces: bytes) -> None:
        """All of it, however often it takes."""
        data = b"".join(pieces)
        while data:
            taken = self.end.send([data])
            assert taken >= 0
            data = data[taken:]
            while not self.end.flush():
                self.wait(write=True)

    def end_of_client(self) -> object:
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        return self.result


@contextmanager
def serving(context: SSL.Context, client: Callable[[socket.socket], object]) -> Iterator[Serving]:
    one = Serving(context, client)
    try:
        yield one
    finally:
        one.ours.close()
        one.thread.join(TIMEOUT)


def speaking(talk: Callable[[ssl.SSLSocket], object], version: str = "1.3", **more: object):
    """A client that makes the handshake and then talks."""

    def client(sock: socket.socket) -> object:
        with client_context(version).wrap_socket(sock, **more) as secure:  # type: ignore[arg-type]
            return talk(secure)

    return client


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_request_and_its_answer(context: SSL.Context, version: str) -> None:
    def talk(secure: ssl.SSLSocket) -> tuple[bytes, str | None]:
        secure.sendall(b"ping")
        return secure.recv(100), secure.version()

    with serving(context, speaking(talk, version)) as one:
        assert one.recv() == b"ping"
        assert one.end.state["established"]
        one.send(b"po", b"", b"ng")
        assert one.end_of_client() == (b"pong", f"TLSv{version}")


def test_a_small_answer_is_one_record(context: SSL.Context) -> None:
    with serving(context, _sizes_of_answers) as one:
        for _ in range(2):
            assert one.recv() == b"x"
            assert one.end.send([b"a" * 100, b"b" * 100, b"c" * 100]) == 300
        sizes = one.end_of_client()
    assert sizes[1] == 300 + 22  # type: ignore[index]  # header 5, content type 1, tag 16


def _sizes_of_answers(sock: socket.socket) -> list[int]:
    """The bytes that two answers take on the wire."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = client_context("1.3").wrap_bio(to_client, to_server)
    while True:
        try:
            secure.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(to_server.read())
            to_client.write(sock.recv(65536))
    sizes = []
    for _ in range(2):
        secure.write(b"x")
        sock.sendall(to_server.read())
        answer = b""
        while not answer:  # session tickets may come before the first one
            data = sock.recv(65536)
            to_client.write(data)
            with suppress(ssl.SSLWantReadError):
                answer = secure.read(1000)
        assert len(answer) == 300
        sizes.append(len(data))
    return sizes


def test_much_either_way(context: SSL.Context) -> None:
    up, down = bytes(range(256)) * 4096, bytes(reversed(range(256))) * 4096

    def talk(secure: ssl.SSLSocket) -> bool:
        secure.sendall(up)
        data = b""
        while len(data) < len(down):
            data += secure.recv(65536)
        return data == down

    with serving(context, speaking(talk)) as one:
        assert one.read(len(up)) == up
        one.send(down)
        assert one.end_of_client() is True


def test_what_does_not_fit_waits_for_the_socket(context: SSL.Context) -> None:
    held = threading.Event()

    def talk(secure: ssl.SSLSocket) -> int:
        secure.sendall(b"go")
        held.wait(TIMEOUT)
        count = 0
        while count < total:
            count += len(secure.recv(65536))
        return count

    with serving(context, speaking(talk)) as one:
        one.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert one.recv() == b"go"
        total = 0
        while taken := one.end.send([bytes(16384)]):
            total += taken
        assert one.end.waits()
        assert not one.end.flush()
        held.set()
        while not one.end.flush():
            one.wait(write=True)
        assert one.end_of_client() == total


def test_a_reader_with_little_room_gets_all(context: SSL.Context) -> None:
    with serving(context, speaking(lambda secure: secure.sendall(b"0123456789"))) as one:
        got = [one.recv(3) for _ in range(4)]
        assert got == [b"012", b"345", b"678", b"9"]


def test_close_notify_is_the_end(context: SSL.Context) -> None:
    def talk(secure: ssl.SSLSocket) -> None:
        with suppress(ssl.SSLError, OSError):
            secure.unwrap()

    with serving(context, speaking(talk)) as one:
        assert one.recv() == "end"
        assert one.end.state["ended"]
        assert one.recv() == "end"


def test_an_end_without_close_notify_is_a_failure(context: SSL.Context) -> None:
    """RFC 8446 6.1: what was cut off must not look whole."""

    def talk(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"half")
        secure.detach()

    def client(sock: socket.socket) -> None:
        secure = client_context("1.3").wrap_socket(sock)
        secure.sendall(b"half")
        fd = secure.detach()
        socket.socket(fileno=fd).close()

    with serving(context, client) as one:
        assert one.recv() == b"half"
        assert one.recv() == "failed"
        assert one.end.state["error"]


def test_our_end_reaches_the_client_as_close_notify(context: SSL.Context) -> None:
    def talk(secure: ssl.SSLSocket) -> bytes:
        secure.sendall(b"bye?")
        return secure.recv(10) + secure.recv(10)

    with serving(context, speaking(talk, suppress_ragged_eofs=False)) as one:
        assert one.recv() == b"bye?"
        one.send(b"bye!")
        one.end.shutdown()
        assert one.end_of_client() == b"bye!"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 99])
def test_what_is_not_tls_fails(context: SSL.Context, data: bytes) -> None:
    with serving(context, lambda sock: sock.sendall(data)) as one:
        assert one.recv() == "failed"


def test_a_wrong_handshake_is_told_by_an_alert(context: SSL.Context) -> None:
    def client(sock: socket.socket) -> bytes:
        sock.sendall(b"\x16\x03\x01\x00\x05hello")
        return sock.recv(100)

    with serving(context, client) as one:
        assert one.recv() == "failed"
        assert one.end_of_client()[:1] == b"\x15"  # type: ignore[index]


def test_a_client_that_leaves_in_the_handshake(context: SSL.Context) -> None:
    with serving(context, lambda sock: sock.sendall(b"\x16\x03\x01\x02")) as one:
        assert one.handshake() == "end"
        assert not one.end.state["established"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed(context: SSL.Context, version: str) -> None:
    def talk(secure: ssl.SSLSocket) -> tuple[ssl.SSLSession | None, bool]:
        secure.sendall(b"x")
        secure.recv(1)
        return secure.session, bool(secure.session_reused)

    session: ssl.SSLSession | None = None
    for reused in (False, True):
        with serving(context, speaking(talk, version, session=session)) as one:
            assert one.recv() == b"x"
            one.send(b"y")
            result = one.end_of_client()
            assert isinstance(result, tuple)
            session = result[0]
            assert result[1] is reused


# --- records that no library sends --------------------------------------------------------


def by_hand(folder: Path, talk: Callable[[socket.socket, Records], object]) -> object:
    """A client whose records are made by the test, once its handshake is done."""

    def client(sock: socket.socket) -> object:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(folder / "keys")
        with context.wrap_socket(sock, suppress_ragged_eofs=False) as secure:
            suite = secure.cipher()
            assert suite is not None
            bare = socket.socket(fileno=socket.dup(secure.fileno()))
            with bare:
                return talk(bare, Records(suite[0], folder / "keys"))

    return client


def test_records_made_by_hand_are_understood(context: SSL.Context, tmp_path: Path) -> None:
    def talk(sock: socket.socket, records: Records) -> None:
        sock.sendall(records.record(b"one") + records.update() + records.record(b"two"))

    with serving(context, by_hand(tmp_path, talk)) as one:  # type: ignore[arg-type]
        assert one.read(6) == b"onetwo"


def test_answers_that_nobody_reads_are_not_gathered_without_end(
    context: SSL.Context, tmp_path: Path
) -> None:
    """Each update of keys wants one in return; the data in between makes none of them idle."""
    count = 20_000

    def talk(sock: socket.socket, records: Records) -> None:
        for _ in range(count // 100):
            sock.sendall(b"".join(records.update() + records.record(b"x") for _ in range(100)))

    with serving(context, by_hand(tmp_path, talk)) as one:  # type: ignore[arg-type]
        one.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        got, data = b"", 0
        while isinstance(got := one.recv(), bytes) and data < count:
            data += len(got)
        one.ours.shutdown(socket.SHUT_RDWR)
    assert got == "failed"
    assert data < count
