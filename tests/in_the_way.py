"""What may stand where fastlb expects a file of its own."""

import os
from collections.abc import Callable
from pathlib import Path


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


IN_THE_WAY: list[Callable[[Path], None]] = [os.mkfifo, Path.mkdir, link_to_nowhere]
