"""Commands to a running proxy as a whole: reload, upgrade, stop, status."""

import json
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fastlb import errors, log
from fastlb.command import DONE, FAILED, WRONG, Arguments, Commands, ask_running, state_dir
from fastlb.control_socket import Answer, NobodyThere, ask
from fastlb.errors import StartError
from fastlb.side_process import ends_within

EXTRA_STOP_S = 15  # beyond the drain time, before `stop` gives up waiting
UPGRADE_S = 60.0  # for the new program to serve
LOOK_S = 0.1


def add(commands: Commands) -> None:
    commands.add("reload", reload, "put a changed configuration in force, in place", "")
    what = "replace the running program by the installed one"
    one = commands.add("upgrade", upgrade, what, "")
    one.add_argument("--json", action="store_true", help="what was done, for programs")
    one = commands.add("stop", stop, "end the proxy when running requests have ended", "")
    one.add_argument("--now", action="store_true", help="do not wait for running requests")
    one = commands.add("status", status, "show workers, nodes and sessions", "--json")
    one.add_argument("--json", action="store_true", help="all of it, for programs")


def reload(arguments: Arguments) -> int:
    answer = ask_running(arguments, "reload")
    for line in answer.get("warnings", []):
        log.warn(line)
    for line in (*answer.get("refused", []), *answer.get("errors", [])):
        log.error(line)
    if answer["ok"]:
        print(f"{answer['file']}: in force (generation {answer['generation']})")
        return DONE
    log.error("not reloaded: the configuration before stays in force")
    return WRONG if answer.get("configuration") else FAILED


def upgrade(arguments: Arguments) -> int:
    before = ask_running(arguments, "upgrade")
    if not before["ok"]:
        for line in before["errors"]:
            log.error(line)
        return FAILED
    after = _new_program(state_dir(arguments), before)
    if after is None:
        raise StartError(errors.NOT_UPGRADED, pid=before["pid"], workers=_listed(before["workers"]))
    if arguments.json:
        keys = ("version", "pid", "workers")
        found = {
            "from": {key: before[key] for key in keys},
            "to": {key: after[key] for key in keys},
        }
        print(json.dumps({**found, "leaving": after["leaving"]}, indent=2))
        return DONE
    print(
        f"upgraded from {before['version']} to {after['version']} (pid {after['pid']}): workers "
        f"{_listed(after['workers'])} serve, {_listed(before['workers'])} leave"
    )
    return DONE


def _new_program(path: Path, before: Answer) -> Answer | None:
    """What the new program says once it serves; None: it does not, or the process has ended."""
    end = time.monotonic() + UPGRADE_S
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        try:
            found = ask(path, "about", timeout_s=UPGRADE_S)
        except StartError:
            if _has_ended(before["pid"]):
                return None
            continue
        if found["instance"] != before["instance"] and found["ready"]:
            return found
    return None


def _has_ended(pid: int) -> bool:
    """Whether it runs no more, even if nobody has asked yet how it ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return ends_within(pidfd, 0)
    finally:
        os.close(pidfd)


def _listed(pids: Iterable[int]) -> str:
    return ", ".join(map(str, pids))


def stop(arguments: Arguments) -> int:
    try:
        answer = ask_running(arguments, "stop", at_once=arguments.now)
    except NobodyThere:
        return _stop_workers(arguments)
    return _wait([answer["pid"]], answer["drain_seconds"] + EXTRA_STOP_S)


def _stop_workers(arguments: Arguments) -> int:
    """Of a control process that is gone."""
    from fastlb import adopt, worker_sockets

    path = state_dir(arguments)
    found, silent = adopt.find(path)
    if not found and not silent:
        raise StartError(errors.NOT_RUNNING, path=path)
    held_up = adopt.pids_of(path, None, silent)
    drain_s = adopt.drain_s(found)
    number = signal.SIGQUIT if arguments.now else signal.SIGTERM
    for one in found:
        signal.pidfd_send_signal(one.pidfd, number)
        one.channel.close()
    for pid in held_up.values():
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    pids = [one.hello.pid for one in found]
    log.info(
        f"workers {_listed([*pids, *held_up.values()])} had no control process and are told to end"
    )
    code = _wait(pids, drain_s + EXTRA_STOP_S)
    if held_up and not arguments.now:
        _wait(held_up.values(), EXTRA_STOP_S, quiet=True)
    adopt.end_silent(
        path, None, [column for column in silent if worker_sockets.noted(path, column)]
    )
    adopt.find(path)  # which removes their sockets
    return code


def _wait(pids: Iterable[int], seconds: float, quiet: bool = False) -> int:
    """For processes to end."""
    end = time.monotonic() + seconds
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = ends_within(pidfd, max(end - time.monotonic(), 0))
        os.close(pidfd)
        if not ended and quiet:
            return FAILED
        if not ended:
            log.error(
                f"pid {pid} has not ended after {seconds:g} s; `fastlb stop --now` does not wait"
            )
            return FAILED
    return DONE


def status(arguments: Arguments) -> int:
    from fastlb.status_tables import as_tables

    try:
        found = ask_running(arguments, "status")["status"]
    except NobodyThere as error:
        raise _with_workers(state_dir(arguments)) or error from None
    print(json.dumps(found, indent=2) if arguments.json else as_tables(found))
    return DONE


def _with_workers(path: Path) -> StartError | None:
    """What is to be said of workers that nobody controls; None: there are none."""
    from fastlb import adopt

    found, silent = adopt.find(path)
    if silent and not found:
        return StartError(errors.WORKERS_SILENT, seconds=f"{adopt.ANSWER_S:g}")
    pids = _listed(one.hello.pid for one in found)
    for one in found:
        one.close()
    return StartError(errors.UNSUPERVISED, path=path, pids=pids) if found else None
