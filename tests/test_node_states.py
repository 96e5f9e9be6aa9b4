"""What the operator says about nodes: states, surprises, the file; when a node can go."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core.node import get_state, read_slot
from fastlb._core.session_walk import TallyRow
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.errors import Refused
from fastlb.in_force import InForce
from fastlb.node_commands import NodeCommands, find_nodes, surprises
from fastlb.node_states import VERBS, NodeStates, Word, address_of, state_of
from fastlb.node_words import FILE_BYTES_MAX, NAME, NodeWords
from fastlb.removal import QUIET_S, Maps, maps_of_nodes, quiet_needed, removal
from fastlb.segment import boot_ms
from fastlb.slots import NodeKey
from fastlb.units import read_ip_port
from tests.in_the_way import IN_THE_WAY
from tests.test_in_force import Workers

A, B = NodeKey("web", "10.0.0.1", 80), NodeKey("web", "10.0.0.2", 80)


def config(
    nodes: str = '"10.0.0.1:80", "10.0.0.2:80"', pool: str = "", more: str = "", server: str = ""
) -> Config:
    text = f'[virtual_servers.a]\nlisten = "127.0.0.1:1"\npool = "web"\n{server}'
    found = check_text(f"{text}[pools.web]\nnodes = [{nodes}]\n{pool}\n{more}", Path("x"))
    assert found.config is not None, found.errors
    return found.config


@pytest.fixture
def force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InForce]:
    monkeypatch.setattr("fastlb.in_force.Listeners.add", lambda *_: [])
    monkeypatch.setattr("fastlb.in_force.InForce.send", lambda _: None)
    one = InForce(2, tmp_path)
    one.keys = [bytes(16)] * 4
    one.workers = Workers()  # type: ignore[assignment]
    yield one
    one.close()


def put(force: InForce, cfg: Config) -> list[str]:
    return asyncio.run(force.put(force.prepare(cfg)))


def written_state(force: InForce, key: NodeKey) -> str:
    table = force.segment.address(force.segment.node_table)
    return get_state(table, force.slots.nodes.used[key])


def say(force: InForce, *words: str, node: str = "10.0.0.2:80", **more: object) -> Any:
    commands = NodeCommands(force, NodeWords(force.scratch))
    for verb in words:
        answer = asyncio.run(commands.run({"verb": verb, "node": node, **more}))
    return answer


# --- the state of both ---


def test_the_operator_comes_before_health_checks() -> None:
    states = {inputs: state_of(*inputs) for inputs in itertools.product((False, True), repeat=3)}
    for (draining, disabled, down), state in states.items():
        if disabled:
            assert state == "disabled"
        elif down:
            assert state == "down"
        else:
            assert state == ("draining" if draining else "up")


@given(st.lists(st.sampled_from(VERBS)), st.booleans())
def test_the_last_word_of_each_kind_counts(verbs: list[Any], configured: bool) -> None:
    word = Word(configured, False, configured)
    for verb in verbs:
        word = word.after(verb)
    drains = [verb for verb in verbs if verb in ("drain", "undrain")]
    disables = [verb for verb in verbs if verb in ("disable", "enable")]
    assert word.draining == (drains[-1] == "drain" if drains else configured)
    assert word.disabled == (disables[-1:] == ["disable"])
    assert word.says_something == (word.disabled or word.draining != configured)


def test_a_word_takes_effect_in_shared_memory(force: InForce) -> None:
    put(force, config())
    for verb, state in (
        ("drain", "draining"), ("disable", "disabled"), ("undrain", "disabled"), ("enable", "up"),
    ):  # fmt: skip
        assert say(force, verb)["nodes"][0]["state"] == state
        assert (written_state(force, A), written_state(force, B)) == ("up", state)
    assert force.states.words == {}


def test_a_preview_changes_nothing(force: InForce) -> None:
    put(force, config())
    assert say(force, "disable", preview=True) == {"ok": True, "warnings": []}
    assert written_state(force, B) == "up"
    assert not (force.scratch / NAME).exists()


def test_a_word_ends_when_the_configuration_changes_its_mind(force: InForce) -> None:
    plain = config()
    marked = config('"10.0.0.1:80", { address = "10.0.0.2:80", draining = true }')
    put(force, plain)
    say(force, "disable")
    assert put(force, plain) == []
    assert written_state(force, B) == "disabled"
    (line,) = put(force, marked)
    assert "[FLB-S094]" in line
    assert written_state(force, B) == "draining"
    say(force, "undrain")
    assert written_state(force, B) == "up"
    assert put(force, marked) == []
    assert written_state(force, B) == "up"
    say(force, "drain")
    assert put(force, plain) == []  # nothing was said that the configuration did not say
    assert written_state(force, B) == "up"


def test_a_node_taken_out_and_put_back_before_its_slot_is_free(force: InForce) -> None:
    put(force, config())
    say(force, "disable")
    (line,) = put(force, config('"10.0.0.1:80"'))
    assert "not configured any more [FLB-S094]" in line
    assert put(force, config()) == []
    assert written_state(force, B) == "up"


def test_what_requests_show_is_said_once(
    force: InForce, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(force, config())
    until = {"until": 0}
    slot = force.slots.nodes.used[B]
    monkeypatch.setattr(
        "fastlb.node_states.ejected_until", lambda _, one: until["until"] if one == slot else 0
    )
    force.states.look()
    assert capfd.readouterr().err == ""
    until["until"] = boot_ms() + 60_000
    force.states.look()
    force.states.look()
    (line,) = capfd.readouterr().err.splitlines()
    assert "10.0.0.2:80 of [pools.web] is left out" in line
    assert "FLB-S186" in line
    until["until"] = 0
    force.states.look()
    force.states.look()
    (line,) = capfd.readouterr().err.splitlines()
    assert "10.0.0.2:80 of [pools.web] is back" in line


def test_a_node_that_is_added_starts_slowly_and_those_of_the_start_do_not(force: InForce) -> None:
    def returned(key: NodeKey) -> int:
        table = force.segment.address(force.segment.node_table)
        return int(read_slot(table, force.slots.nodes.used[key], 1)["returned_at_ms"])

    put(force, config())
    assert returned(A) == returned(B) == 0
    put(force, config('"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"'))
    assert returned(A) == returned(B) == 0
    assert returned(NodeKey("web", "10.0.0.3", 80)) > 0


def test_a_busy_node_that_leaves_is_noted(force: InForce, monkeypatch: pytest.MonkeyPatch) -> None:
    put(force, config())
    say(force, "drain")
    for watch in force.states.watches.values():
        watch.seen_ms = 5
    force.states.look()
    assert {watch.seen_ms for watch in force.states.watches.values()} == {5}
    monkeypatch.setattr("fastlb.node_states.read_slot", lambda *_: {"connections": 1})
    force.states.look()
    assert force.states.watches[A].seen_ms == 5
    assert force.states.watches[B].seen_ms > 5


# --- which nodes are meant ---


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:80", ("::1", 80)),
        ("[2001:DB8::1]:080", ("2001:db8::1", 80)),
        *((bad, None) for bad in ("", "[", "[]", "[]:80", "10.0.0.1:", "10.0.0.1:0", "a:80")),
        *((bad, None) for bad in ("10.0.0.1:65536", "[10.0.0.1:80", "[::1", "::1]:80", ":80")),
        *((bad, None) for bad in ("10.0.0.1:8o", "10.0.0.1:+80", "010.0.0.1", "\x00", "[::1]80")),
    ],
)
def test_a_node_is_named_by_address_with_or_without_port(text: str, meant: Any) -> None:
    found = read_ip_port(text)
    assert (found and (str(found[0]), found[1])) == meant


def test_ipv6_nodes_are_found_however_they_are_written() -> None:
    cfg = config('"[2001:db8::1]:80", "10.0.0.1:80"')
    key = NodeKey("web", "2001:db8::1", 80)
    for name in ("[2001:db8::1]:80", "2001:db8::1", "[2001:DB8:0::1]:80", "[2001:db8::1]"):
        assert find_nodes(cfg, name, None) == [key]
    assert address_of(key) == "[2001:db8::1]:80"


@pytest.mark.parametrize(
    ("name", "pool", "words"),
    [
        ("10.0.0.2:81", None, ('(did you mean "10.0.0.2:80"?)', "in any pool", "FLB-S080")),
        ("zzz", "web", ("there are 10.0.0.1:80, 10.0.0.2:80", "[pools.web]")),
        ("10.0.0.1", "wbe", ('(did you mean "web"?)', "FLB-S081")),
    ],
)
def test_who_is_not_found_is_helped(name: str, pool: str | None, words: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        find_nodes(config(), name, pool)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "request_", [{}, {"verb": "dance"}, {"verb": "drain"}, {"verb": "drain", "node": 5},
                 {"verb": "drain", "node": "a", "pool": []}, {"verb": ["drain"], "node": "a"}],
)  # fmt: skip
def test_what_no_command_line_sends_is_refused(force: InForce, request_: dict[str, Any]) -> None:
    put(force, config())
    with pytest.raises(Refused, match="FLB-S087"):
        asyncio.run(NodeCommands(force, NodeWords(force.scratch)).run(request_))


# --- surprises ---


def codes(lines: list[str]) -> list[str]:
    return [line[-9:-1] for line in lines]


def asked(force: InForce, verb: Any, *keys: NodeKey) -> list[str]:
    assert force.cfg is not None
    return codes(surprises(force.cfg, force.states, verb, list(keys)))


def test_what_is_so_already_is_said(force: InForce) -> None:
    put(force, config())
    assert asked(force, "undrain", B) == asked(force, "enable", B) == ["FLB-S088"]
    say(force, "drain")
    assert asked(force, "drain", B) == ["FLB-S088"]
    say(force, "disable")
    assert asked(force, "undrain", B) == ["FLB-S089"]
    assert asked(force, "enable", B) == ["FLB-S090"]


@pytest.mark.parametrize(
    ("pool", "more", "said"),
    [
        ("", "", []),
        ('algorithm = "hash"', "", ["FLB-S091"]),
        ('algorithm = "hash"\npersistence = "c"', '[persistence.c]\ntype = "ip"\n', []),
    ],
)
def test_keys_that_move_at_once(force: InForce, pool: str, more: str, said: list[str]) -> None:
    put(force, config(pool=pool, more=more))
    assert asked(force, "drain", B) == asked(force, "disable", B) == said
    assert asked(force, "undrain", B) == ["FLB-S088"]


@pytest.mark.parametrize(("policy", "drained"), [("serve", "FLB-S092"), ("refuse", "FLB-S093")])
def test_the_last_node(force: InForce, policy: str, drained: str) -> None:
    put(force, config(pool=f'drain_last = "{policy}"'))
    assert asked(force, "drain", A, B) == [drained]
    assert asked(force, "disable", A, B) == ["FLB-S093"]
    say(force, "drain", node="10.0.0.1:80")
    assert asked(force, "disable", B) == [drained]  # the other one still drains
    assert asked(force, "disable", A) == []


def test_a_node_without_weight_takes_no_new_sessions(force: InForce) -> None:
    put(force, config('"10.0.0.1:80", { address = "10.0.0.2:80", weight = 0 }'))
    assert asked(force, "drain", A) == ["FLB-S092"]


def test_why_new_sessions_are_refused(force: InForce) -> None:
    put(force, config('"10.0.0.1:80", { address = "10.0.0.2:80", weight = 0 }'))
    assert force.cfg is not None
    (line,) = surprises(force.cfg, force.states, "disable", [A])
    assert "(no other node with a weight is up)" in line
    assert "(every node is disabled)" in surprises(force.cfg, force.states, "disable", [A, B])[0]


BY_IP = '[persistence.by-ip]\ntype = "ip"\n'
BY_SOURCE = '[persistence.by-ip]\ntype = "universal"\nkey = "source"\n'
BY_BROWSER = '[persistence.by-ip]\ntype = "universal"\nkey = ["source", "header:User-Agent"]\n'
BETWEEN = '[persistence.c]\ntype = "transparent"\nfallback = "d"\n'
BETWEEN += '[persistence.d]\ntype = "universal"\nkey = "header:X"\nfallback = "by-ip"\n'
COOKIE = '[persistence.c]\ntype = "transparent"\nfallback = "by-ip"\n'


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (COOKIE + BY_IP, ["FLB-S099"]),
        (COOKIE + BY_SOURCE, ["FLB-S099"]),
        (BETWEEN + BY_IP, ["FLB-S099"]),
        (COOKIE + BY_BROWSER, []),
        ('[persistence.c]\ntype = "ip"\n', []),  # there, an address is the session
        ('[persistence.c]\ntype = "transparent"\n', []),
    ],
)
def test_newcomers_that_a_draining_node_gets(force: InForce, classes: str, said: list[str]) -> None:
    put(force, config(pool='persistence = "c"', more=classes))
    assert asked(force, "drain", B) == said
    assert asked(force, "disable", B) == asked(force, "enable", B)[1:] == []


# --- the file ---


def test_words_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = NodeWords(tmp_path)
    words = {A: Word(True, False, False), NodeKey("p", "::1", 8): Word(False, True, True)}
    assert file.save(words) == []
    assert file.load() == words
    assert file.save({}) == []
    assert (file.load(), list(tmp_path.iterdir())) == ({}, [])


def row_of(**other: object) -> str:
    row = {"pool": A.pool, "ip": A.ip, "port": A.port, "draining": True, "disabled": False}
    return json.dumps({"nodes": [row | {"configured": False} | other]})


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", '{"nodes": 5}', '{"nodes": [5]}', '{"nodes": [{}]}', "\xff",
     '{"nodes": [{"pool": "web", "ip": "a", "port": "80", "draining": true,'
     ' "disabled": false, "configured": false}]}',
     "[" * 3000, '{"nodes": ' + "[" * 100_000, " " * (FILE_BYTES_MAX + 1),
     row_of(ip="999.0.1.20"), row_of(ip="10.0.0.01"), row_of(ip="::0"), row_of(ip="fe80::1%eth0"),
     row_of(ip=""), row_of(port=0), row_of(port=65536), row_of(port=-(10**99)), row_of(pool=""),
     row_of(pool="a\nb"), row_of(pool="\ud800"), row_of(pool="x" * 64)],
)  # fmt: skip
def test_a_file_that_is_no_use_is_one_line_and_kept(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = tmp_path / f"{NAME}.damaged-1"
    (tmp_path / NAME).write_bytes(text.encode("latin-1"))
    assert NodeWords(tmp_path).load() == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert "[FLB-S095]" in line
    assert f"kept as {aside}" in line
    assert len(line) < 700
    assert list(tmp_path.iterdir()) == [aside]
    assert aside.read_bytes() == text.encode("latin-1")
    assert NodeWords(tmp_path).load() == {}
    assert capsys.readouterr().err == ""


def test_the_row_that_those_are_made_of_is_right(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(row_of())
    assert NodeWords(tmp_path).load() == {A: Word(True, False, False)}


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_what_is_no_file_is_set_aside(
    tmp_path: Path, put_there: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    put_there(tmp_path / NAME)
    assert NodeWords(tmp_path).load() == {}
    said = capsys.readouterr().err
    assert f"{tmp_path / NAME}: " in said
    assert f"kept as {tmp_path / NAME}.damaged-1" in said
    assert NodeWords(tmp_path).save({A: Word(True, False, False)}) == []
    assert NodeWords(tmp_path).load() == {A: Word(True, False, False)}


def test_a_directory_that_cannot_be_written_is_a_warning(force: InForce, tmp_path: Path) -> None:
    put(force, config())
    commands = NodeCommands(force, NodeWords(tmp_path / "none"))
    answer = asyncio.run(commands.run({"verb": "drain", "node": "10.0.0.2"}))
    assert codes(answer["warnings"]) == ["FLB-S096"]
    assert written_state(force, B) == "draining"


def test_what_a_process_that_died_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "nodes.new").write_text("half")
    assert NodeWords(tmp_path).save({A: Word(True, False, False)}) == []
    assert json.loads((tmp_path / NAME).read_text())["nodes"][0]["pool"] == "web"


# --- when a node can go ---


def chain(*classes: str) -> Config:
    """The pool's chain of classes, each TOML text of one table."""
    tables = [
        f"[persistence.c{n}]\n{text}\n"
        + (f'fallback = "c{n + 1}"\n' if n + 1 < len(classes) else "")
        for n, text in enumerate(classes)
    ]
    return config(pool='persistence = "c0"' if classes else "", more="".join(tables))


@pytest.mark.parametrize(
    ("classes", "needed"),
    [
        ((), 0),
        (('type = "ip"',), 0),
        (('type = "transparent"',), QUIET_S),
        (('type = "transparent"\ntimeout = "1500ms"',), 4),
        (('type = "transparent"\ntimeout = "2h"', 'type = "transparent"'), 7202),
        (('type = "transparent"\ntimeout = "1m"', 'type = "ip"'), 62),
    ],
)
def test_quiet_is_needed_where_sessions_cannot_be_counted(
    classes: tuple[str, ...], needed: int
) -> None:
    assert quiet_needed(chain(*classes), "web") == needed


@pytest.mark.parametrize(
    ("state", "connections", "idle_s", "maps", "safe", "words"),
    [
        ("up", 0, 9e9, None, None, ""),
        ("down", 0, 9e9, None, None, ""),
        ("draining", 0, 0.0, Maps(), False, "drains: 0 sessions, 0 connections, idle 0 s of 62 s"),
        ("draining", 0, 61.9, Maps(), False, "not yet, in 1 s if nothing comes"),
        ("draining", 0, 62.0, Maps(), True, "safe to remove"),
        ("draining", 1, 62.0, Maps(), False, "1 connection, idle 62 s of 62 s: not yet"),
        ("disabled", 0, 62.0, Maps(1, 99.5), False, "is disabled: 1 session, 0 connections"),
        ("disabled", 0, 62.0, Maps(1, 99.5), False, "not yet, in 100 s if nothing comes"),
        ("draining", 0, 62.0, Maps(2, None), False, "not yet, its sessions never expire"),
        ("draining", 0, 70.0, None, True, "drains: 0 connections, idle 70 s of 62 s: safe"),
    ],
)
def test_a_node_is_safe_when_nothing_can_come_back(
    state: str, connections: int, idle_s: float, maps: Maps | None, safe: bool | None, words: str
) -> None:
    cfg = chain('type = "transparent"\ntimeout = "1m"', 'type = "ip"')
    found = removal(cfg, "web", state, connections, idle_s, maps)
    assert (found and found.safe) == safe
    assert words in (found.why if found else "")


def test_maps_are_counted_for_the_node_that_they_lead_to() -> None:
    cfg = config(
        '"10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"',
        'persistence = "c0"',
        '[persistence.c0]\ntype = "ip"\nfallback = "c1"\n[persistence.c1]\ntype = "ip"\n',
    )
    rows = {
        "c0": [
            TallyRow("10.0.0.1", 80, 3, 1, 10),
            TallyRow("10.0.0.1", 82, 9, 0, 1),  # two nodes of that address: neither
            TallyRow("10.0.0.2", 99, 2, 0, 5),  # the only node of that address
            TallyRow("10.0.0.9", 80, 7, 0, 1),
        ],
        "c1": [TallyRow("10.0.0.2", 80, 1, 0, 0), TallyRow("10.0.0.1", 81, 0, 4, None)],
    }
    found = maps_of_nodes(cfg, "web", rows, {"c0": 30, "c1": 100})
    assert found is not None
    assert found[A] == Maps(3, 2.0)
    assert found[NodeKey("web", "10.0.0.1", 81)] == Maps(0, 0)
    assert found[B] == Maps(3, 10.0)
    assert maps_of_nodes(cfg, "web", rows, {"c0": 0, "c1": 100})[B] == Maps(3, None)  # type: ignore[index]


def test_a_pool_without_a_cache_has_no_maps_to_count() -> None:
    assert maps_of_nodes(chain('type = "transparent"'), "web", {}, {}) is None


def test_states_are_those_of_the_core(force: InForce) -> None:
    put(force, config())
    assert isinstance(force.states, NodeStates)
    assert {say(force, verb)["nodes"][0]["state"] for verb in ("drain", "disable")} == {
        "draining", "disabled",
    }  # fmt: skip
