"""Calls into Python: counted, and whatever goes wrong there stays there."""

import subprocess
import sys

import pytest

from fastlb._core._testing_sealed import acquisitions, count_nowhere, decrypt, encrypt, prepare
from tests.harness.proxy import environment

KEY = bytes(range(64))
OTHER = bytes(range(1, 65))


def test_encryption_is_deterministic_and_comes_back() -> None:
    sealed = encrypt(KEY, b"eleven byte")
    assert len(sealed) == 11 + 16
    assert encrypt(KEY, b"eleven byte") == sealed
    assert encrypt(OTHER, b"eleven byte") != sealed
    assert decrypt(KEY, sealed) == b"eleven byte"


def test_what_was_changed_or_made_with_another_key_is_refused() -> None:
    sealed = encrypt(KEY, b"eleven byte")
    assert decrypt(OTHER, sealed) == b""
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert decrypt(KEY, bytes(changed)) == b""


@pytest.mark.parametrize("count", [0, 1, 15, 16])
def test_what_is_too_short_is_refused_without_python(count: int) -> None:
    before = acquisitions()
    assert decrypt(KEY, bytes(count)) == b""
    assert acquisitions() == before


def test_each_call_is_counted_once() -> None:
    before = acquisitions()
    sealed = encrypt(KEY, b"a")
    assert acquisitions() == before + 1
    decrypt(KEY, sealed)
    assert acquisitions() == before + 2
    prepare()
    assert acquisitions() == before + 3
    count_nowhere(True)
    encrypt(KEY, b"a")
    count_nowhere(False)
    assert acquisitions() == before + 3


def test_many_keys_one_after_the_other() -> None:
    keys = [bytes([number]) * 32 + bytes(32) for number in range(1, 200)]
    sealed = [encrypt(key, b"x") for key in keys]
    assert len(set(sealed)) == len(keys)
    assert [decrypt(key, one) for key, one in zip(keys, sealed, strict=True)] == [b"x"] * len(keys)


BROKEN = """
import sys
sys.modules["cryptography.hazmat.primitives.ciphers.aead"] = None
from fastlb._core._testing_sealed import acquisitions, decrypt, encrypt, prepare, seal
prepare()
assert encrypt(bytes(range(64)), b"x") == b"" == decrypt(bytes(range(64)), bytes(40))
assert seal([(bytes(range(64)), bytes(16))], "10.0.0.1", 80, 1) == b""
assert acquisitions() == 4
"""
SILENCED = (
    """
import sys
sys.modules["fastlb.errors"] = None
"""
    + BROKEN
)


@pytest.mark.parametrize(("code", "lines"), [(BROKEN, 1), (SILENCED, 0)])
def test_a_failure_is_reported_once_and_never_raised(code: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == lines, done.stderr
    for line in said:
        assert line.startswith("fastlb: error: ")
        assert "encryption of cookies" in line
        assert line.endswith("[FLB-S098]")
