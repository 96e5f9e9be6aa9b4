"""Edits of pools: what they make of a configuration, of each other, and of the file."""

import os
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb.check import check_text
from fastlb.config import Config
from fastlb.edit_file import EditedFile
from fastlb.edits import Edit, apply, in_words, joined, over
from fastlb.errors import Refused

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "[::1]:80"
SERVER = '[virtual_servers.shop]\nlisten = "127.0.0.1:80"\npool = "web"\n'


def config(nodes: str = f'"{A}", "{B}"') -> Config:
    found = check_text(f"{SERVER}[pools.web]\nnodes = [{nodes}]\n", Path("x")).config
    assert found is not None
    return found


def edit(verb: str, address: str, **more: object) -> Edit:
    return Edit(verb=verb, pool="web", address=address, **more)  # type: ignore[arg-type]


def nodes(cfg: Config) -> dict[str, int]:
    return {str(node.address): node.weight for node in cfg.pools["web"].nodes}


def test_what_each_edit_makes_of_a_configuration() -> None:
    cfg = config()
    added = apply(cfg, [edit("add", C, weight=3, backup=True, max_connections=9)])
    node = added.pools["web"].nodes[-1]
    assert (str(node.address), node.weight, node.backup, node.max_connections) == (C, 3, True, 9)
    assert nodes(apply(cfg, [edit("remove", A)])) == {B: 1}
    assert nodes(apply(cfg, [edit("weight", A, weight=0)])) == {A: 0, B: 1}
    assert nodes(cfg) == {A: 1, B: 1}


def test_what_does_not_fit_is_forgiven() -> None:
    cfg = config()
    assert apply(cfg, [edit("add", A, weight=9), edit("remove", C), edit("weight", C)]) == cfg
    assert apply(cfg, [Edit(verb="remove", pool="gone", address=A)]) == cfg


@given(
    st.lists(
        st.tuples(st.sampled_from(("add", "remove", "weight")), st.sampled_from((A, B, C)))
        .flatmap(lambda pair: st.tuples(st.just(pair), st.integers(0, 3)))
        .map(lambda both: edit(*both[0], weight=both[1])),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_edits_that_were_joined_make_the_same_of_the_file_as_one_after_the_other(
    asked: list[Edit],
) -> None:
    cfg, now, all_ = config(), config(), list[Edit]()
    for one in asked:
        after = apply(now, [one])
        if after == now:
            continue  # commands without an effect are not recorded
        now, all_ = after, joined(all_, one)
    assert nodes(apply(cfg, all_)) == nodes(now)
    assert len(all_) <= 2 * 3
    assert over(now, all_) == []
    assert {one.address for one in over(cfg, all_)} == {
        address for address in (A, B, C) if nodes(cfg).get(address) != nodes(now).get(address)
    }


def test_edits_are_plain_data() -> None:
    edits = [edit("add", C, weight=2), edit("remove", A)]
    assert msgspec.json.decode(msgspec.json.encode(edits), type=list[Edit]) == edits
    assert [in_words(one) for one in edits] == ["added", "removed"]
    assert in_words(edit("weight", A, weight=7)) == "weight 7"


# --- the file ---

LAYOUTS = {
    "one line": f'[pools.web]  # the shop\nnodes = ["{A}", "{B}"]  # two\nretries = 1\n',
    "lines": f'[pools.web]\nnodes = [\n    "{A}",  # one\n    # two:\n    "{B}",\n]\n# end\n',
    "tables": f'[[pools.web.nodes]]\naddress = "{A}"  # one\n\n[[pools.web.nodes]]\n'
    f'address = "{B}"\nweight = 2\n# end\n',
    "inline tables": f'[pools]\nweb = {{ nodes = [{{ address = "{A}" }}, "{B}"] }} # end\n',
    "dotted": f'pools.web.nodes = ["{A}", "{B}"] # end\n',
    "spelled otherwise": '[pools."web"]\nnodes = ["10.0.0.1:0080", "10.0.0.2:80"]\n',
}
EDITS = {
    "add": [edit("add", C)],
    "add with keys": [edit("add", C, weight=3, backup=True)],
    "remove": [edit("remove", A)],
    "weight": [edit("weight", A, weight=5)],
    "several": [edit("add", C, weight=2), edit("weight", B, weight=4), edit("remove", A)],
}


def file_of(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "fastlb.toml"
    file.write_text(text + "\n" + SERVER if text.startswith("pools") else SERVER + "\n" + text)
    return file


def as_configured(file: Path) -> dict[str, int]:
    checked = check_text(file.read_text(), file)
    assert checked.config is not None, checked.errors
    return nodes(checked.config)


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_the_file_says_what_was_made_and_keeps_its_comments(
    tmp_path: Path, text: str, edits: list[Edit]
) -> None:
    file = file_of(tmp_path, text)
    file.chmod(0o640)
    before = check_text(file.read_text(), file).config
    assert before is not None
    comments = re.findall(r"#.*", file.read_text())
    if any(one.verb == "remove" for one in edits):
        comments = [one for one in comments if one != "# one"]  # it goes with its node
    one = EditedFile(file, edits)
    one.write()
    assert as_configured(file) == nodes(apply(before, edits))
    kept = re.findall(r"#.*", file.read_text())
    assert [comment for comment in comments if comment not in kept] == []
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["fastlb.toml"]


def test_a_single_node_that_stands_alone_becomes_a_list(tmp_path: Path) -> None:
    file = file_of(tmp_path, f'[pools.web]\nnodes = "{A}"\n')
    EditedFile(file, [edit("add", B)]).write()
    assert as_configured(file) == {A: 1, B: 1}


def test_lines_that_are_not_meant_stay_byte_for_byte(tmp_path: Path) -> None:
    odd = '[persistence.x]\r\ntype   =  "ip"   # \u00e4\r\n\r\n\r\n[limits]\nbuffers="8MiB"'
    file = tmp_path / "fastlb.toml"
    file.write_bytes(f'{SERVER}[pools.web]\nnodes = ["{A}"]\n{odd}'.encode())
    EditedFile(file, [edit("add", B)]).write()
    assert file.read_bytes() == f'{SERVER}[pools.web]\nnodes = ["{A}", "{B}"]\n{odd}'.encode()


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file = file_of(tmp_path / "real", LAYOUTS["one line"])
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    EditedFile(link, [edit("remove", A)]).write()
    assert link.is_symlink()
    assert as_configured(file) == {B: 1}


@pytest.mark.parametrize(
    ("text", "edits", "words"),
    [
        ("[pools.web]\nnodes = [", EDITS["add"], "not valid TOML"),
        ("[pools.other]\nnodes = []\n", EDITS["add"], "no [pools.web]"),
        (LAYOUTS["lines"], [edit("add", A)], "lists 10.0.0.1:80 already"),
        (LAYOUTS["lines"], [edit("remove", C)], "does not list [::1]:80"),
        (LAYOUTS["lines"] + "[limts]\n", EDITS["add"], "with the change it is wrong"),
        (LAYOUTS["lines"] + '[pools.b]\nnodes = ["x"]\ny = 1\n', EDITS["add"], "1 more"),
    ],
)
def test_what_cannot_be_saved_leaves_the_file_as_it_is(
    tmp_path: Path, text: str, edits: list[Edit], words: str
) -> None:
    file = file_of(tmp_path, text)
    before = file.read_bytes()
    with pytest.raises(Refused) as refused:
        EditedFile(file, edits)
    assert words in str(refused.value)
    assert str(file) in str(refused.value)
    assert file.read_bytes() == before


def test_a_file_that_changes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    file = file_of(tmp_path, LAYOUTS["lines"])
    one = EditedFile(file, EDITS["add"])
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(Refused, match="changed meanwhile"):
        one.write()
    assert file.read_text().endswith("# mine\n")


def test_no_file_and_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="No such file"):
        EditedFile(tmp_path / "none.toml", [])
    file = file_of(tmp_path, LAYOUTS["lines"])
    one, before = EditedFile(file, EDITS["add"]), file.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="No space left"):
        one.write()
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["fastlb.toml"]


@given(st.sampled_from(list(LAYOUTS.values())), st.data())
@settings(max_examples=60, deadline=None)
def test_any_edits_of_any_layout(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    file = file_of(tmp_path_factory.mktemp("f"), text)
    for _ in range(data.draw(st.integers(1, 5))):
        there = as_configured(file)
        verb = data.draw(st.sampled_from(("add", "remove", "weight")))
        known = sorted(there)
        address = f"10.1.0.{len(there) + 1}:{data.draw(st.integers(1, 65535))}"
        if verb != "add":
            address = data.draw(st.sampled_from(known)) if known else address
        one = edit(verb, address, weight=data.draw(st.integers(0, 256)))
        if (verb == "add") == (address in there):
            continue
        wanted = nodes(apply(check_text(file.read_text(), file).config or config(), [one]))
        EditedFile(file, [one]).write()
        assert as_configured(file) == wanted
        tomllib.loads(file.read_text())
