"""Who listens on a port: what /proc tells, for the message that the port is in use."""

import os
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def listening_sockets(port: int) -> set[str]:
    """The inodes of all sockets in this network namespace that listen on `port`."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                found.add(columns[9])
    return found


def holders(inodes: set[str]) -> Iterator[tuple[int, str]]:
    """(pid, command) of each process that has one of the sockets open, as far as /proc shows."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            links = (os.readlink(fd) for fd in (entry / "fd").iterdir())
            if any(link in wanted for link in links):
                yield int(entry.name), (entry / "comm").read_text().strip()
        except OSError:
            continue  # another user's, or gone


def owner_of_port(port: int) -> str:
    """`nginx (pid 123)`, or what is known when /proc hides it."""
    found = sorted(set(holders(listening_sockets(port))))
    if not found:
        return "a process that /proc does not show to this user"
    shown = ", ".join(f"{command} (pid {pid})" for pid, command in found[:3])
    return shown + (f" and {len(found) - 3} more" if len(found) > 3 else "")
