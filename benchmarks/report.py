"""Results as text, Markdown and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from .cases import Case, Kind
from .measure import MAIN
from .results import Results

Row = list[str]
_COLOURS = {"fastlb": "#0b7285", "floor": "#868e96"}
_PEER_COLOUR = "#adb5bd"


def _number(value: float | None, form: str = ".1f") -> str:
    return "–" if value is None else format(value, form)


def _spread(results: Results, case: Case, peer: str, metric: str, form: str) -> str:
    """Median, and least and most where there are several rounds."""
    values = results.values(case.name, peer, metric)
    median = _number(results.median(case.name, peer, metric), form)
    if len(values) < 2:
        return median
    return f"{median} ({min(values):{form}}–{max(values):{form}})"


def _ratios(results: Results, case: Case, peer: str) -> tuple[str, str]:
    """To the best peer and to the floor."""
    metric = MAIN[case.kind]
    own = results.median(case.name, peer, metric)
    best = results.best(case, metric)
    floor = results.median(case.name, "floor", metric)
    if own is None or peer == "direct":
        return "–", "–"
    return (
        f"{own / best[1]:.2f}" if best and best[1] else "–",
        f"{own / floor:.2f}" if floor else "–",
    )


def _sticky(results: Results, case: Case, peer: str) -> str:
    if peer == "direct" or case.generator != "load":
        return "–"
    moved = sum(results.values(case.name, peer, "clients_moved"))
    clients = sum(results.values(case.name, peer, "clients"))
    return f"all {clients:.0f}" if not moved else f"{moved:.0f} of {clients:.0f} moved"


def _tail(results: Results, case: Case, peer: str) -> Row:
    errors = sum(results.values(case.name, peer, "errors"))
    return [*_ratios(results, case, peer), f"{errors:.0f}", _sticky(results, case, peer)]


_TAIL = ["× best peer", "× floor", "errors", "sticky clients"]


def _cpu_rows(results: Results, case: Case) -> list[Row]:
    large = case.kind is Kind.CPU_PER_GB
    metric, form = MAIN[case.kind], ".2f" if large else ".1f"
    head = "CPU s/GB" if large else "CPU µs/request"
    rows = [["", head, "user + system", "requests/s", "p50 / p99 / p99.9 µs", "CPU busy", *_TAIL]]
    for peer in results.peers(case):
        if peer == "direct":
            continue

        def middle(name: str, form: str = ".0f", peer: str = peer) -> str:
            return _number(results.median(case.name, peer, name), form)

        rows.append(
            [
                peer,
                _spread(results, case, peer, metric, form),
                f"{middle('user_us', '.1f')} + {middle('system_us', '.1f')}",
                middle("requests_s"),
                f"{middle('p50_us')} / {middle('p99_us')} / {middle('p999_us')}",
                middle("busy", ".0%"),
                *_tail(results, case, peer),
            ]
        )
    return rows


def _latency_rows(results: Results, case: Case) -> list[Row]:
    names = ("p50_us", "p99_us", "p999_us")
    rows = [["", "p50 µs", "p99 µs", "p99.9 µs", "added p50 / p99 µs", "CPU µs/request", *_TAIL]]
    for peer in results.peers(case):
        added = []
        for name in names[:2]:
            own = results.median(case.name, peer, name)
            direct = results.median(case.name, "direct", name)
            added.append(_number(own - direct if own is not None and direct else None, ".0f"))
        rows.append(
            [
                peer,
                *(_spread(results, case, peer, name, ".0f") for name in names),
                " / ".join(added),
                _number(results.median(case.name, peer, "cpu_us")),
                *_tail(results, case, peer),
            ]
        )
    return rows


def _idle_rows(results: Results, case: Case) -> list[Row]:
    rows = [["", "bytes/connection", "of these at use", "base MiB", *_TAIL]]
    for peer in results.peers(case):
        base = results.median(case.name, peer, "base_bytes")
        rows.append(
            [
                peer,
                _spread(results, case, peer, "idle_bytes", ".0f"),
                _number(results.median(case.name, peer, "grown_bytes"), ".0f"),
                _number(base / (1 << 20) if base else None),
                *_tail(results, case, peer),
            ]
        )
    return rows


def _syscall_rows(results: Results, case: Case) -> list[Row]:
    rows = [["", "calls/request", "which", *_TAIL]]
    for peer in results.peers(case):
        figures = results.rounds[case.name, peer][0]
        calls = {name[5:]: value for name, value in figures.items() if name.startswith("call.")}
        which = sorted(
            ((value, name) for name, value in calls.items() if value >= 0.01), reverse=True
        )
        text = ", ".join(f"{name} {value:.2f}" for value, name in which)
        total = _number(figures["syscalls"], ".2f")
        rows.append([peer, total, text, *_tail(results, case, peer)])
    return rows


def _noise_line(results: Results, case: Case) -> list[str]:
    """Says it when other programs had more than a twentieth of a CPU meanwhile."""
    shares = [
        share
        for peer in results.peers(case)
        for share in results.values(case.name, peer, "foreign_cpu")
    ]
    if not shares or statistics.median(shares) < 0.05:
        return []
    return [f"not a quiet machine: other programs used {statistics.median(shares):.0%} of a CPU"]


_ROWS: dict[Kind, Callable[[Results, Case], list[Row]]] = {
    Kind.CPU: _cpu_rows,
    Kind.CPU_PER_GB: _cpu_rows,
    Kind.LATENCY: _latency_rows,
    Kind.IDLE: _idle_rows,
    Kind.SYSCALLS: _syscall_rows,
}


def _verdict_lines(results: Results, case: Case) -> list[str]:
    lines = _noise_line(results, case)
    for aim in case.aims:
        verdict = results.verdict(case, aim)
        measured = _number(verdict.value, ".0f" if verdict.limit > 10 else ".2f")
        state = {True: "met", False: "MISSED", None: "not measured"}[verdict.met]
        lines.append(f"aim {verdict.text}: {measured}, {state}")
    for (name, peer), why in results.refused.items():
        if name == case.name:
            lines.append(f"not in this case: {peer} ({why})")
    return lines


def columns(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown_table(rows: Sequence[Row]) -> list[str]:
    """The first row is the head."""
    whole = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(row) + " |" for row in whole]


def markdown_page(
    about: Mapping[str, object], tables: Sequence[Sequence[Row]], lines: Sequence[str] = ()
) -> str:
    """What was measured where, tables, and lines below them."""
    page = [f"- {name.replace('_', ' ')}: {value}" for name, value in about.items()]
    for table in tables:
        page += ["", *markdown_table(table)]
    return "\n".join([*page, "", *(f"- {line}" for line in lines)]).rstrip() + "\n"


def text(results: Results, cases: Sequence[Case]) -> str:
    lines = []
    for case in cases:
        if results.peers(case):
            lines += ["", f"{case.name}: {case.title}"]
            lines += columns(_ROWS[case.kind](results, case))
            lines += [f"  {line}" for line in _verdict_lines(results, case)]
    lines += ["", *(f"failed: {failure}" for failure in results.failures)]
    return "\n".join(lines).rstrip() + "\n"


def markdown(results: Results, cases: Sequence[Case], about: Mapping[str, object]) -> str:
    lines = []
    for name, value in about.items():
        shown = value
        if isinstance(value, Mapping):
            shown = ", ".join(f"{key}: {part}" for key, part in value.items())
        lines.append(f"- {name.replace('_', ' ')}: {shown}")
    lines.append("")
    for case in cases:
        if results.peers(case):
            rows = _ROWS[case.kind](results, case)
            lines += [f"### `{case.name}`: {case.title}", ""]
            lines += markdown_table(rows)
            lines += ["", *(f"- {line}" for line in _verdict_lines(results, case)), ""]
    return "\n".join(lines)


def markdown_write(path: Path, text: str, name: str = "results") -> None:
    """The whole file, or, where it has both marks of that name, what stands between them."""
    begin_mark, end_mark = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text() if path.exists() else ""
    before, begin, rest = old.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}" if end else text)


def svg(results: Results, cases: Sequence[Case]) -> str:
    """Bars of each case's main figure; in a case all bars have one scale."""
    parts: list[str] = []
    y = 10
    for case in cases:
        peers = [peer for peer in results.peers(case) if peer != "direct"]
        metric = MAIN[case.kind]
        values = {peer: results.median(case.name, peer, metric) or 0.0 for peer in peers}
        if not values or case.kind is Kind.LATENCY:
            continue
        y += 24
        label = escape(f"{case.title}: {case.kind.value}")
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{label}</text>')
        scale = 460 / max(max(values.values()), 1e-9)
        for peer, value in sorted(values.items(), key=lambda item: item[1]):
            y += 18
            colour = _COLOURS.get(peer, _PEER_COLOUR)
            width = max(1.0, value * scale)
            parts.append(f'<text x="110" y="{y}" text-anchor="end">{peer}</text>')
            parts.append(
                f'<rect x="118" y="{y - 11}" width="{width:.1f}" height="13" fill="{colour}"/>'
            )
            form = ".2f" if value < 10 else ".1f" if value < 1000 else ".0f"
            parts.append(f'<text x="{124 + width:.1f}" y="{y}">{value:{form}}</text>')
        y += 8
    frame = f'width="680" height="{y + 14}" viewBox="0 0 680 {y + 14}"'
    style = 'font-family="sans-serif" font-size="12" fill="#212529"'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame} {style}>'
    return "\n".join([head, background, *parts, "</svg>", ""])


def aims_met(results: Results, cases: Sequence[Case]) -> bool:
    """Whether fastlb, measured, meets every aim of the cases that ran, without failures."""
    ran = [case for case in cases if results.peers(case)]
    wrong = sum(
        sum(results.values(case.name, "fastlb", metric))
        for case in ran
        for metric in ("clients_moved", "errors")
    )
    verdicts = [results.verdict(case, aim).met for case in ran for aim in case.aims]
    return all(verdict is True for verdict in verdicts) and not wrong and not results.failures
