"""Commands to a running proxy as a whole: reload, stop, status."""

import json
import os
import select

from fastlb import log
from fastlb.command import DONE, FAILED, WRONG, Arguments, Commands, ask_running

EXTRA_STOP_S = 15  # beyond the drain time, before `stop` gives up waiting


def add(commands: Commands) -> None:
    commands.add("reload", reload, "put a changed configuration in force, in place", "")
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


def stop(arguments: Arguments) -> int:
    answer = ask_running(arguments, "stop", at_once=arguments.now)
    pid = answer["pid"]
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return DONE
    seconds = answer["drain_seconds"] + EXTRA_STOP_S
    ended, _, _ = select.select([pidfd], [], [], seconds)
    if not ended:
        log.error(f"pid {pid} has not ended after {seconds:g} s; `fastlb stop --now` does not wait")
        return FAILED
    return DONE


def status(arguments: Arguments) -> int:
    from fastlb.status_tables import as_tables

    found = ask_running(arguments, "status")["status"]
    print(json.dumps(found, indent=2) if arguments.json else as_tables(found))
    return DONE
