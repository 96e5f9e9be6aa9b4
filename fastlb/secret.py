"""The installation's secret, and the keys that are made from it.

The file holds 32 random bytes as 64 hexadecimal digits. It is made at the first start, as a
whole or not at all; proxies that share it read each other's cookies.
"""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fastlb import errors
from fastlb.errors import StartError
from fastlb.state_file import open_regular

SECRET_BYTES = 32
KEY_BYTES = 16
SESSION_KEYS = 4  # one for each of PlanKeyUse in _core/plan.pxd


def load_secret(path: Path) -> bytes:
    """The secret in `path`, which is made when it does not exist; raises StartError."""
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise StartError(
            errors.SECRET_UNREADABLE, path=path, reason=error.strerror or error
        ) from None


def _make(path: Path) -> None:
    """Writes a new secret beside `path` and links it there; one that came first stays."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()


def _read(path: Path) -> bytes:
    with open(open_regular(path, os.O_RDONLY), encoding="ascii", errors="replace") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise StartError(errors.SECRET_MODE, path=path, mode=mode)
        text = file.read(1024).strip()
    if not re.fullmatch(f"[0-9A-Fa-f]{{{2 * SECRET_BYTES}}}", text):
        raise StartError(errors.SECRET_CONTENT, path=path)
    return bytes.fromhex(text)


def derive(secret: bytes, info: str) -> bytes:
    """A 16-byte key for one use (HKDF, RFC 5869)."""
    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info.encode())
    return kdf.derive(secret)


def session_keys(secret: bytes) -> list[bytes]:
    """The keys of a plan, in its order."""
    return [derive(secret, f"fastlb session {number}") for number in range(1, SESSION_KEYS + 1)]


def secret_mark(secret: bytes) -> bytes:
    """What tells saved session caches of another secret apart, and reveals nothing of it."""
    return derive(secret, "fastlb state file")
