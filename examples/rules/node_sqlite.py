"""Sends each user to the node that a table in SQLite names: accounts that live on one server each.

    CREATE TABLE homes (user TEXT PRIMARY KEY, node TEXT NOT NULL);  -- 'anna', '10.0.0.2:8080'

sqlite3 blocks, so it runs in a thread of its own (asyncio.to_thread) and the other rules go on. An
answer is good for TTL seconds, and a user who is not in the table is remembered, too. With no node
named, the class's fallback decides.

The file is the one that NODES_DB names, else nodes.sqlite beside this module. It is opened anew for
each question (some 100 µs, at most one per user and TTL), so it may be replaced by a rename.
"""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from fastlb import rule
from look_up import LookUp

FILE = Path(os.environ.get("NODES_DB", Path(__file__).with_name("nodes.sqlite")))
TTL = 30.0
COOKIE = "user"


def read_home(user: str) -> str | None:
    """Blocks: for a thread only."""
    with closing(sqlite3.connect(f"{FILE.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
        row = db.execute("SELECT node FROM homes WHERE user = ?", (user,)).fetchone()
    return row[0] if row else None


async def ask(user: str) -> str | None:
    return await asyncio.to_thread(read_home, user)


home_of = LookUp(ask, ttl=TTL)


@rule.request
async def home(request: rule.Request) -> None:
    user = request.cookies.get(COOKIE)
    if not user:
        return
    node = await home_of(user)
    if node:
        request.persistence_node = node
    request.log["user"] = user
