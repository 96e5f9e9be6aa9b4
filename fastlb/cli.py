"""The command line: `fastlb run|check|reload|stop|status|demo|version`.

Exit codes: 0 done, 1 it failed, 2 wrong usage or a wrong configuration.
"""

import argparse
import json
import os
import select
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastlb
from fastlb import log
from fastlb.errors import ConfigNotFound, StartError

DONE, FAILED, WRONG = 0, 1, 2
EXTRA_STOP_S = 15  # beyond the drain time, before `stop` gives up waiting

Arguments = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.call(parsed)
        sys.stdout.flush()
        return code
    except ConfigNotFound as error:
        log.error(error)
        return WRONG
    except StartError as error:
        for line in error.lines:
            log.error(line)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # `fastlb status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="fastlb",
        description="A reverse proxy and load balancer whose first duty is session persistence.",
    )
    top.add_argument("--version", action="version", version=f"fastlb {fastlb.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command(commands, "run", run, "run the proxy in the foreground", "-c shop.toml")
    command(commands, "check", check, "say everything that is wrong in a configuration", "")
    command(commands, "reload", reload, "put a changed configuration in force, in place", "")
    one = command(commands, "stop", stop, "end the proxy when running requests have ended", "")
    one.add_argument("--now", action="store_true", help="do not wait for running requests")
    one = command(commands, "status", status, "show workers, nodes and sessions", "--json")
    one.add_argument("--json", action="store_true", help="all of it, for programs")
    one = command(
        commands, "demo", demo, "three small nodes, a proxy, and stickiness live", "--once", False
    )
    one.add_argument("--once", action="store_true", help="check that it works, then end")
    command(commands, "version", version, "print the version", "", False)
    return top


def command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    call: Callable[[Arguments], int],
    what: str,
    example: str,
    with_config: bool = True,
) -> argparse.ArgumentParser:
    """Adds one command."""
    one = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: fastlb {name} {example}".rstrip(),
    )
    if with_config:
        one.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help="the configuration (default: ./fastlb.toml, then /etc/fastlb/fastlb.toml)",
        )
    one.set_defaults(call=call)
    return one


# --- commands that need no running proxy ---


def run(arguments: Arguments) -> int:
    import asyncio

    from fastlb.check import check_file, find_config
    from fastlb.control import Control

    checked = check_file(find_config(arguments.config))
    for problem in checked.errors:
        log.error(problem)
    for problem in checked.warnings:
        log.warn(problem)
    if checked.config is None:
        return WRONG
    return asyncio.run(Control(checked.config).run())


def check(arguments: Arguments) -> int:
    from fastlb.check import check_file, find_config

    file = find_config(arguments.config)
    checked = check_file(file)
    for problem in sorted(checked.errors + checked.warnings, key=lambda one: one.line or 0):
        log.log(problem.level, f"{problem} [{problem.code}]")
    wrong, doubtful = len(checked.errors), len(checked.warnings)
    if not wrong:
        note = f", {doubtful} warning{'s' * (doubtful != 1)}" if doubtful else ""
        print(f"{file}: right{note}")
    return WRONG if wrong else DONE


def demo(arguments: Arguments) -> int:
    from fastlb.demo import run_demo

    return run_demo(arguments.once)


def version(arguments: Arguments) -> int:
    print(f"fastlb {fastlb.__version__}")
    return DONE


# --- commands to a running proxy ---


def state_dir(arguments: Arguments) -> Path:
    """Where the proxy of this configuration has its control socket.

    The file may be wrong in many ways, which the proxy itself will say; only this key counts.
    """
    from fastlb.check import find_config
    from fastlb.config import default_state_dir

    try:
        file = find_config(arguments.config)
        written: Any = tomllib.loads(file.read_text())["proxy"]["state_dir"]
        return Path(file.absolute().parent, written)
    except (ConfigNotFound, KeyError, TypeError):
        return default_state_dir()
    except (OSError, ValueError) as error:
        raise ConfigNotFound(f"{arguments.config or file}: {error}") from None


def reload(arguments: Arguments) -> int:
    from fastlb.control_socket import ask

    answer = ask(state_dir(arguments), "reload")
    for line in answer.get("warnings", []):
        log.warn(line)
    for line in answer.get("errors", []):
        log.error(line)
    if answer["ok"]:
        print(f"{answer['file']}: in force (generation {answer['generation']})")
        return DONE
    log.error("not reloaded: the configuration before stays in force")
    return WRONG if answer.get("configuration") else FAILED


def stop(arguments: Arguments) -> int:
    from fastlb.control_socket import ask

    answer = ask(state_dir(arguments), "stop", at_once=arguments.now)
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
    from fastlb.control_socket import ask
    from fastlb.status import as_tables

    answer = ask(state_dir(arguments), "status")
    found = answer["status"]
    print(json.dumps(found, indent=2) if arguments.json else as_tables(found))
    return DONE
