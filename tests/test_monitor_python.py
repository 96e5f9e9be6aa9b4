"""The process of monitors' functions: what it does to itself is no node's fault."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastlb import monitor_python
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.monitor_link import Failed, NotDone, Target
from fastlb.monitor_python import Functions
from fastlb.slots import NodeKey
from tests.harness import TIMEOUT

MODULE = """
import asyncio, os, re

async def check(node):
    match node.name:
        case "good":
            return True
        case "holds":
            re.match("(a+)+$", "a" * 64 + "b")  # in C, and Python's lock with it
        case "prints":
            print('{"id": 1, "good": true}')
            os.write(1, b'{"id": 2, "good": true}')
            return False
        case "long":
            raise ValueError("x" * 100_000)
        case "waits":
            await asyncio.sleep(60)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_python, "DELAY_MIN_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checks.py").write_text(MODULE)
    return tmp_path


def config(folder: Path, function: str = "checks:check", timeout: str = "10s") -> Config:
    text = '[virtual_servers.a]\nlisten = "127.0.0.1:1"\npool = "web"\n'
    text += '[pools.web]\nnodes = ["10.0.0.1:80"]\nmonitors = ["m"]\n[monitors.m]\n'
    text += f'type = "python"\nfunction = "{function}"\ntimeout = "{timeout}"\n'
    found = check_text(text, folder / "fastlb.toml")
    assert found.config is not None, found.errors
    return found.config


@asynccontextmanager
async def running(cfg: Config) -> AsyncIterator[Functions]:
    functions = Functions()
    functions.use(cfg)
    try:
        yield functions
    finally:
        functions.close()


async def ask(functions: Functions, cfg: Config, name: str) -> str:
    target = Target(cfg.monitors["m"], NodeKey("web", "10.0.0.1", 80), name)
    return await functions.check(target)


def test_what_it_prints_is_no_answer(folder: Path) -> None:
    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            with pytest.raises(Failed, match="the function says no"):
                await ask(functions, cfg, "prints")
            assert await ask(functions, cfg, "good") == "the function says so"

    asyncio.run(main())


def test_a_long_reason_is_an_answer_too(folder: Path) -> None:
    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            with pytest.raises(Failed, match=r"^ValueError: x{138} at checks\.py:1[0-9]$"):
                await ask(functions, cfg, "long")
            assert await ask(functions, cfg, "good")

    asyncio.run(main())


def test_one_that_holds_pythons_lock_is_ended_from_outside(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            await ask(functions, cfg, "good")
            process = functions._process
            assert process is not None
            monkeypatch.setattr(monitor_python, "GRACE_S", 0.2)
            short = config(folder, timeout="100ms")
            with pytest.raises(NotDone, match="does not answer"):
                await ask(functions, short, "holds")
            assert process.ended == "does not answer"
            monkeypatch.setattr(monitor_python, "GRACE_S", TIMEOUT)
            assert await ask(functions, cfg, "good")

    asyncio.run(main())
    assert "[FLB-S182]" in capsys.readouterr().err


def test_it_may_be_killed_and_its_checks_are_not_done(folder: Path) -> None:
    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            await ask(functions, cfg, "good")
            assert functions._process is not None
            waiting = asyncio.ensure_future(ask(functions, cfg, "waits"))
            await asyncio.sleep(0)
            os.kill(functions._process.pid, signal.SIGKILL)
            with pytest.raises(NotDone, match="was killed by SIGKILL"):
                await waiting
            assert await ask(functions, cfg, "good")

    asyncio.run(main())


def test_who_keeps_ending_is_started_less_and_less_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_python, "DELAY_MIN_S", 3600.0)
    (folder / "checks.py").write_text("import os\nos._exit(3)\n")

    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            with pytest.raises(NotDone, match="ended with exit status 3"):
                await ask(functions, cfg, "good")
            with pytest.raises(NotDone, match="waits to be started again"):
                await ask(functions, cfg, "good")
            functions.use(cfg)  # a reload
            with pytest.raises(NotDone, match="ended with exit status 3"):
                await ask(functions, cfg, "good")

    asyncio.run(main())


def test_a_module_that_cannot_be_imported_fails_no_node(folder: Path) -> None:
    (folder / "checks.py").write_text("import no_such_module\n")

    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            with pytest.raises(NotDone, match="no_such_module"):
                await ask(functions, cfg, "good")

    asyncio.run(main())


def test_nothing_is_left_when_it_is_closed(folder: Path) -> None:
    async def main() -> None:
        cfg = config(folder)
        async with running(cfg) as functions:
            await ask(functions, cfg, "good")
            assert functions._process is not None
            pid = functions._process.pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(main())
