"""Commands about the sessions in the session caches: list, count, delete, flush."""

import argparse
import json
import os
import re
from typing import Any

from fastlb.command import DONE, Arguments, Commands, ask_running

LIMIT = 100
HASH_DIGITS = 32


def add(commands: Commands) -> None:
    top = commands.add(
        "sessions",
        None,
        "look at the sessions in the session caches, and end some",
        "list --class by-ip --node 10.0.0.2:8080",
        with_config=False,
    )
    actions = Commands(top)
    one = _action(actions, "list", "list sessions, the most recently used first", "")
    _node(one)
    _key(one)
    one.add_argument(
        "--limit",
        metavar="N",
        type=limit,
        default=LIMIT,
        help=f"how many at most (default: {LIMIT})",
    )
    one = _action(actions, "count", "count the sessions of each node", "")
    _node(one)
    one = _action(actions, "delete", "end one session, or all of a node", "--key 192.0.2.7")
    _key(one)
    _node(one)
    one.set_defaults(needs_one=one)
    _action(actions, "flush", "end all sessions of a class", "")


def _action(actions: Commands, name: str, what: str, example: str) -> argparse.ArgumentParser:
    one = actions.add(name, sessions, what, f"--class by-ip {example}".rstrip())
    one.add_argument(
        "--class", dest="cls", metavar="CLASS", required=True, help="the persistence class"
    )
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(action=name, node=None, key=None, hash=None, limit=None, needs_one=None)
    return one


def _node(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--node",
        metavar="NODE",
        type=node,
        help="only those of this node: address:port, or an address with all its ports",
    )


def _key(one: argparse.ArgumentParser) -> None:
    either = one.add_mutually_exclusive_group()
    either.add_argument(
        "--key",
        metavar="KEY",
        action="append",
        help="the one with this key, as the client has it: its address, cookie value, ...; "
        "of a key of several parts, one --key for each, in the order of the configuration",
    )
    either.add_argument(
        "--hash", metavar="HEX", type=hash_digits, help="the one with this hash, as listed"
    )


def limit(text: str) -> int:
    from fastlb.sessions import LIMIT_MAX

    if not re.fullmatch("[0-9]{1,7}", text) or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {LIMIT_MAX}")
    return int(text)


def node(text: str) -> str:
    from fastlb.units import read_ip_port

    if read_ip_port(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address, nor one with a port")
    return text


def hash_digits(text: str) -> str:
    if not re.fullmatch(f"[0-9A-Fa-f]{{{HASH_DIGITS}}}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not {HASH_DIGITS} hexadecimal digits")
    return text


def sessions(arguments: Arguments) -> int:
    if arguments.needs_one and not (arguments.node or arguments.key or arguments.hash):
        arguments.needs_one.error("name what to delete: --key, --hash or --node")
    key = arguments.key and [os.fsencode(part).hex() for part in arguments.key]
    request = {"action": arguments.action, "class": arguments.cls, "node": arguments.node}
    request |= {"key": key, "hash": arguments.hash, "limit": arguments.limit}
    answer = ask_running(arguments, "sessions", **request)["answer"]
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        print(SHOW[arguments.action](answer))
    return DONE


def _listed(answer: dict[str, Any]) -> str:
    from fastlb.status_tables import duration, table

    head = ("hash", "node", "age", "idle", "ends in")
    rows = [
        (
            row["hash"],
            row["node"],
            duration(row["age_seconds"]),
            duration(row["idle_seconds"]),
            "-" if row["remaining_seconds"] is None else duration(row["remaining_seconds"]),
        )
        for row in answer["sessions"]
    ]
    shown = f"{len(rows)} of {answer['count']} sessions, the most recently used first"
    return f"{table(head, rows)}\n{shown}" if rows else "no sessions"


def _counted(answer: dict[str, Any]) -> str:
    from fastlb.status_tables import table

    rows = [(row["node"], row["count"], row["expired"]) for row in answer["nodes"]]
    rows.append(("in all", answer["count"], answer["expired"]))
    return table(("node", "sessions", "expired"), rows)


def _deleted(answer: dict[str, Any]) -> str:
    count = answer["deleted"]
    return f"{count} session{'s' * (count != 1)} deleted"


SHOW = {"list": _listed, "count": _counted, "delete": _deleted, "flush": _deleted}
