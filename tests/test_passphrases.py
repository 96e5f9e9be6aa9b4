"""Passphrase files: what is read, what is refused and doubted, and the keys made from them."""

import asyncio
import os
from pathlib import Path

import pytest

from fastlb import passphrases
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.errors import StartError
from fastlb.in_force import InForce
from fastlb.passphrases import Passphrases, derive_keys, read_passphrases
from tests.control.running import free_port
from tests.test_in_force import Workers

GOOD = b"correct horse battery staple"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrases"
    path.write_bytes(GOOD + b"\n")
    path.chmod(0o600)
    return path


def text(file: Path, name: str = "c") -> str:
    return (
        f'[virtual_servers.a]\nlisten = "127.0.0.1:{free_port()}"\npool = "web"\n'
        f'[pools.web]\nnodes = ["127.0.0.1:81"]\npersistence = "{name}"\n'
        f'[persistence.{name}]\ntype = "cookie-insert"\npassphrase_file = "{file}"\n'
    )


def said(file: Path) -> list[str]:
    """Codes and texts of a check."""
    checked = check_text(text(file), Path("x"))
    return [f"{one.code} {one}" for one in checked.errors + checked.warnings]


def config(file: Path) -> Config:
    checked = check_text(text(file), Path("x"))
    assert checked.config is not None, checked.errors
    return checked.config


@pytest.mark.parametrize(("data", "found"), [
    (b"a passphrase", [b"a passphrase"]),
    (b"  first of all  \n\tsecond of all\r\n", [b"first of all", b"second of all"]),
    (b"# comment\n\n  # another\nfirst # and its rest\n", [b"first # and its rest"]),
    (b"\xef\xbb\xbfbyte order\n", [b"byte order"]),
    (b"\xff\xfe\x00 not text", [b"\xff\xfe\x00 not text"]),
    ("ключ и замок\n".encode(), ["ключ и замок".encode()]),
    (b"twice twice twice\nother\ntwice twice twice\n", [b"twice twice twice", b"other"]),
    (b"one\x0btwo\x0cthree\xc2\x85four\n", [b"one\x0btwo\x0cthree\xc2\x85four"]),
])  # fmt: skip
def test_one_passphrase_per_line(file: Path, data: bytes, found: list[bytes]) -> None:
    file.write_bytes(data)
    assert read_passphrases(file).passphrases == found


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "no passphrase in it"),
    (b"\n# only\n  \r\n", "no passphrase in it"),
    (b"".join(b"passphrase number %d\n" % n for n in range(9)), "9 passphrases in it"),
    (b"x" * 65537, "larger than 64 KiB"),
])  # fmt: skip
def test_what_is_no_passphrase_file_is_refused(file: Path, data: bytes, reason: str) -> None:
    file.write_bytes(data)
    (line,) = said(file)
    assert line.startswith("FLB-C090 x:9: [persistence.c] passphrase_file: passphrase file ")
    assert str(file) in line
    assert reason in line


def test_what_cannot_be_read_is_refused_and_named(file: Path, tmp_path: Path) -> None:
    file.unlink()
    assert said(file) == [
        f"FLB-C090 x:9: [persistence.c] passphrase_file: passphrase file {file}: "
        "No such file or directory"
    ]
    os.mkfifo(file)  # would make who opens it wait
    assert "not a regular file" in said(file)[0]
    assert "Is a directory" in said(tmp_path)[0] or "not a regular file" in said(tmp_path)[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o444])
def test_a_file_that_others_may_read_is_doubted(file: Path, mode: int) -> None:
    file.chmod(mode)
    (line,) = said(file)
    assert line.startswith("FLB-C094 ")
    assert f"has mode {mode:04o}" in line
    assert f"chmod 600 {file}" in line
    file.chmod(0o600)
    assert said(file) == []


def test_a_short_passphrase_is_doubted_without_showing_it(file: Path) -> None:
    file.write_bytes(b"# c\n" + GOOD + b"\nhunter2\n")
    (line,) = said(file)
    assert line.startswith("FLB-C093 ")
    assert "in line 3 has 7 bytes" in line
    assert "hunter2" not in line


def test_keys_are_the_same_everywhere_and_differ_by_passphrase() -> None:
    cipher_key, mark = derive_keys(GOOD)
    # Whoever changes one of these makes every encrypted cookie of every installation worthless.
    assert cipher_key.hex().startswith(KNOWN[0])
    assert mark.hex() == KNOWN[1]
    assert (len(cipher_key), len(mark)) == (64, 16)
    other = derive_keys(GOOD + b" ")
    assert other[0] != cipher_key
    assert other[1] != mark


KNOWN = "99d3e83e5d27c795f1ae05297e073a4e", "9a1a99c91b1dbe8cf465e8ceb20477a7"


def test_keys_by_class_in_the_order_of_the_file(file: Path) -> None:
    file.write_bytes(b"the first of them\nthe second of them\n")
    loaded = Passphrases().load(config(file))
    assert loaded == {"c": [derive_keys(b"the first of them"), derive_keys(b"the second of them")]}


def test_the_same_passphrase_is_not_derived_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[bytes] = []

    def derive(passphrase: bytes) -> tuple[bytes, bytes]:
        derived.append(passphrase)
        return passphrase, passphrase

    monkeypatch.setattr(passphrases, "derive_keys", derive)
    one, cfg = Passphrases(), config(file)
    one.load(cfg)
    file.write_bytes(b"a newer passphrase\n" + GOOD)
    one.load(cfg)
    one.load(cfg)
    assert derived == [GOOD, b"a newer passphrase"]
    file.write_bytes(GOOD)
    one.load(cfg)
    file.write_bytes(b"a newer passphrase\n")
    one.load(cfg)
    assert derived[2:] == [b"a newer passphrase"], "what is not used any more is forgotten"


@pytest.fixture
def force(tmp_path: Path):
    one = InForce(1, tmp_path)
    one.keys = [bytes(16)] * 4
    one.workers = Workers()  # type: ignore[assignment]
    yield one
    one.close()


def test_a_file_that_goes_between_check_and_start_is_an_error_that_takes_nothing(
    file: Path, force: InForce
) -> None:
    cfg = config(file)
    before = len(force.segment.segment.regions())
    file.unlink()
    with pytest.raises(StartError) as caught:
        force.prepare(cfg)
    assert caught.value.lines == [
        f"[persistence.c] passphrase file {file}: No such file or directory [FLB-S097]"
    ]
    assert len(force.segment.segment.regions()) == before
    assert force.listeners.open == {}


def test_each_configuration_in_force_has_the_keys_that_its_file_had(
    file: Path, force: InForce
) -> None:
    cfg = config(file)
    asyncio.run(force.put(force.prepare(cfg)))
    assert force.class_keys == {"c": [derive_keys(GOOD)]}
    file.write_bytes(b"something else altogether\n")
    prepared = force.prepare(cfg)
    assert force.class_keys == {"c": [derive_keys(GOOD)]}, "not in force yet"
    asyncio.run(force.put(prepared))
    assert force.class_keys == {"c": [derive_keys(b"something else altogether")]}
