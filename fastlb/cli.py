"""The command line: which commands there are, and how each of them ends.

Exit codes: 0 done, 1 it failed, 2 wrong usage or a wrong configuration. The commands themselves
are in commands_*.py; each is a function from its arguments to an exit code.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import fastlb
from fastlb import (
    commands_edit,
    commands_local,
    commands_nodes,
    commands_running,
    commands_sessions,
    log,
)
from fastlb.command import FAILED, WRONG, Commands
from fastlb.errors import ConfigNotFound, Refused, StartError


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
    except Refused as error:
        log.error(error)
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
    commands = Commands(top)
    commands_local.add_first(commands)
    commands_running.add(commands)
    commands_nodes.add(commands)
    commands_edit.add(commands)
    commands_sessions.add(commands)
    commands_local.add_last(commands)
    return top
