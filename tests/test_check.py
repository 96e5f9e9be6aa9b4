"""Wrong configurations: everything that is wrong is said, each with its place.

Each tests/golden/NAME.toml is checked and compared with NAME.expected, one line per problem.
`FASTLB_GOLDEN=write pytest tests/test_check.py` writes the expected files; read the difference.
"""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlb
from fastlb import errors, features, rule_problems, tls_files
from fastlb.check import FILE_BYTES_MAX, check_file, check_text, find_config
from fastlb.config import COOKIE_NAMES_MAX, LISTENERS_MAX, NODES_MAX
from fastlb.errors import ConfigNotFound, Message, Problem

GOLDEN = Path(__file__).parent / "golden"
SERVING = '[virtual_servers.a]\nlisten = "127.0.0.1:80"\npool = "web"\n'
WEB = '[pools.web]\nnodes = ["127.0.0.1:81"]\n'


@pytest.fixture
def _everything_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "UNAVAILABLE", ())
    # The files that tls tables name are test_tls_files.py's.
    monkeypatch.setattr(tls_files, "check_tls", lambda config, report: None)
    # The modules of rules are test_rule_check.py's.
    monkeypatch.setattr(rule_problems, "report_rules", lambda *arguments: {})


def lines_of(problems: list[Problem]) -> list[str]:
    return [f"{one.level} {one.code} {one._replace(file=Path(one.file).name)}" for one in problems]


@pytest.mark.usefixtures("_everything_served")
@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.toml")), ids=lambda path: path.stem)
def test_golden(file: Path) -> None:
    checked = check_file(file)
    found = "\n".join(lines_of(checked.errors + checked.warnings)) + "\n"
    expected = file.with_suffix(".expected")
    if os.environ.get("FASTLB_GOLDEN") == "write":
        expected.write_text(found)
    assert found == expected.read_text()
    assert (checked.config is None) == bool(checked.errors)


def test_a_problem_is_one_line_with_its_place() -> None:
    checked = check_text(SERVING + WEB + 'algorithm = "least-conections"\n', Path("fastlb.toml"))
    assert [str(problem) for problem in checked.errors] == [
        'fastlb.toml:6: [pools.web] algorithm: unknown algorithm "least-conections"; expected one '
        "of round-robin, weighted-round-robin, least-connections, random-of-two, "
        'fastest-response, hash (did you mean "least-connections"?)'
    ]
    assert checked.config is None


def catalogue() -> list[Message]:
    """The messages about configurations; test_errors.py has the others."""
    found = [value for value in vars(errors).values() if isinstance(value, Message)]
    return [one for one in found if one.code.startswith("FLB-C")]


def test_codes_are_unique() -> None:
    codes = [value.code for value in vars(errors).values() if isinstance(value, Message)]
    assert len(set(codes)) == len(codes)


def test_every_message_is_shown_by_a_test() -> None:
    shown = {
        code
        for file in GOLDEN.glob("*.expected")
        for code in re.findall("FLB-C...", file.read_text())
    }
    shown |= {"FLB-C001", "FLB-C003", "FLB-C005", "FLB-C006", "FLB-C041", "FLB-C045"}  # below
    shown |= {"FLB-C092"}  # below
    shown |= {"FLB-C090", "FLB-C093", "FLB-C094"}  # of other files: test_passphrases.py
    shown |= {f"FLB-C{number}" for number in (*range(120, 125), *range(130, 137))}  # test_tls_files
    shown |= {f"FLB-C{number}" for number in range(140, 150)}  # test_rule_check, test_rule_loader
    assert {message.code for message in catalogue()} == shown


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = check_file(tmp_path / "none.toml")
    assert [one.code for one in missing.errors] == ["FLB-C001"]
    assert "No such file" in str(missing.errors[0])
    assert [one.code for one in check_file(tmp_path).errors] == ["FLB-C001"]


def test_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b"[proxy]\nuser = 'caf\xe9'\n")
    problem = check_file(file).errors[0]
    assert (problem.code, problem.line) == ("FLB-C003", 2)


def test_a_file_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever reloads would wait for ever, and so would the stop after it."""
    pipe, device, large = (tmp_path / name for name in ("pipe", "device", "large"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    large.write_bytes(b"#" * FILE_BYTES_MAX + b"\n")
    assert [one.code for one in check_file(pipe).errors] == ["FLB-C004"]
    for file in (device, large):
        (wrong,) = check_file(file).errors
        assert (wrong.code, "larger than 16 MiB" in str(wrong)) == ("FLB-C001", True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = " + "[" * 50_000, "nested too deep"),
        ("[" + "a." * 2000 + "b]\n", "nested too deep"),
        ("a." * 2000 + "b = 1\n", "nested too deep"),
        ("[pools.web]\nretries = " + "9" * 5000, "4300 digits"),
        ("[pools.web]\nretries = 0x" + "f" * 5000, "more than 64 bits"),
        ("[pools.web]\nretries = 9223372036854775808", "more than 64 bits"),
    ],
    ids=["lists", "table", "keys", "digits", "hex", "65 bits"],
)
def test_toml_that_python_cannot_take(text: str, reason: str) -> None:
    (wrong,) = check_text(text, Path("x")).errors
    assert wrong.code == "FLB-C002"
    assert reason in str(wrong)


def test_too_many_nodes() -> None:
    nodes = [f'"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80"' for n in range(NODES_MAX + 1)]
    text = f"{SERVING}[pools.web]\nnodes = [{', '.join(nodes)}]\n"
    assert [one.code for one in check_text(text, Path("x")).errors] == ["FLB-C041"]


def test_too_many_addresses() -> None:
    addresses = ", ".join(f'"127.0.0.1:{port}"' for port in range(1, LISTENERS_MAX + 2))
    text = f'[virtual_servers.a]\nlisten = [{addresses}]\npool = "web"\n' + WEB
    (problem,) = check_text(text, Path("x")).errors
    assert problem.code == "FLB-C045"
    assert "251 addresses to listen on" in str(problem)


def test_too_many_names_of_one_cookie() -> None:
    cookie = 'persistence = "c"\n[persistence.c]\ntype = "cookie-insert"\n'
    servers = [
        f'[virtual_servers.s{n}]\nlisten = "127.0.0.1:{1000 + n}"\npool = "web"\n'
        for n in range(COOKIE_NAMES_MAX + 1)
    ]
    (problem,) = check_text("".join(servers) + WEB + cookie, Path("x")).errors
    assert problem.code == "FLB-C092"
    assert check_text("".join(servers[1:]) + WEB + cookie, Path("x")).errors == []
    named = "".join(servers) + WEB + cookie + 'name = "N"\n'
    assert check_text(named, Path("x")).errors == []


@pytest.mark.parametrize(
    ("cookie", "found_by"),
    [
        ("JSESSIONID", 'type = "j2ee"'),
        ("SID", 'type = "j2ee"\ncookie = "SID"'),
        ("ASP.NET_SessionId", 'type = "asp"'),
        ("ASPSESSIONIDQQQQQQQQ", 'type = "asp"\ncookie = "other"'),
        ("SID", 'type = "cookie"\ncookie = "SID"'),
        ("X-Zeus-Backend", 'type = "x-zeus"'),
        ("SID", 'type = "universal"\nkey = "cookie:SID"'),
        ("SID", 'type = "hash"\non = ["host", "cookie:SID"]'),
    ],
)
@pytest.mark.parametrize("inserts", ["transparent", "cookie-insert", 'cookie"\ncookie = "APP'])
def test_an_inserted_cookie_is_not_the_applications(
    cookie: str, found_by: str, inserts: str
) -> None:
    text = f'{SERVING}{WEB}persistence = "a"\n[persistence.a]\nfallback = "b"\n'
    text += f'type = "{inserts}"\nname = "%s"\n[persistence.b]\n{found_by}\n'
    (problem,) = check_text(text % cookie, Path("x")).errors
    assert (problem.code, problem.line) == (
        "FLB-C057",
        text[: text.index("name = ")].count("\n") + 1,
    )
    assert check_text(text % cookie.lower().replace("-", "_"), Path("x")).errors == []


def test_find_config(tmp_path: Path) -> None:
    here, there = tmp_path / "fastlb.toml", tmp_path / "etc.toml"
    assert find_config("any.toml") == Path("any.toml")
    with pytest.raises(ConfigNotFound) as caught:
        find_config(None, (here, there))
    assert str(here) in str(caught.value)
    assert str(there) in str(caught.value)
    there.touch()
    assert find_config(None, (here, there)) == there
    here.touch()
    assert find_config(None, (here, there)) == here


# One use of each line of features.UNAVAILABLE; a line that is deleted there is deleted here.
USES = {
    "admin": '[admin]\nlisten = "127.0.0.1:90"\n',
    "cluster": "[cluster]\n",
}


@pytest.mark.parametrize("feature", features.UNAVAILABLE, ids=lambda feature: feature.place)
def test_what_is_not_served_is_refused(feature: features.Feature) -> None:
    use = USES[feature.place]
    text = SERVING + (use if "[pools.web]" in use else use + WEB)
    checked = check_text(text, Path("x"))
    assert checked.config is None
    assert {one.code for one in checked.errors} == {"FLB-C006"}
    assert f"is not available in this version ({fastlb.__version__})" in str(checked.errors[0])


def test_nothing_is_refused_that_is_served() -> None:
    assert set(USES) == {feature.place for feature in features.UNAVAILABLE}
    assert check_text(SERVING + "proxy_protocol = false\n" + WEB, Path("x")).errors == []


WORDS = st.sampled_from(
    [
        "proxy",
        "pools",
        "web",
        "nodes",
        "virtual_servers",
        "persistence",
        "type",
        "ip",
        "listen",
        "transparent",
        "limits",
        "fallback",
        "127.0.0.1:80",
        "",
        "5s",
        "a b",
        "é",
        "directives",
    ]
)
VALUES = st.recursive(
    WORDS | st.integers(-5, 300) | st.booleans() | st.floats(0, 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def as_toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f'"{key}" = {as_toml(one)}' for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case str():
            return f'"{value}"'
    return str(value).lower()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_no_document_is_too_strange(document: dict[str, object]) -> None:
    text = "\n".join(f'"{key}" = {as_toml(value)}' for key, value in document.items())
    checked = check_text(text, Path("x"))
    for problem in checked.errors + checked.warnings:
        assert "\n" not in str(problem)
    assert (checked.config is None) == bool(checked.errors)
