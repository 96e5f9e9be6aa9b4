"""What the documentation says of the program: configurations that are right, modules that exist."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fastlb import features
from fastlb._core.outcome import cause_names, outcome_names
from fastlb.check import check_file
from tests.named_files import with_files

ROOT = Path(__file__).parents[1]
PAGES = ("docs/persistence.md", "docs/tls.md", "README.md")
BLOCK = re.compile(r"^```toml\n(\[.*?)^```", re.DOTALL | re.MULTILINE)  # whole tables
BLOCKS = [
    pytest.param(block, id=f"{Path(page).stem}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall((ROOT / page).read_text()))
]
SERVING = '[virtual_servers.web]\nlisten = ["127.0.0.1:80"]\npool = "web"\n'
WEB = '[pools.web]\nnodes = ["127.0.0.1:81"]\n'


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_is_right(
    block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(features, "UNAVAILABLE", ())
    text = ("" if "[virtual_servers." in block else SERVING) + block
    if 'pool = "web"' in text and "[pools.web]" not in text:
        text = WEB + text
    checked = check_file(with_files(text, tmp_path))
    assert [str(error) for error in checked.errors] == []


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 3


def test_the_table_of_modules_has_every_module_of_the_core() -> None:
    core = ROOT / "fastlb/_core"
    modules = {path.stem for kind in ("*.pyx", "*.pxd") for path in core.glob(kind)}
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("## Modules of the core")[2].partition("\n\nCalls go down")[0]
    named = re.findall(r"`([a-z0-9_*]+)`", table)
    missing = {one for one in modules if not any(fnmatch(one, name) for name in named)}
    assert {one for one in missing if not one.startswith("_testing_")} == set()
    assert [name for name in named if not any(fnmatch(one, name) for one in modules)] == []


def test_modules_of_the_core_use_only_layers_above_their_own() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("## Modules of the core")[2].partition("\n\nCalls go down")[0]
    layers = [re.findall(r"`([a-z0-9_*]+)`", row) for row in table.splitlines()]

    def layer(module: str) -> int:
        return next(i for i, row in enumerate(layers) if any(fnmatch(module, n) for n in row))

    sources = [path for kind in ("*.pyx", "*.pxd") for path in (ROOT / "fastlb/_core").glob(kind)]
    uses = {
        (path.stem, used)
        for path in sources
        if not path.stem.startswith("_testing_")
        for used in re.findall(r"^from fastlb\._core\.(\w+) cimport", path.read_text(), re.M)
    }
    assert len(uses) > 300
    assert {user for user, used in uses if layer(used) > layer(user)} == {"hooks"}


@pytest.mark.parametrize(
    ("title", "names"), [("Outcomes", outcome_names()), ("Causes", cause_names()[1:])]
)
def test_every_word_of_the_access_log_is_explained(title: str, names: list[str]) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    explained = [name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)]
    assert sorted(explained) == sorted(names)


def test_every_field_of_the_access_log_is_explained() -> None:
    source = (ROOT / "fastlb/_core/access_log.pyx").read_text()
    written = set(re.findall(r'[,{]"([a-z_]+)":', source.replace("\\", "")))
    text = (ROOT / "docs/operations.md").read_text()
    section = text.partition("\n## Access log\n")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    explained = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert len(written) > 20
    assert sorted(explained) == sorted(written)


LINKS = [
    (page.relative_to(ROOT), link)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    if "://" not in link
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: Path, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (ROOT / page.parent / name).resolve() if name else ROOT / page
    assert target.exists()
    if anchor:
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        assert anchor in {_anchor(title) for title in titles}


def _anchor(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


RELIABILITY = (ROOT / "docs/reliability.md").read_text()
NAMED = re.findall(r'`(tests/[\w/]+\.py)(?: -k "?([\w ]+)"?)?`', RELIABILITY)
EXHAUSTION = RELIABILITY.partition("\n## Exhaustion\n")[2].partition("\n## ")[0]
SHORT = [
    word
    for row in EXHAUSTION.splitlines()
    if row.startswith("| ") and "`" in row
    for word in re.findall(r"`(\w+)`", row.split(" | ")[-1])
]


@pytest.mark.parametrize(("file", "words"), NAMED)
def test_a_test_that_shows_a_promise_is_there(file: str, words: str) -> None:
    text = (ROOT / file).read_text()
    for word in words.split(" or ") if words else []:
        assert re.search(rf"^def test_\w*{word}", text, re.MULTILINE)


@pytest.mark.parametrize("word", SHORT)
def test_a_test_of_exhaustion_is_there(word: str) -> None:
    assert len(SHORT) > 10
    texts = [path.read_text() for path in (ROOT / "tests/proxy").glob("test_15[12]_*.py")]
    assert any(re.search(rf"^def test_\w*{word}", text, re.MULTILINE) for text in texts)
