"""What other parsers read in the bytes of a message: h11, llhttp (as httptools has it), nginx,
and http.client of Python's library.

A reading is a list of messages, of (start, fields, body) each; the last one is INCOMPLETE where
the bytes end within it, or REFUSED where the parser does not accept them. Fields are in order,
names in lower case, values without white space at their ends.
"""

import http.client
import io
import socket
from pathlib import Path
from typing import Any

import h11
import httptools

from tests.harness.client import Client
from tests.harness.nginx import Nginx
from tests.harness.wait import until

INCOMPLETE = "incomplete"
REFUSED = "refused"
Fields = list[tuple[bytes, bytes]]


def folded(fields: Any) -> Fields:
    """h11 gives the coding in lower case, so all do."""
    out = [(bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in fields]
    return [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in out]


def h11_requests(data: bytes) -> list[Any]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    return _h11(connection, data, [])


def h11_responses(data: bytes, methods: list[bytes], closed: bool) -> list[Any]:
    """`closed`: the connection ended in order behind the bytes."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 17)
    return _h11(connection, data, methods, closed)


def _h11(
    connection: h11.Connection, data: bytes, methods: list[bytes], closed: bool = False
) -> Any:
    found: list[Any] = []
    methods = list(methods)
    start: Any = None
    fields: Fields = []
    body = b""
    if methods:
        _h11_ask(connection, methods.pop(0))
    connection.receive_data(data)
    if closed:
        connection.receive_data(b"")
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            # "peer unexpectedly closed connection": what came before it was good.
            return [*found, INCOMPLETE if closed and "closed" in str(error) else REFUSED]
        if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            pending = start is not None or (connection.trailing_data[0] and not found)
            return [*found, INCOMPLETE] if pending else found
        if isinstance(event, h11.Request):
            start, fields, body = (event.method, event.target), folded(event.headers), b""
        elif isinstance(event, h11.Response):
            start, fields, body = event.status_code, folded(event.headers), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((start, fields, body))
            start = None
            if connection.our_role is h11.SERVER:
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return found
            connection.start_next_cycle()
            if connection.our_role is h11.CLIENT:
                if not methods:
                    return found
                _h11_ask(connection, methods.pop(0))


def _h11_ask(connection: h11.Connection, method: bytes) -> None:
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())


class _Llhttp:
    """The callbacks of httptools."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.parser: Any = None
        self.inside = False

    def on_message_begin(self) -> None:
        self.inside, self.url, self.fields, self.body = True, b"", [], b""
        self.ended = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.ended:  # trailers come the same way
            self.fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        self.ended = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.inside = False
        start: Any
        if isinstance(self.parser, httptools.HttpRequestParser):
            start = (self.parser.get_method(), self.url)
        else:
            start = self.parser.get_status_code()
        self.found.append((start, folded(self.fields), self.body))


def llhttp_requests(data: bytes) -> list[Any]:
    reading = _Llhttp()
    while data:
        reading.parser = httptools.HttpRequestParser(reading)
        try:
            reading.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # It stops there; a server that does not switch goes on behind it.
            data = data[upgrade.args[0] :]
            continue
        except httptools.HttpParserError:
            return [*reading.found, REFUSED]
        break
    return [*reading.found, INCOMPLETE] if reading.inside else reading.found


def llhttp_responses(data: bytes, methods: list[bytes], closed: bool) -> list[Any]:
    """It does not know of HEAD: not for such answers. Interim ones are left out."""
    reading = _Llhttp()
    reading.parser = httptools.HttpResponseParser(reading)
    try:
        reading.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return [*_final(reading.found), REFUSED]
    if reading.inside and closed and reading.ended and not _framed(reading.fields):
        reading.on_message_complete()
    return [*_final(reading.found), INCOMPLETE] if reading.inside else _final(reading.found)


def _framed(fields: Fields) -> bool:
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields)


def _final(found: list[Any]) -> list[Any]:
    return [one for one in found if one[0] >= 200]


class _Bytes(io.BytesIO):
    """A socket, for http.client: makefile is all that it asks for. Its end may be a reset."""

    def __init__(self, data: bytes, closed: bool):
        super().__init__(data)
        self.size = len(data)
        self.in_order = closed

    def makefile(self, mode: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        """The next response is behind this one."""

    def _end(self, short: bool) -> None:
        if short and not self.in_order and self.tell() == self.size:
            raise ConnectionResetError

    def read(self, count: int | None = -1, /) -> bytes:
        data = super().read(count)
        self._end(count is None or count < 0 or len(data) < count)
        return data

    def readline(self, count: int | None = -1, /) -> bytes:
        line = super().readline(count)
        self._end(not line.endswith(b"\n"))
        return line


def library_responses(data: bytes, methods: list[bytes], closed: bool) -> list[Any]:
    """http.client joins nothing and drops trailers, and reads one response at a time."""
    stream = _Bytes(data, closed)
    found: list[Any] = []
    methods = list(methods)
    while methods and stream.tell() < len(data):
        if b"\r\n\r\n" not in data[stream.tell() :]:
            return [*found, INCOMPLETE]  # it takes an end within a head for the end of the head
        method = methods[0]
        response = http.client.HTTPResponse(stream, method=method.decode())  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except (http.client.IncompleteRead, ConnectionResetError):
            return [*found, INCOMPLETE]
        except (http.client.HTTPException, ValueError):
            return [*found, INCOMPLETE if stream.tell() == len(data) else REFUSED]
        if response.status < 200:
            continue
        methods.pop(0)
        if response.length:
            return [*found, INCOMPLETE]
        fields = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.getheaders()]
        found.append((response.status, folded(fields), body))
    return found


class NginxReader:
    """nginx as the node: what its access log says of each connection's requests."""

    CONFIG = """
    keepalive_requests 100000;
    large_client_header_buffers 8 64k;
    client_max_body_size 0;
    access_log %s/seen.log seen;
    location / { return 204; }
    """

    def __init__(self) -> None:
        self.nginx = Nginx("", top="")
        self.asked: list[int] = []

    def __enter__(self) -> "NginxReader":
        original = self.nginx._config
        log_format = (
            "log_format seen escape=none '$remote_port $status $request_method $request_uri "
            "$http_host';\n  access_log off;"
        )

        def config(folder: Path) -> str:
            self.log = folder / "seen.log"
            self.nginx.locations = self.CONFIG % folder
            return original(folder).replace("access_log off;", log_format, 1)

        self.nginx._config = config  # type: ignore[method-assign]
        self.nginx.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.nginx.__exit__(*exc)

    def requests(self, units: list[bytes]) -> list[list[Any]]:
        """The reading of each; only (method, target) and Host of each request."""
        before = self.log.stat().st_size if self.log.exists() else 0
        ports = [self._send(unit) for unit in units]
        assert len(set(ports)) == len(ports), "a port was used twice within one batch"
        with Client((self.nginx.host, self.nginx.port)) as client:
            client.send(b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n")
            client.reader.rest()
        until(lambda: b"/end end\n" in self.log.read_bytes()[before:], "nginx's log")
        seen: dict[int, list[Any]] = {port: [] for port in ports}
        for line in self.log.read_bytes()[before:].splitlines():
            port, status, method, target, host = line.split(b" ", 4)
            if int(port) in seen:
                refused = status in (b"400", b"414", b"405", b"501", b"505", b"494", b"000")
                seen[int(port)].append(REFUSED if refused else ((method, target), host))
        return [seen[port] for port in ports]

    def _send(self, unit: bytes) -> int:
        with Client((self.nginx.host, self.nginx.port)) as client:
            port = client.sock.getsockname()[1]
            client.send_if_open(unit)
            try:
                client.sock.shutdown(socket.SHUT_WR)
                client.reader.rest()
            except OSError:
                return port
            return port
