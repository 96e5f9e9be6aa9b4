"""Files of the state directory, where something else may stand: a pipe, a directory, a link.

Whatever stands there, opening never waits, and what cannot be used is set aside under another
name instead of being lost.
"""

import os
import stat
from itertools import count
from pathlib import Path

NOT_REGULAR = "not a regular file"


def open_regular(path: Path, flags: int) -> int:
    """A descriptor of a regular file; OSError says what stands there instead."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, NOT_REGULAR)
    return fd


def is_there(path: Path) -> bool:
    """Whether there is anything, be it a link that leads nowhere; other doubts are OSErrors."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def set_aside(path: Path) -> Path:
    """Renames what cannot be used; returns where it is then."""
    try:
        aside = next(
            one
            for number in count(1)
            if not is_there(one := path.with_name(f"{path.name}.damaged-{number}"))
        )
        path.rename(aside)
    except OSError:
        return path
    return aside
