"""The secret's file and the keys made from it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlb import secret
from fastlb.errors import StartError
from fastlb.secret import derive, load_secret, secret_mark, session_keys
from tests.in_the_way import IN_THE_WAY


def refused(path: Path) -> str:
    with pytest.raises(StartError) as caught:
        load_secret(path)
    (line,) = caught.value.lines
    assert str(path) in line
    return line


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_what_is_no_file_is_one_line(tmp_path: Path, put_there: Callable[[Path], None]) -> None:
    put_there(tmp_path / "secret")
    assert "FLB-S001" in refused(tmp_path / "secret")


def test_the_first_start_makes_it_and_the_next_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    made = load_secret(path)
    assert len(made) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secret(path) == made
    assert path.read_text().strip() == made.hex()
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_starts_at_once_one_secret_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    link = os.link

    def first(new: object, target: Path) -> None:
        target.write_text("ab" * 32)
        target.chmod(0o600)
        link(new, target)  # type: ignore[arg-type]

    monkeypatch.setattr(secret.os, "link", first)
    assert load_secret(path) == b"\xab" * 32
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    load_secret(path)
    path.chmod(mode)
    assert f"chmod 600 {path} [FLB-S002]" in refused(path)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "é" * 64])
def test_wrong_content_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    assert "64 hexadecimal digits" in refused(path)
    assert path.read_text() == text


def test_what_is_no_file_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    assert "No such file or directory [FLB-S001]" in refused(tmp_path / "none" / "secret")


def test_derived_keys_are_hkdf_sha256() -> None:
    # RFC 5869, A.3: no salt, no info; its first 16 bytes of 42.
    assert derive(b"\x0b" * 22, "") == bytes.fromhex("8da4e775a563c18f715f802a063c5a31")


def test_each_use_has_its_own_key() -> None:
    keys = [*session_keys(b"s" * 32), secret_mark(b"s" * 32)]
    assert len(set(keys)) == 5
    assert {len(key) for key in keys} == {16}
    assert not set(keys) & set(session_keys(b"t" * 32))
