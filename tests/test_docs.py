"""The configurations in docs/persistence.md are right ones."""

import re
from pathlib import Path

import pytest

from fastlb import features
from fastlb.check import check_text

TEXT = (Path(__file__).parents[1] / "docs/persistence.md").read_text()
BLOCKS = re.findall(r"^```toml\n(\[.*?)^```", TEXT, re.DOTALL | re.MULTILINE)  # whole tables
SERVING = '[virtual_servers.web]\nlisten = ["127.0.0.1:80"]\npool = "web"\n'
WEB = '[pools.web]\nnodes = ["127.0.0.1:81"]\n'


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_is_right(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "UNAVAILABLE", ())
    checked = check_text(SERVING + ("" if "[pools.web]" in block else WEB) + block, Path("x"))
    assert [str(error) for error in checked.errors] == []


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 3
