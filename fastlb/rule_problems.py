"""What is wrong with the modules of a configuration's rules and monitors, as problems of the
configuration."""

from collections.abc import Callable

from fastlb import errors
from fastlb.config import Config
from fastlb.decode import Report
from fastlb.errors import Message, Problem
from fastlb.rule_check import OF_MONITOR, Findings, RuleProblem, check_rules
from fastlb.rule_mark import RuleKind
from fastlb.uses import rules_of

Path = tuple[str | int, ...]
ReportElsewhere = Callable[[Problem, Path], None]
CONNECTIONS_ONLY = ("tcp", "tls")


def report_rules(
    cfg: Config, report: Report, report_elsewhere: ReportElsewhere
) -> dict[str, RuleKind]:
    """Has the modules imported by another process, and reports all that came of it; returns what
    the rules are."""
    names = [name for name in loaded_of(cfg) if ":" in name]
    places = _places(cfg)
    found = check_rules(cfg.file.absolute().parent, names, cfg.proxy.user)
    said: set[tuple[str, str | None, int | None]] = set()
    for problem in found.problems:
        if (mark := (problem.text, problem.file, problem.line)) not in said:
            said.add(mark)
            _report_problem(problem, places[problem.name][0], report, report_elsewhere)
    for one in found.unused if not found.problems else ():  # one of them may be meant
        text = errors.RULE_UNUSED.text.format(function=one.function)
        place = places[next(name for name in names if name.startswith(f"{one.module}:"))][0]
        report_elsewhere(_problem(errors.RULE_UNUSED, one.file, one.line, text), place[:-1])
    if found.ended is not None:
        _report_end(found, found.ended, places, report, report_elsewhere)
    _protocols(cfg, found.kinds, report)
    return found.kinds


def _places(cfg: Config) -> dict[str, list[Path]]:
    """Where each rule is named."""
    places: dict[str, list[Path]] = {}
    for server_name, server in cfg.virtual_servers.items():
        for index, rule in enumerate(server.rules):
            place: Path = ("virtual_servers", server_name, "rules", index)
            places.setdefault(rule, []).append(place)
    for name, monitor in cfg.monitors.items():
        if monitor.function is not None:
            place = ("monitors", name, "function")
            places.setdefault(OF_MONITOR + monitor.function, []).append(place)
    return places


def loaded_of(cfg: Config) -> list[str]:
    """The rules, and the functions of monitors with their mark."""
    functions = [one.function for one in cfg.monitors.values() if one.type == "python"]
    return rules_of(cfg) + [OF_MONITOR + one for one in dict.fromkeys(functions) if one is not None]


def _report_problem(
    problem: RuleProblem, place: Path, report: Report, report_elsewhere: ReportElsewhere
) -> None:
    message = Message(problem.code, "error", "{text}")
    if problem.file is None:
        report(message, place, text=problem.text)
    else:
        report_elsewhere(_problem(message, problem.file, problem.line, problem.text), place)


def _report_end(
    found: Findings,
    how: str,
    places: dict[str, list[Path]],
    report: Report,
    report_elsewhere: ReportElsewhere,
) -> None:
    """The process did not come to its end."""
    if found.blamed is None:
        report(errors.RULES_NOT_CHECKED, next(iter(places.values()))[0][:-1], how=how)
        return
    module = found.blamed.removeprefix(OF_MONITOR).partition(":")[0]
    place = places[found.blamed][0]
    if found.file is None:
        report(errors.RULE_HARMFUL, place, module=module, how=how)
        return
    text = errors.RULE_HARMFUL.text.format(module=module, how=how)
    report_elsewhere(_problem(errors.RULE_HARMFUL, found.file, found.line, text), place)


def _problem(message: Message, file: str, line: int | None, text: str) -> Problem:
    return Problem(message.code, message.level, file, line, "", "", text)


def _protocols(cfg: Config, kinds: dict[str, RuleKind], report: Report) -> None:
    for server_name, server in cfg.virtual_servers.items():
        for index, rule in enumerate(server.rules):
            kind = kinds[rule].kind if rule in kinds else "connection"
            if server.protocol in CONNECTIONS_ONLY and kind != "connection":
                place = ("virtual_servers", server_name, "rules", index)
                values = {"name": rule, "kind": kind, "protocol": server.protocol}
                report(errors.RULE_FOR_PROTOCOL, place, **values)
