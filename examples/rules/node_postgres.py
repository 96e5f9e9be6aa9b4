"""Sends each user to the node that a table in PostgreSQL names.

    pip install "psycopg[binary,pool]"
    CREATE TABLE homes (login text PRIMARY KEY, node text NOT NULL);

Each worker has a pool of connections, opened at the first question. It opens lost ones again by
itself; a question whose connection dies while it is asked is asked once more. An answer is good for
TTL seconds, so the data base sees each user at most once per worker and TTL.

The connection is described as libpq does it: PGHOST, PGUSER, PGDATABASE, … in the environment, or a
connection string in NODES_DB.
"""

import os

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from fastlb import rule
from look_up import LookUp

CONNECTION = os.environ.get("NODES_DB", "")
TTL = 30.0
WAIT = 1.0  # seconds for a connection and its answer; less than [rules] timeout
COOKIE = "user"

pool = AsyncConnectionPool(CONNECTION, min_size=1, max_size=4, timeout=WAIT, open=False)


async def read_home(user: str) -> str | None:
    if pool.closed:
        await pool.open()
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT node FROM homes WHERE login = %s", (user,))
        row = await cursor.fetchone()
    return str(row[0]) if row else None


async def ask(user: str) -> str | None:
    try:
        return await read_home(user)
    except PoolTimeout:  # nobody answers: no use in asking again at once
        raise
    except psycopg.OperationalError:  # the server was restarted: the pool has others, or makes them
        await pool.check()
        return await read_home(user)


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
