"""Passphrases of encrypted cookies: their file, and the keys that are made from them.

One passphrase per line; the first writes, all read. White space around a line is no part of it,
empty lines and lines that begin with "#" are passed over. What counts are the bytes, whatever
they mean: proxies with the same file have the same keys.

The keys come from a slow function (scrypt, RFC 7914), so that a passphrase which people choose
does not fall to who tries many against a cookie. Its salt is fixed, because nothing else is the
same on all proxies.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fastlb import errors
from fastlb.config import Config, CookieInsertClass
from fastlb.errors import Message, StartError

FILE_BYTES_MAX = 64 << 10
PASSPHRASES_MAX = 8  # each costs a hash per cookie that none of them made
PASSPHRASE_BYTES_GOOD = 12  # less is said to be soon guessed

SALT = b"fastlb cookie-insert passphrase 1"
SCRYPT_COST = 1 << 14  # with 8 blocks: 16 MiB and about 40 ms
SCRYPT_BLOCKS = 8
CIPHER_KEY_BYTES, MARK_KEY_BYTES = 64, 16  # PlanPassphrase of _core/plan.pxd

Keys = tuple[bytes, bytes]  # of the cipher (AES-256-SIV) and of the mark (SipHash)


class PassphraseFile(NamedTuple):
    """What a file says; `doubts` are warnings with their values."""

    passphrases: list[bytes]
    doubts: list[tuple[Message, dict[str, object]]]


def read_passphrases(path: Path) -> PassphraseFile:
    """The passphrases in a file; ValueError or OSError says why they cannot be had."""
    # Whatever stands there must not make a proxy wait: a named pipe would.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"larger than {FILE_BYTES_MAX >> 10} KiB")
    doubts: list[tuple[Message, dict[str, object]]] = []
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        doubts.append((errors.PASSPHRASE_FILE_OPEN, {"mode": mode}))
    lines = dict(_lines(data))
    found = list(dict.fromkeys(lines.values()))
    if not found:
        raise ValueError("no passphrase in it; expected one per line")
    if len(found) > PASSPHRASES_MAX:
        raise ValueError(f"{len(found)} passphrases in it; expected at most {PASSPHRASES_MAX}")
    for number, line in lines.items():
        if len(line) < PASSPHRASE_BYTES_GOOD:
            values: dict[str, object] = {"line": number, "found": len(line)}
            values["expected"] = PASSPHRASE_BYTES_GOOD
            doubts.append((errors.SHORT_PASSPHRASE, values))
    return PassphraseFile(found, doubts)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is a passphrase."""
    data = data.removeprefix(b"\xef\xbb\xbf")  # which some editors put in front of UTF-8
    for number, line in enumerate(data.replace(b"\r\n", b"\n").split(b"\n"), 1):
        text = line.strip(b" \t\r")
        if text and not text.startswith(b"#"):
            yield number, text


def derive_keys(passphrase: bytes) -> Keys:
    """The keys of one passphrase."""
    length = CIPHER_KEY_BYTES + MARK_KEY_BYTES
    kdf = Scrypt(salt=SALT, length=length, n=SCRYPT_COST, r=SCRYPT_BLOCKS, p=1)
    keys = kdf.derive(passphrase)
    return keys[:CIPHER_KEY_BYTES], keys[CIPHER_KEY_BYTES:]


class Passphrases:
    """The keys of a configuration's classes; those of the load before are not made again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Keys] = {}

    def load(self, cfg: Config) -> dict[str, list[Keys]]:
        """By class, in the order of its file; raises StartError with all that is wrong."""
        files: dict[str, list[bytes]] = {}
        wrong: list[StartError] = []
        for name, cls in cfg.persistence.items():
            if not isinstance(cls, CookieInsertClass) or cls.passphrase_file is None:
                continue
            path = cls.passphrase_file
            try:
                files[name] = read_passphrases(path).passphrases
            except (OSError, ValueError) as error:
                wrong.append(
                    StartError(
                        errors.PASSPHRASE_FILE_UNUSABLE, name=name, path=path, reason=why(error)
                    )
                )
        if wrong:
            raise StartError.of_all(wrong)
        used = {one for passphrases in files.values() for one in passphrases}
        self._known = {one: self._known.get(one) or derive_keys(one) for one in used}
        return {name: [self._known[one] for one in found] for name, found in files.items()}


def why(error: OSError | ValueError) -> str:
    """What the operator is told."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
