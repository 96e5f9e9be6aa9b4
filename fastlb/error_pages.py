"""Pages that are sent instead of fastlb's own: read by the control process at start and reload,
and by `check`. Workers get them inside the plan."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastlb import errors
from fastlb.config import Config
from fastlb.decode import Report
from fastlb.errors import StartError
from fastlb.passphrases import why

PAGE_BYTES_MAX = 1 << 20
STATUSES = (400, 408, 413, 414, 417, 421, 431, 500, 501, 502, 503, 504, 505)  # of fastlb's own
TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".xml": "application/xml",
}
OTHER_TYPE = "text/html; charset=utf-8"


class Page(NamedTuple):
    """An answer's page."""

    status: int
    type: str  # Content-Type
    body: bytes


Pages = dict[str, list[Page]]  # by virtual server


def load_error_pages(cfg: Config) -> Pages:
    """Reads all of them; raises StartError with all that is wrong."""
    pages: Pages = {name: [] for name in cfg.virtual_servers}
    wrong = []
    for server, status, file in _configured(cfg):
        try:
            pages[server].append(Page(int(status), _type(file), _read(file)))
        except (OSError, ValueError) as error:
            where = {"name": server, "status": status, "path": file, "reason": why(error)}
            wrong.append(StartError(errors.ERROR_PAGE_UNUSABLE, **where))
    if wrong:
        raise StartError.of_all(wrong)
    return pages


def check_error_pages(cfg: Config, report: Report) -> None:
    """Reports those that cannot be read, or could never be sent."""
    known = [str(status) for status in STATUSES]
    for server, status, file in _configured(cfg):
        place = ("virtual_servers", server, "error_pages", status)
        if status not in known:
            report(errors.NO_SUCH_ERROR_PAGE, place, found=status, expected=", ".join(known))
        try:
            _read(file)
        except (OSError, ValueError) as error:
            report(errors.ERROR_PAGE_FILE, place, file=file, reason=why(error))


def _configured(cfg: Config) -> Iterator[tuple[str, str, Path]]:
    for name, server in cfg.virtual_servers.items():
        if server.protocol in ("http", "https"):
            for status, file in server.error_pages.items():
                yield name, status, file


def _type(file: Path) -> str:
    return TYPES.get(file.suffix.lower(), OTHER_TYPE)


def _read(path: Path) -> bytes:
    # A named pipe must not make a proxy wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        data = file.read(PAGE_BYTES_MAX + 1)
    if len(data) > PAGE_BYTES_MAX:
        raise ValueError(f"larger than {PAGE_BYTES_MAX >> 10} KiB")
    return data
