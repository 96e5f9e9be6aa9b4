"""Certificates, keys and rules that a configuration names, made where it looks for them."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.harness.certificates import Authority

PASSPHRASE = "a passphrase"
RULE = "from fastlb import rule\n\n\n@rule.request\ndef {}(request): ...\n"


def with_files(text: str, directory: Path) -> Path:
    """A file in `directory` with this configuration, and beside it what it names of TLS and
    rules."""
    authority = Authority(directory)
    for table in _tables(tomllib.loads(text)):
        for key in ("ca", "client_ca"):
            if key in table:
                (directory / table[key]).write_bytes(authority.file.read_bytes())
        if "certificate" in table:
            _certificate(authority, table)
        for page in table.get("error_pages", {}).values():
            (directory / page).write_text("sorry")
        if table.get("function"):
            module, _, function = table["function"].partition(":")
            (directory / f"{module}.py").write_text(f"async def {function}(node): ...\n")
        for rule in table.get("rules", ()):
            module, _, function = rule.partition(":")
            (directory / f"{module}.py").write_text(RULE.format(function))
    file = directory / "fastlb.toml"
    file.write_text(text)
    return file


def _certificate(authority: Authority, table: dict[str, Any]) -> None:
    stem = Path(table["certificate"]).stem
    passphrase = PASSPHRASE if "key_passphrase_file" in table else None
    pair = authority.certificate(f"{stem}.example.com", passphrase=passphrase, file=stem)
    assert [table["certificate"], table["key"]] == [pair.certificate_path.name, pair.key_path.name]
    if pair.passphrase_path is not None:
        assert table["key_passphrase_file"] == pair.passphrase_path.name
    if "ocsp" in table:
        authority.ocsp(pair, file=table["ocsp"])


def _tables(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _tables(inner)
