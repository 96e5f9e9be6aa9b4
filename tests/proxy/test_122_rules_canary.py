"""A share of the users on the new version: the rules of `canary`, in two workers, over reloads."""

import importlib.util

import pytest

from tests.harness import HttpNode, changed, proxy
from tests.harness.rules import EXAMPLES, example, place, taken

USERS = [f"visitor-{n}" for n in range(150)]


@pytest.fixture(scope="module")
def nodes():
    with HttpNode("s1") as s1, HttpNode("s2") as s2, HttpNode("new") as new:
        yield {"stable": [s1, s2], "canary": [new]}


def placed() -> dict[str, float]:
    """Where the example puts each user."""
    spec = importlib.util.spec_from_file_location("canary_example", EXAMPLES / "canary.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {user: module.place(user) for user in USERS}


def on_canary(p) -> set[str]:
    found = set()
    with p.client() as one, p.client() as other:
        for number, user in enumerate(USERS):
            connection = (one, other)[number % 2]
            if connection.ask("/", ("Cookie", f"visitor={user}")).node == "new":
                found.add(user)
    return found


def test_a_share_that_grows_moves_only_those_who_must_move(nodes):
    at = placed()
    config = changed(example("canary", **nodes), "proxy.workers", 2)
    with proxy(config, taken("canary")) as p:
        few = on_canary(p)
        assert few == {user for user in USERS if at[user] < 5}
        place(p.folder, "canary", SHARES={"canary": 20.0})
        assert p.reload(config).returncode == 0
        many = on_canary(p)
        assert many == {user for user in USERS if at[user] < 20}
        assert few < many
        assert 0.10 < len(many) / len(USERS) < 0.32
        place(p.folder, "canary", SHARES={"canary": 0.0})
        assert p.reload(config).returncode == 0
        assert on_canary(p) == set()
        # A mistake in the module does not get in; the rules that were there go on.
        (p.folder / "canary.py").write_text("SHARES = {\n")
        refused = p.reload(config)
        assert refused.returncode == 2
        assert "canary.py" in refused.stderr + refused.stdout
        assert on_canary(p) == set()


def test_a_newcomer_gets_a_cookie_and_stays(nodes):
    config = changed(example("canary", **nodes), "proxy.workers", 2)
    with proxy(config, taken("canary", SHARES={"canary": 50.0})) as p:
        users = [p.user(f"user{n}") for n in range(16)]
        for user in users:
            first = user.get("/", ("X-Variant", "mine"))
            (line,) = [each for each in first.all("Set-Cookie") if each.startswith(b"visitor=")]
            attributes = {part.strip().lower() for part in line.decode().split(";")[1:]}
            assert attributes == {"path=/", "max-age=31536000", "httponly", "samesite=lax"}
            variants = [value for name, value in first.json()["fields"] if name == "X-Variant"]
            assert variants == ["canary" if first.node == "new" else "stable"]
            identity = user.cookies["visitor"]
            for _ in range(3):
                again = user.get()
                assert [x for x in again.all("Set-Cookie") if x.startswith(b"visitor=")] == []
            assert user.cookies["visitor"] == identity
            assert len(set(user.nodes)) == 1
        assert len({user.cookies["visitor"] for user in users}) == len(users)
        assert {user.nodes[0] for user in users} >= {"new"}
        p.get("/the-line", ("Cookie", f"visitor={USERS[0]}"))
        assert set(p.log_of("/the-line")["log"]) == {"variant"}
