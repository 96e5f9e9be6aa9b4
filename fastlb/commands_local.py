"""Commands that need no running proxy: run, check, demo, version."""

import argparse
import json

import fastlb
from fastlb import log
from fastlb.command import DONE, WRONG, Arguments, Commands


def add_first(commands: Commands) -> None:
    one = commands.add("run", run, "run the proxy in the foreground", "-c shop.toml")
    one.add_argument("--rehearse", action="store_true", help=argparse.SUPPRESS)  # upgrade.py
    one = commands.add("check", check, "say everything that is wrong in a configuration", "")
    one.add_argument("--json", action="store_true", help="a list of it on stdout, for programs")


def add_last(commands: Commands) -> None:
    what = "three small nodes, a proxy, and stickiness live"
    one = commands.add("demo", demo, what, "--once", with_config=False)
    one.add_argument("--once", action="store_true", help="check that it works, then end")
    commands.add("version", version, "print the version", "", with_config=False)


def run(arguments: Arguments) -> int:
    import asyncio

    from fastlb.check import check_file, find_config
    from fastlb.control import Control
    from fastlb.upgrade import rehearsed

    checked = check_file(find_config(arguments.config))
    for problem in checked.errors:
        log.error(problem)
    for problem in checked.warnings:
        log.warn(problem)
    if checked.config is None:
        return WRONG
    if arguments.rehearse:
        print(rehearsed(checked.config.proxy.state_dir))
        return DONE
    return asyncio.run(Control(checked.config).run())


def check(arguments: Arguments) -> int:
    from fastlb.check import check_file, find_config

    file = find_config(arguments.config)
    checked = check_file(file)
    wrong, doubtful = len(checked.errors), len(checked.warnings)
    if arguments.json:
        print(json.dumps([problem._asdict() for problem in checked.problems], indent=2))
        return WRONG if wrong else DONE
    for problem in checked.problems:
        log.log(problem.level, f"{problem} [{problem.code}]")
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
