"""Another version of the program takes the place of this one: `fastlb upgrade`, SIGUSR2.

1. Rehearsal: the new program is started beside this one, imports all it needs, checks the
   configuration and ends. If it fails, nothing has happened.
2. This process executes the new program, under its own process id, so that a service manager sees
   no change. It hands over by descriptors what could not be had again: the lock of the state
   directory, the secret, the command socket, and listening sockets.
3. The new program takes the workers over (adopt.py), starts others beside them, and lets those of
   before leave.
"""

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

import fastlb
from fastlb import errors, manifest, side_process
from fastlb.errors import StartError

ENVIRONMENT = "FASTLB_UPGRADE"
REHEARSE = "--rehearse"
REHEARSAL_S = 60.0
LINES_SHOWN = 20


class Rehearsed(msgspec.Struct):
    """What the new program says of itself."""

    version: str
    layout: str
    state_dir: str


class Inheritance(msgspec.Struct):
    """What this process had before it executed this program: descriptors."""

    pid: int
    version: str
    lock: int
    secret: int
    control: int
    sockets: list[tuple[int, int]]  # (number, descriptor) of listening sockets


def program() -> list[str]:
    """How this process was started, to be started again."""
    return [sys.executable, *sys.orig_argv[1:]]


def rehearsed(state_dir: Path) -> str:
    """The new program's answer, on standard output, once it has found nothing wrong."""
    for name in ("fastlb.control", "fastlb._core.worker", "fastlb.tls_contexts"):
        importlib.import_module(name)
    answer = Rehearsed(fastlb.__version__, manifest.layout(), str(state_dir.resolve()))
    return msgspec.json.encode(answer).decode()


def rehearse(command: Sequence[str]) -> Rehearsed:
    """Starts the new program beside this one. Raises StartError with what it says is wrong."""
    with side_process.memory("answer") as answer, side_process.memory("trouble") as trouble:
        try:
            status = side_process.run(
                [*command, REHEARSE], REHEARSAL_S, stdout=answer, stderr=trouble
            )
        except OSError as error:
            how = f"{command[0]}: {error.strerror or error}"
            raise StartError(errors.REHEARSAL_FAILED, how=how) from None
        answered, said_wrong = side_process.read(answer), side_process.read(trouble)
    if status is None:
        raise StartError(errors.REHEARSAL_FAILED, how=f"took over {REHEARSAL_S:g} s")
    if status == 0:
        with suppress(msgspec.DecodeError, IndexError):
            return msgspec.json.decode(answered.splitlines()[-1], type=Rehearsed)
    said = said_wrong.strip().splitlines()[-LINES_SHOWN:]
    how = f"ended with exit status {status}"
    raise StartError.of_all(
        [
            StartError(errors.REHEARSAL_FAILED, how=how),
            *(StartError(errors.REHEARSAL_SAID, line=line) for line in said),
        ]
    )


def execute(command: Sequence[str], kept: Inheritance) -> None:
    """Becomes the new program; returns only by OSError, and then nothing has changed."""
    fds = [kept.lock, kept.secret, kept.control, *(fd for _, fd in kept.sockets)]
    for fd in fds:
        os.set_inheritable(fd, True)
    environment = {**os.environ, ENVIRONMENT: msgspec.json.encode(kept).decode()}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(command[0], list(command), environment)
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


def inheritance() -> Inheritance | None:
    """What was handed over to this process; nothing, if it was started as others are."""
    text = os.environ.pop(ENVIRONMENT, "")
    with suppress(msgspec.DecodeError):
        found = msgspec.json.decode(text, type=Inheritance)
        if found.pid == os.getpid():
            for fd in (found.lock, found.secret, found.control, *(fd for _, fd in found.sockets)):
                os.set_inheritable(fd, False)
            return found
    return None


def reap_all() -> None:
    """Children of the program before that have ended meanwhile; there are no others yet."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def secret_file(secret: bytes) -> int:
    """A descriptor of memory that holds the secret."""
    fd = os.memfd_create("fastlb-secret", os.MFD_CLOEXEC)
    os.write(fd, secret)
    return fd


def read_secret(fd: int) -> bytes:
    """And back; the descriptor is closed."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def numbered(sockets: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Listening sockets of each address, by their numbers there."""
    return [(number, fd) for fds in sockets for number, fd in enumerate(fds)]
