"""Upgrades become tunnels: bytes both ways, half-close, and the session's node."""

import asyncio
import threading

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.harness import HttpNode, RawNode, next_host, proxy, reply, request, settings, sticky

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "echo")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def test_a_raw_upgrade_carries_bytes_both_ways():
    def echo(exchange):
        assert exchange.request.get("Upgrade") == b"echo"
        assert b"upgrade" in exchange.request.get("Connection").lower()
        exchange.send(SWITCH + b"hello from the node")
        exchange.send(exchange.read(5).upper())
        exchange.close()

    with RawNode(echo) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request("/", *UPGRADE) + b"ab")
        answer = client.response()
        assert answer.status == 101
        assert answer.get("Upgrade") == b"echo"
        assert client.reader.exactly(19) == b"hello from the node"
        client.send(b"cde")
        assert client.reader.rest() == b"ABCDE"


def test_either_side_of_a_tunnel_may_finish_first():
    def answer(exchange):
        exchange.send(SWITCH)
        if exchange.request.target == b"/client-first":
            exchange.send(b"got " + exchange.read_rest())
        else:
            exchange.send(b"bye")
            exchange.half_close()
            assert exchange.read_rest() == b"still talking"
        exchange.close()

    with RawNode(answer) as node, proxy(settings(node)) as p:
        with p.client() as client:
            client.send(request("/client-first", *UPGRADE))
            client.response()
            client.send(b"all of it")
            client.half_close()
            assert client.reader.rest() == b"got all of it"
        with p.client() as client:
            client.send(request("/node-first", *UPGRADE))
            client.response()
            assert client.reader.rest() == b"bye"
            client.send(b"still talking")
        assert node.wait_connections(2)[1].ended.wait(10)


def test_a_tunnel_carries_megabytes_both_ways_at_once():
    blob = bytes(range(256)) * 16384  # 4 MiB

    def answer(exchange):
        exchange.send(SWITCH)
        sender = threading.Thread(target=exchange.send, args=(blob,))
        sender.start()
        assert exchange.read(len(blob)) == blob
        sender.join()
        exchange.close()

    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request("/", *UPGRADE))
        client.response()
        sender = threading.Thread(target=client.send, args=(blob,))
        sender.start()
        assert client.reader.exactly(len(blob)) == blob
        sender.join()


def test_a_refused_upgrade_is_a_usual_answer():
    with RawNode(reply(426, b"no")) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request("/", *UPGRADE))
        assert client.response().status == 426
        client.send(request("/"))
        assert client.response().status == 426


def test_a_101_that_nobody_asked_for_is_a_bad_answer():
    with RawNode(SWITCH + b"raw") as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        assert client.response().status == 502


def test_the_101_carries_the_session_cookie_and_the_reconnect_finds_the_node():
    def serve_both(name):
        def answer(exchange):
            if exchange.request.all("Upgrade"):
                exchange.send(SWITCH + name)
                exchange.read_rest()
                exchange.close()
            else:
                exchange.send(reply(200, name))

        return answer

    with RawNode(serve_both(b"A")) as a, RawNode(serve_both(b"B")) as b, proxy(sticky(a, b)) as p:
        with p.client() as client:
            client.send(request("/", *UPGRADE))
            (cookie,) = client.response().all("Set-Cookie")
            first = client.reader.exactly(1)
        pair = cookie.split(b";")[0].decode()
        for _ in range(4):
            assert p.get("/", ("Cookie", pair)).body == first


def test_websockets_through_the_proxy_hold_their_sessions():
    hosts = [next_host(), next_host()]

    async def story():
        async def echo(socket):
            await socket.send(socket.local_address[0])
            async for message in socket:
                await socket.send(message)

        async with serve(echo, hosts[0], 0) as one, serve(echo, hosts[1], 0) as two:
            ports = [server.sockets[0].getsockname()[1] for server in (one, two)]
            nodes = [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)]
            with proxy(sticky(*nodes)) as p:
                await user(p)

    async def user(p):
        host, port = p.address()
        url = f"ws://{host}:{port}/chat"
        async with connect(url, proxy=None) as socket:
            home = await socket.recv()
            cookie = socket.response.headers["Set-Cookie"].split(";")[0]
            for message in ("hello", "x" * 300_000, b"\x00\xff" * 1000, ""):
                await socket.send(message)
                assert await socket.recv() == message
            assert await (await socket.ping()) >= 0
        for _ in range(4):
            headers = {"Cookie": cookie}
            async with connect(url, proxy=None, additional_headers=headers) as socket:
                assert await socket.recv() == home

    asyncio.run(story())


def test_an_abrupt_websocket_client_is_seen_by_the_server():
    ends = []

    async def story():
        ended = asyncio.Event()

        async def wait_for_end(socket):
            try:
                await socket.recv()
            except websockets.ConnectionClosed as error:
                ends.append(type(error).__name__)
            ended.set()

        async with serve(wait_for_end, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with proxy(settings(f"127.0.0.1:{port}")) as p:
                host, port = p.address()
                async with connect(f"ws://{host}:{port}/", proxy=None) as socket:
                    socket.transport.abort()
                await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(story())
    assert ends == ["ConnectionClosedError"]


def test_a_tunnel_survives_more_than_the_keep_alive_time():
    def echo(exchange):
        exchange.send(SWITCH)
        while data := exchange.connection.reader.sock.recv(100):
            exchange.send(data)
        exchange.close()

    timeouts = {"keep_alive": "100ms", "client_header": "100ms", "response": "100ms"}
    with RawNode({"/up": echo, "*": reply(200)}) as node, HttpNode("other"):
        with proxy(settings(node, timeouts=timeouts)) as p, p.client() as client:
            client.send(request("/up", *UPGRADE))
            client.response()
            with p.client() as idle:  # its keep-alive time-out is the tunnel's clock
                idle.ask()
                idle.expect_closed()
            with p.client() as idle:
                idle.ask()
                idle.expect_closed()
            client.send(b"still here")
            assert client.reader.exactly(10) == b"still here"
