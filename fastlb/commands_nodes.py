"""Commands about nodes at run time: drain, undrain, disable, enable."""

import json

from fastlb import log
from fastlb.command import DONE, Arguments, Commands, ask_running

WHAT = {
    "drain": "give a node no new sessions; those it has stay",
    "undrain": "give a draining node new sessions again",
    "disable": "take a node out of service: its sessions meet the failure mode",
    "enable": "put a disabled node back in service",
}


def add(commands: Commands) -> None:
    for verb, what in WHAT.items():
        one = commands.add(verb, change, what, "10.0.0.2:8080 --pool web")
        one.add_argument(
            "node", metavar="NODE", help="address:port, or an address with all its ports"
        )
        one.add_argument("--pool", metavar="POOL", help="in this pool only, not in every one")
        one.add_argument("--json", action="store_true", help="what was done, for programs")
        one.set_defaults(verb=verb)


def change(arguments: Arguments) -> int:
    """Asks first what would surprise, and says it before anything is changed."""
    wanted = {"verb": arguments.verb, "node": arguments.node, "pool": arguments.pool}
    warnings = ask_running(arguments, "node", **wanted, preview=True)["warnings"]
    for line in warnings:
        log.warn(line)
    done = ask_running(arguments, "node", **wanted)
    late = [line for line in done["warnings"] if line not in warnings]
    for line in late:
        log.warn(line)
    if arguments.json:
        print(json.dumps({"nodes": done["nodes"], "warnings": warnings + late}, indent=2))
        return DONE
    for node in done["nodes"]:
        change = node["state"]
        if node["before"] != node["state"]:
            change = f"{node['before']} -> {node['state']}"
        change += " (and down)" if node["down"] else ""
        print(f"{node['address']} of [pools.{node['pool']}]: {change}")
    return DONE
