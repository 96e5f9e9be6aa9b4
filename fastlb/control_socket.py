"""The control socket: one JSON object per line each way, in STATE_DIR/control.sock (0600).

A request is `{"command": "status"}`; the answer has `ok`, and `error` when that is false.
The server is the control process's; the client is what the commands use.
"""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from fastlb import errors, log, reserve
from fastlb.errors import Refused, StartError
from fastlb.units import UNIX_PATH_BYTES_MAX

NAME = "control.sock"
REQUEST_BYTES_MAX = 65536
REQUEST_S = 10.0  # for a client to send its line
ANSWER_S = 30.0  # and to take the answer
BACKLOG = 100
RETRY_S = 0.2  # without descriptors

Answer = dict[str, Any]
W = TypeVar("W", bound=str)
Command = Callable[[Answer], Awaitable[Answer]]


class NobodyThere(StartError):
    """No control process listens; there may be workers all the same."""


def socket_path(state_dir: Path) -> Path:
    return state_dir / NAME


class ControlSocket:
    """Serves `commands`, by name."""

    def __init__(
        self, state_dir: Path, commands: Mapping[str, Command], inherited: int | None = None
    ) -> None:
        """`inherited`: listening descriptor of the program that this process was before."""
        self.path = socket_path(state_dir)
        self.commands = commands
        self.listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._inherited = inherited

    async def open(self) -> None:
        """Begins to listen; the state directory's lock is held, so an old file is stale."""
        if self._inherited is not None:
            self.listener = socket.socket(fileno=self._inherited)
            self.listener.setblocking(False)
        else:
            self.listener = self._opened()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self.listener))

    def _opened(self) -> socket.socket:
        if len(os.fsencode(self.path)) > UNIX_PATH_BYTES_MAX:
            raise StartError(
                errors.STATE_DIR,
                path=self.path.parent,
                reason=f"too long for a socket in it ({UNIX_PATH_BYTES_MAX} bytes at most)",
            )
        try:
            self.path.unlink(missing_ok=True)
            return self._listen()
        except OSError as error:
            raise StartError(
                errors.STATE_DIR, path=self.path.parent, reason=error.strerror or error
            ) from None

    def _listen(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            one.setblocking(False)
            one.bind(str(self.path))
            one.listen(BACKLOG)
        except OSError:
            one.close()
            raise
        finally:
            os.umask(before)
        return one

    def fileno(self) -> int:
        """Of the listening socket."""
        assert self.listener is not None
        return self.listener.fileno()

    def close(self) -> None:
        if self.listener is not None and self._accepting is not None:
            self._accepting.cancel()
            self.listener.close()
            with suppress(OSError):
                self.path.unlink()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                one, _ = await loop.sock_accept(listener)
            except OSError as error:
                if reserve.is_short(error) and reserve.give():
                    log.warn(errors.NO_DESCRIPTORS.line(what="commands"))
                else:
                    await asyncio.sleep(RETRY_S)
                continue
            reader = asyncio.StreamReader(REQUEST_BYTES_MAX)
            protocol = asyncio.StreamReaderProtocol(reader, self._serve)
            try:
                await loop.connect_accepted_socket(partial(lambda made: made, protocol), one)
            except OSError:
                one.close()  # it has gone already

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await asyncio.wait_for(reader.readline(), REQUEST_S):
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), ANSWER_S)
        except (OSError, ValueError, TimeoutError):
            pass  # gone, silent, without a use for the answer, or a line without end
        except asyncio.CancelledError:
            pass  # the process ends; streams would print a traceback for it
        finally:
            writer.close()
            asyncio.get_running_loop().call_later(ANSWER_S, writer.transport.abort)

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "not JSON"}
        name = request.get("command") if isinstance(request, dict) else None
        if not isinstance(name, str) or name not in self.commands:
            known = ", ".join(self.commands)
            return {"ok": False, "error": f"no such command; expected one of {known}"}
        try:
            return await self.commands[name](request)
        except Refused as error:
            return {"ok": False, "error": str(error)}
        except OSError as error:
            reason = error.strerror or error
            refused = Refused(errors.COMMAND_FAILED, what=name, reason=reason)
            return {"ok": False, "error": str(refused)}


@overload
def text(request: Answer, name: str) -> str: ...
@overload
def text(request: Answer, name: str, *, optional: Literal[True]) -> str | None: ...
def text(request: Answer, name: str, *, optional: bool = False) -> str | None:
    """One value of a request. Raises Refused when it is no text."""
    value = request.get(name)
    if isinstance(value, str) or (value is None and optional):
        return value
    raise Refused(errors.BAD_COMMAND, reason=f"{name} is not text")


def chosen(request: Answer, name: str, known: Sequence[W]) -> W:
    """One value of a request out of those known. Raises Refused."""
    for value in known:
        if request.get(name) == value:
            return value
    raise Refused(errors.BAD_COMMAND, reason=f"{name} is not one of {', '.join(known)}")


def ask(state_dir: Path, command: str, timeout_s: float = 60.0, **values: object) -> Answer:
    """Sends one command and returns the answer. Raises StartError when nobody is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(timeout_s)
        try:
            one.connect(str(socket_path(state_dir)))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NobodyThere(errors.NOT_RUNNING, path=state_dir) from None
        except OSError as error:
            reason = error.strerror or error
            raise StartError(errors.NO_ANSWER, path=state_dir, reason=reason) from None
        try:
            one.sendall(json.dumps({"command": command, **values}).encode() + b"\n")
            with one.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise StartError(errors.NO_ANSWER, path=state_dir, reason=error) from None
    return answer if isinstance(answer, dict) else {"ok": False, "error": "no answer"}
