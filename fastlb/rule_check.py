"""Whether the rules of a configuration can be loaded, and the functions of its monitors, found
out in a process of its own.

    python -m fastlb.rule_check DIRECTORY SECONDS RESULT_FD TRACE_FD MODULE:FUNCTION ...

A monitor's function has an @ before its name.

Importing a module runs it, and a module may do anything: end the process, crash it, never return,
leave threads and processes behind. So none is ever imported by the control process. This one has
the workers' user and environment; it writes a line of JSON to RESULT_FD, which is a file in memory,
before each rule that it looks for and after it, and what Python knows of a crash to TRACE_FD.
"""

import contextlib
import faulthandler
import inspect
import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastlb import side_process
from fastlb.rule_loader import Finder, RuleLoadError, find, find_check, install
from fastlb.rule_mark import RuleKind, mark_of

OF_MONITOR = "@"  # before the name of a function that is no rule
TIME_S = 10.0  # for all imports together
GRACE_S = 2.0  # for a process that cannot even say where it is
END = {"end": True}


class RuleProblem(NamedTuple):
    """One rule that cannot be loaded; without a file it is the configuration that is wrong."""

    name: str
    code: str
    text: str
    file: str | None
    line: int | None


class Unused(NamedTuple):
    """A function that is marked, in a module of which another one is used."""

    function: str
    module: str
    file: str
    line: int


class Findings(NamedTuple):
    """What a check found."""

    kinds: dict[str, RuleKind]
    problems: list[RuleProblem]
    unused: list[Unused]
    ended: str | None  # how the process ended before it was done
    blamed: str | None  # the rule whose module it was importing then
    file: str | None  # and where that was
    line: int | None


# --- in the process that asks -------------------------------------------------------------


def check_rules(directory: Path, names: list[str], user: str | None = None) -> Findings:
    """Looks for these rules, as `user` if this process may become it; takes at most TIME_S and a
    little. May be called in a thread."""
    with side_process.memory("rule-result") as result, side_process.memory("rule-trace") as trace:
        ended = _run(directory, names, user, result, trace)
        entries = list(_entries(side_process.read(result)))
        traced = side_process.read(trace)
    kinds, problems, unused = dict[str, RuleKind](), list[RuleProblem](), list[Unused]()
    blamed = file = None
    for entry in entries:
        blamed, file = entry.get("loading", blamed), entry.get("from", file)
        if "kind" in entry:
            kinds[entry["name"]] = RuleKind(entry["kind"], entry["async"])
        elif "code" in entry:
            problems.append(RuleProblem(**entry))
        unused += [Unused(*one) for one in entry.get("unused", ())]
    if entries[-1:] == [END]:
        return Findings(kinds, problems, unused, None, None, None, None)
    if traced.startswith("Timeout"):
        ended = f"does not end within {TIME_S:g} s"
    place = traced_place(traced, str(directory)) or (file, None)
    return Findings(kinds, problems, unused, ended, blamed, *place)


def _entries(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # cut off, or not ours
            yield json.loads(line)


def _run(directory: Path, names: list[str], user: str | None, result: int, trace: int) -> str:
    """Returns how it ended, in words."""
    arguments = [str(directory.absolute()), TIME_S, result, trace, *names]
    try:
        status = side_process.run(
            [sys.executable, "-m", "fastlb.rule_check", *map(str, arguments)],
            TIME_S + GRACE_S,
            stdout=subprocess.DEVNULL,  # as workers have it
            pass_fds=(result, trace),
            **_as_user(user),
        )
    except OSError as error:
        return f"cannot be started: {error.strerror or error}"
    if status is None:
        return f"does not end within {TIME_S:g} s"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"crashes Python ({signal.Signals(-status).name})"
    return f"ends the process (status {status})"


def _as_user(user: str | None) -> dict[str, Any]:
    """The arguments of Popen to become that user, as the control process does."""
    if user is None or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        return {}  # which is an error of its own
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def traced_place(text: str, directory: str) -> tuple[str, int] | None:
    """The user's line in what `faulthandler` wrote: the innermost one, of the main thread, of a
    file beside the configuration."""
    threads = [
        re.findall(r'^  File "(.*)", line (\d+) in ', section, re.MULTILINE)
        for section in re.split(r"\n(?=(?:Current thread|Thread) )", f"\n{text}")
    ]
    # Of a stack that is very deep, the beginning is missing: then it is any thread's.
    threads.sort(key=lambda frames: all(file != __file__ for file, _ in frames))
    for file, line in (frame for frames in threads for frame in frames):
        if file.startswith(f"{directory}/") and file != __file__:
            return file, int(line)
    return None


# --- in the process of its own ------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Writes what it finds; ends at once, whatever threads were left behind."""
    directory, seconds, result, trace, *names = arguments
    faulthandler.enable(int(trace))
    faulthandler.dump_traceback_later(float(seconds), exit=True, file=int(trace))
    own = os.getpid()

    def say(entry: dict[str, Any]) -> None:
        if os.getpid() != own:
            os._exit(0)  # a fork that came back from an import
        os.write(int(result), json.dumps(entry).encode() + b"\n")

    finder = install(directory)
    for name in names:
        spec = finder.locate(name.removeprefix(OF_MONITOR).partition(":")[0])
        say({"loading": name, "from": spec and spec.origin})
        say(_entry(finder, name))
    say({"unused": _unused(finder, [name for name in names if name[0] != OF_MONITOR])})
    say(END)
    os._exit(0)


def _entry(finder: Finder, name: str) -> dict[str, Any]:
    try:
        if name.startswith(OF_MONITOR):
            find_check(finder, name.removeprefix(OF_MONITOR))
            return {"name": name}
        rule = find(finder, name)
    except RuleLoadError as error:
        message = {"code": error.message.code, "text": error.text}
        return {"name": name, **message, "file": error.file, "line": error.line}
    return {"name": name, "kind": rule.kind, "async": rule.is_async}


def _unused(finder: Finder, names: list[str]) -> list[Unused]:
    found = []
    for module_name in dict.fromkeys(name.partition(":")[0] for name in names):
        module = finder.modules().get(module_name)
        for key, value in vars(module).items() if module is not None else ():
            if mark_of(value) is None or f"{module_name}:{key}" in names:
                continue
            code = getattr(inspect.unwrap(value), "__code__", None)
            if code is not None and code.co_filename == getattr(module, "__file__", None):
                found.append(Unused(key, module_name, code.co_filename, code.co_firstlineno))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
