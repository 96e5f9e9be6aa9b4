"""What one program hands over to the next, and what stops it before."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastlb import control, manifest, upgrade
from fastlb.columns import Columns
from fastlb.control import Control
from fastlb.errors import StartError
from fastlb.succession import Succession
from fastlb.upgrade import ENVIRONMENT, Inheritance, Rehearsed


def said(arguments: str) -> list[str]:
    return [sys.executable, "-c", arguments]


def test_a_rehearsal_says_what_comes() -> None:
    answer = {"version": "2", "layout": "x", "state_dir": "/s"}
    new = upgrade.rehearse(said(f"print('noise'); print({json.dumps(json.dumps(answer))})"))
    assert new == Rehearsed("2", "x", "/s")


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (said("import sys; sys.exit('the reason')"), ("exit status 1", "it said: the reason")),
        (said("print('{}')"), ("exit status 0",)),
        (said("pass"), ("exit status 0",)),
        (["/nonexistent/python"], ("/nonexistent/python: No such file",)),
    ],
)
def test_a_rehearsal_that_fails_says_why(command: list[str], parts: tuple[str, ...]) -> None:
    with pytest.raises(StartError) as caught:
        upgrade.rehearse(command)
    text = "\n".join(caught.value.lines)
    assert "nothing has changed [FLB-S135]" in text
    for part in parts:
        assert part in text


def test_a_rehearsal_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "REHEARSAL_S", 0.2)
    with pytest.raises(StartError, match="took over"):
        upgrade.rehearse(said("import time; time.sleep(60)"))


def test_the_secret_goes_through_memory() -> None:
    assert upgrade.read_secret(upgrade.secret_file(b"x" * 32)) == b"x" * 32


def test_only_this_process_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    for pid, found in ((os.getpid() + 1, False), (os.getpid(), True)):
        kept = Inheritance(pid, "1", reader, reader, reader, [(0, writer)])
        text = upgrade.msgspec.json.encode(kept).decode()
        monkeypatch.setenv(ENVIRONMENT, text)
        assert (upgrade.inheritance() == kept) is found
        assert ENVIRONMENT not in os.environ
    assert upgrade.inheritance() is None
    os.close(reader)
    os.close(writer)


class Here(Control):
    """As far as an upgrade needs it."""

    def __init__(self, count: int, leaving: int) -> None:
        self.ready, self.stopping = True, asyncio.Event()
        self.reloading = asyncio.Lock()
        columns = Columns()
        columns.adopt(columns.chosen(count))
        columns.leaving |= set(range(count, count + leaving))
        self.in_force = SimpleNamespace(  # type: ignore[assignment]
            columns=columns,
            generation=1,
            listeners=SimpleNamespace(open={}),
            cfg=self,
            tls=None,
            monitors=SimpleNamespace(close=lambda: None, sync=lambda cfg, tls: None),
        )
        self.workers = SimpleNamespace(count=count, running={})  # type: ignore[assignment]
        self.cfg = SimpleNamespace(  # type: ignore[assignment]
            proxy=SimpleNamespace(state_dir=control.Path("/"))
        )
        self.lock = SimpleNamespace(fd=0)  # type: ignore[assignment]
        self.control_socket = SimpleNamespace(fileno=lambda: 0)  # type: ignore[assignment]
        self.notify = control.Notify({})
        self.secret = b"s"


def test_too_many_workers_that_leave_are_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "rehearse", lambda _: Rehearsed("2", "x", "/"))
    with pytest.raises(StartError, match="FLB-S138"):
        asyncio.run(Succession(Here(50, 70)).prepare())
    assert asyncio.run(Succession(Here(50, 20)).prepare()).version == "2"


def test_a_stop_does_not_wait_for_a_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for what it has started, which holds its descriptors."""
    wait = f"open({str(tmp_path / 'on')!r}, 'w'); import time; time.sleep(60)"
    program = said(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {wait!r}])")
    monkeypatch.setattr(upgrade, "program", lambda: program)

    async def main() -> float:
        here = Here(1, 0)
        here.hurrying, here.in_force.changes = asyncio.Event(), SimpleNamespace(notify=bool)
        prepared = asyncio.create_task(Succession(here).prepare())
        while not (tmp_path / "on").exists():
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        here.stop()
        with pytest.raises(StartError, match="stops just now"):
            await prepared
        assert not here.reloading.locked()
        return begun

    begun = asyncio.run(main())  # which waits for its threads
    assert time.monotonic() - begun < upgrade.REHEARSAL_S / 2


def test_a_program_that_cannot_be_executed_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upgrade, "program", lambda: ["/nonexistent/python"])

    async def main() -> bool:
        here = Here(1, 0)
        await here.reloading.acquire()
        Succession(here).execute(Rehearsed("2", manifest.layout(), "/"))
        return here.reloading.locked()

    before = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(main()) is False
    assert "FLB-S137" in capsys.readouterr().err
    assert len(os.listdir("/proc/self/fd")) == before
