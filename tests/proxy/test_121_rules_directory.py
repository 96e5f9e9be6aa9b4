"""Each user's node stands in a data base: node_sqlite and node_postgres, with real ones."""

import os
import sqlite3

import pytest

from tests.harness import HttpNode, changed, proxy, until
from tests.harness.postgres import Postgres
from tests.harness.rules import example, taken

USERS = [f"user{n}" for n in range(9)]


@pytest.fixture(scope="module")
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def homes_of(nodes) -> dict[str, HttpNode]:
    """Not in the order in which round-robin would come to them."""
    return {user: nodes[number // 3] for number, user in enumerate(USERS)}


def node_of(p, user: str, target: str = "/") -> str:
    """Who answers a new connection of a user that has no other cookie."""
    return p.get(target, ("Cookie", f"user={user}"), ("User-Agent", user)).node


def write(file, homes: dict[str, str]) -> None:
    """A new file in the place of the old one, as an import of the night makes it."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with sqlite3.connect(new) as base:
        base.execute("CREATE TABLE homes (user TEXT PRIMARY KEY, node TEXT NOT NULL)")
        base.executemany("INSERT INTO homes VALUES (?, ?)", homes.items())
    base.close()
    os.replace(new, file)


def test_a_table_in_sqlite_names_the_node(abc):
    config = changed(example("node_sqlite", accounts=abc), "proxy.workers", 2)
    with proxy(config, taken("node_sqlite", TTL=0.05)) as p:
        homes = homes_of(abc)
        # No data base yet: everybody is a visitor, and is served.
        assert {node_of(p, user) for user in USERS} == {"a", "b", "c"}
        write(p.folder / "nodes.sqlite", {user: node.address for user, node in homes.items()})
        for user in USERS:
            until(lambda u=user: node_of(p, u) == homes[u].name, f"{user} at home")
        for _ in range(3):
            assert [node_of(p, user) for user in USERS] == [homes[user].name for user in USERS]
        # Who is not in the table sticks by the fallback.
        stranger = p.user("stranger")
        for _ in range(4):
            stranger.get("/", ("X-Nobody", "1"))
        assert len(set(stranger.nodes)) == 1
        # One moves house.
        write(p.folder / "nodes.sqlite", {USERS[0]: abc[1].address})
        # Each worker sees it when what it knows is TTL old; the kernel chooses who serves.
        moved = ["b"] * 10
        until(lambda: [node_of(p, USERS[0]) for _ in moved] == moved, "the move")
        assert p.get("/the-line", ("Cookie", f"user={USERS[0]}")).node == "b"
        assert p.log_of("/the-line")["log"] == {"user": USERS[0]}
        # Its only node is gone: failure_mode = "close", nobody else serves it.
        abc[1].stop()
        assert p.get("/", ("Cookie", f"user={USERS[0]}")).status == 503
        abc[1].start()


def test_a_table_in_postgresql_names_the_node(abc, monkeypatch):
    with Postgres() as base:
        homes = homes_of(abc)
        rows = ", ".join(f"('{user}', '{node.address}')" for user, node in homes.items())
        base.run(
            "CREATE TABLE homes (login text PRIMARY KEY, node text NOT NULL)",
            f"INSERT INTO homes VALUES {rows}",
        )
        monkeypatch.setenv("NODES_DB", base.conninfo)
        config = changed(example("node_postgres", accounts=abc), "proxy.workers", 2)
        with proxy(config, taken("node_postgres", TTL=0.0, WAIT=0.5)) as p:
            p.rules_hold = 4  # connections of its pool, which ends with the process
            at_home = [homes[user].name for user in USERS]
            for _ in range(3):
                assert [node_of(p, user) for user in USERS] == at_home
            # A text that is no SQL stays a text.
            assert node_of(p, "x' OR 'a'='a") in "abc"
            base.stop()
            # Nobody is lost while it is away: users are visitors.
            assert {node_of(p, user) for user in USERS[:2]} <= {"a", "b", "c"}
            base.start()
            for user in USERS:
                home = [homes[user].name] * 10  # by the pools of both workers
                until(
                    lambda u=user, h=home: [node_of(p, u) for _ in h] == h, f"{user} at home again"
                )
            base.run(f"UPDATE homes SET node = '{abc[2].address}' WHERE login = '{USERS[0]}'")
            until(lambda: node_of(p, USERS[0]) == "c", "the move")
