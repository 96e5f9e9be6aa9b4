"""Session caches on disk: saved when fastlb stops, loaded when it starts.

One file per class in STATE_DIR/sessions. A file that cannot be used is set aside under another
name and reported; it never keeps the proxy from starting.
"""

import os
from pathlib import Path

from fastlb import errors, log
from fastlb._core.session_store import StateFileError
from fastlb.segment import SharedSegment, Store
from fastlb.state_file import is_there, open_regular, set_aside

DIRECTORY = "sessions"


class SavedMaps:
    """The files of one state directory, readable with one secret."""

    def __init__(self, state_dir: Path, mark: bytes) -> None:
        self.directory = state_dir / DIRECTORY
        self.mark = mark

    def load(self, segment: SharedSegment) -> None:
        """Fills the segment's caches from their files."""
        for name, store in segment.stores.caches.items():
            path = self._path(name)
            try:
                if not is_there(path):
                    continue
                os.close(open_regular(path, os.O_RDONLY))
                loaded = store.cache.load(path, _owner(name, store), segment.now(), self.mark)
                log.info(f"{loaded} session maps of [persistence.{name}] loaded")
            except (StateFileError, OSError, UnicodeDecodeError) as error:
                self._set_aside(name, path, error)

    def save(self, segment: SharedSegment) -> None:
        """Writes each cache to its file, which is replaced as a whole."""
        for name, store in segment.stores.caches.items():
            path = self._path(name)
            try:
                self.directory.mkdir(mode=0o700, exist_ok=True)
                path.with_name(f"{path.name}.new").unlink(missing_ok=True)  # a pipe would block
                saved = store.cache.save(path, _owner(name, store), segment.now(), self.mark)
                log.info(f"{saved} session maps of [persistence.{name}] saved")
            except OSError as error:
                reason = error.strerror or error
                log.warn(errors.MAPS_NOT_SAVED.line(name=name, reason=reason))

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.maps"

    def _set_aside(self, name: str, path: Path, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        said = str(reason).removeprefix(f"{path}: ")
        log.warn(errors.MAPS_DAMAGED.line(name=name, reason=said, path=set_aside(path)))


def _owner(name: str, store: Store) -> str:
    """Whose maps a file says it holds: those of another type mean something else."""
    return f"{store.type} {name}"
