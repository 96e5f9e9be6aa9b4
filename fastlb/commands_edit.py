"""Commands that change pools at run time: node add, remove, weight."""

import argparse
import json
from pathlib import Path
from typing import Any

from fastlb import log
from fastlb.command import DONE, Arguments, Commands, ask_running

REQUEST = ("verb", "node", "pool", "weight", "max_connections", "backup", "force")


def add(commands: Commands) -> None:
    top = commands.add(
        "node",
        None,
        "change a pool at run time, until the next reload or for good",
        "add 10.0.0.4:8080 --pool web --save",
        with_config=False,
    )
    actions = Commands(top)
    one = _action(actions, "add", "give a pool another node", "10.0.0.4:8080 --pool web --weight 2")
    one.add_argument("--pool", metavar="POOL", required=True, help="the pool")
    one.add_argument("--weight", metavar="N", type=int, help="its share of new sessions (1)")
    one.add_argument(
        "--max-connections", metavar="N", type=int, help="connections to it at one time (no limit)"
    )
    one.add_argument(
        "--backup", action="store_true", help="new sessions only while every other node is down"
    )
    one = _action(actions, "remove", "take a node out of its pools", "10.0.0.2:8080 --pool web")
    _of_pool(one)
    one.add_argument(
        "--force", action="store_true", help="also while sessions may be there: they end there"
    )
    one = _action(actions, "weight", "change a node's share of new sessions", "10.0.0.2:8080 3")
    one.add_argument("weight", metavar="N", type=int, help="0: established sessions only")
    _of_pool(one)


def _action(actions: Commands, verb: str, what: str, example: str) -> argparse.ArgumentParser:
    one = actions.add(verb, change, what, example)
    named = "address:port" if verb == "add" else "address:port, or an address with all its ports"
    one.add_argument("node", metavar="NODE", help=named)
    one.add_argument("--save", action="store_true", help="write it into the configuration file too")
    one.add_argument("--json", action="store_true", help="what was done, for programs")
    one.set_defaults(verb=verb, pool=None, weight=None)
    return one


def _of_pool(one: argparse.ArgumentParser) -> None:
    one.add_argument("--pool", metavar="POOL", help="in this pool only, not in every one")


def change(arguments: Arguments) -> int:
    """Finds out what would surprise, and what cannot be saved, before anything is changed."""
    wanted = {name: getattr(arguments, name, None) for name in REQUEST}
    planned = ask_running(arguments, "edit", **wanted, preview=True)
    for line in planned["warnings"]:
        log.warn(line)
    edited = _edited(planned) if arguments.save else None
    done = ask_running(arguments, "edit", **wanted)
    late = [line for line in done["warnings"] if line not in planned["warnings"]]
    for line in late:
        log.warn(line)
    if edited is not None:
        edited.write()
        ask_running(arguments, "edit", verb="saved", edits=planned["edits"])
    file = str(edited.file) if edited is not None else None
    if arguments.json:
        warnings = planned["warnings"] + late
        print(json.dumps({"nodes": done["nodes"], "warnings": warnings, "saved": file}, indent=2))
        return DONE
    for node in done["nodes"]:
        print(f"{node['address']} of [pools.{node['pool']}]: {node['change']}")
    if file is not None:
        print(f"saved in {file}")
    return DONE


def _edited(planned: dict[str, Any]) -> Any:
    import msgspec

    from fastlb.edit_file import EditedFile
    from fastlb.edits import Edit

    return EditedFile(Path(planned["file"]), msgspec.convert(planned["edits"], list[Edit]))
