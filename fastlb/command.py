"""What the commands of the command line share: how one is declared, and how it asks the proxy."""

import argparse
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlb.control_socket import Answer, ask
from fastlb.errors import ConfigNotFound, Refused

DONE, FAILED, WRONG = 0, 1, 2

Arguments = argparse.Namespace
Call = Callable[[Arguments], int]


class Commands:
    """The commands of a parser; each gets help with an example."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.prog = parser.prog
        self.added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        self, name: str, call: Call | None, what: str, example: str, with_config: bool = True
    ) -> argparse.ArgumentParser:
        """Adds one command; without `call` it has commands of its own."""
        one = self.added.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example: {self.prog} {name} {example}".rstrip(),
        )
        if with_config:
            add_config(one)
        if call is not None:
            one.set_defaults(call=call)
        return one


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="the configuration (default: ./fastlb.toml, then /etc/fastlb/fastlb.toml)",
    )


def state_dir(arguments: Arguments) -> Path:
    """Where the proxy of this configuration has its control socket.

    The file may be wrong in many ways, which the proxy itself will say; only this key counts.
    """
    from fastlb.check import find_config, read_file
    from fastlb.config import default_state_dir

    try:
        file = find_config(arguments.config)
        written: Any = tomllib.loads(read_file(file).decode())["proxy"]["state_dir"]
        return Path(file.absolute().parent, written)
    except (ConfigNotFound, KeyError, TypeError):
        return default_state_dir()
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigNotFound(f"{arguments.config or file}: {error}") from None


def ask_running(arguments: Arguments, command: str, **values: Any) -> Answer:
    """What the running proxy answers. Raises Refused, or StartError when nobody is there."""
    answer = ask(state_dir(arguments), command, **values)
    if "error" in answer:
        raise Refused.with_line(answer["error"])
    return answer
