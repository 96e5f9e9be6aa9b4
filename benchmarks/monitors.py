"""What health checks cost the control process.

    python -m benchmarks.monitors [--checks 2000] [--nodes 4000 --seconds 15]

First single checks in this process, then a whole proxy with `--nodes` nodes that are checked every
2 s: how long until each was checked, and the CPU time of its control process. One server, in a
process of its own, answers for all nodes.
"""

import argparse
import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from fastlb.config import Monitor
from fastlb.monitor_http import check_http
from fastlb.monitor_link import Target, check_tcp
from fastlb.slots import NodeKey
from fastlb.tls_material import UNVERIFIED
from tests.harness import proxy, settings, until
from tests.harness.certificates import Authority
from tests.harness.operator import pool_of

AT_ONCE = 64
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve(pem: str | None) -> None:
    """The node: says its port, then answers until its standard input ends."""
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", 0, ssl=context, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def node(pem: Path | None = None) -> Iterator[int]:
    """The port of a running one."""
    command = [sys.executable, "-m", "benchmarks.monitors", "--serve", str(pem or "")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def cost_us(check: Callable[[Target], Awaitable[str]], target: Target, count: int) -> float:
    """CPU time of this process for one check."""

    async def main() -> float:
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with room, asyncio.timeout(30):
                await check(target)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        begun = time.process_time()
        await asyncio.gather(*(one() for _ in range(count)))
        return (time.process_time() - begun) / count * 1e6

    return asyncio.run(main())


def single(count: int) -> None:
    """One kind of check after the other."""
    with tempfile.TemporaryDirectory() as folder:
        pair = Authority(Path(folder)).certificate("node.test")
        pem = Path(folder, "both.pem")
        pem.write_bytes(pair.certificate_path.read_bytes() + pair.key_path.read_bytes())
        for name, check, tls in (
            ("tcp", check_tcp, None),
            ("http", check_http, None),
            ("http over TLS", check_http, UNVERIFIED),
        ):
            with node(pem if tls else None) as port:
                key = NodeKey("web", "127.0.0.1", port)
                target = Target(Monitor(type="http"), key, key.ip, tls=tls)
                print(f"{name}: {cost_us(check, target, count):.0f} us of CPU for each check")


def whole(nodes: int, seconds: float) -> None:
    """A proxy that checks that many nodes every 2 s."""
    with node() as port:
        config = settings(*(f"127.1.{n // 250}.{n % 250 + 1}:{port}" for n in range(nodes)))
        config["monitors"] = {"check": {"type": "http", "interval": "2s"}}
        config["pools"]["web"]["monitors"] = ["check"]
        with proxy(config) as p:
            assert p.process is not None
            pid, begun = p.process.pid, time.monotonic()

            def figures(name: str) -> list[int]:
                return [one["monitors"][0][name] for one in pool_of(p)]

            until(lambda: all(figures("checks")), "every node was checked", 120)
            print(f"{nodes} nodes: all checked {time.monotonic() - begun:.1f} s after the start")
            checks, cpu, begun = sum(figures("checks")), cpu_s(pid), time.monotonic()
            time.sleep(seconds)
            cpu, passed = cpu_s(pid) - cpu, time.monotonic() - begun
            checks = sum(figures("checks")) - checks
            print(f"  {checks / passed:.0f} checks/s, {100 * cpu / passed:.0f} % of a CPU, "
                  f"{cpu / checks * 1e6:.0f} us for each; {sum(figures('failures'))} failed, "
                  f"{sum(figures('not_done'))} not done")  # fmt: skip


def cpu_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--checks", type=int, default=2000)
    arguments.add_argument("--nodes", type=int, default=4000)
    arguments.add_argument("--seconds", type=float, default=15)
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve or None))
        return
    single(given.checks)
    whole(given.nodes, given.seconds)


if __name__ == "__main__":
    main()
