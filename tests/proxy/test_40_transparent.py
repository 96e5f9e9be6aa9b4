"""The inserted cookie: a user's first answer brings it, and from then on the node is theirs.

The count of users is never a multiple of the count of nodes: plain round robin would then give
each user the same node again and again, and the test would prove nothing.
"""

import re
import threading

import pytest

from tests.harness import HttpNode, proxy, request, settings, sticky

NAME = re.compile(r"X-Mapping-[0-9a-f]{8}")


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def test_the_first_answer_sets_the_cookie_and_the_next_ones_do_not(abc):
    with proxy(sticky(*abc)) as p:
        user = p.user("alice")
        (line,) = user.get().all("Set-Cookie")
        name, _, rest = line.decode().partition("=")
        value, *attributes = [part.strip() for part in rest.split(";")]
        assert NAME.fullmatch(name)
        assert set(attributes) == {"Path=/", "HttpOnly"}
        assert re.fullmatch(r"[!#-+\--:<-\[\]-~]+", value), "not a cookie-value of RFC 6265"
        for _ in range(9):
            assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


def test_users_are_spread_and_each_stays(abc):
    with proxy(sticky(*abc)) as p:
        users = [p.user(f"u{n}") for n in range(13)]
        for _ in range(5):
            for user in users:
                user.get()
    assert [len(set(user.nodes)) for user in users] == [1] * 13
    assert {user.nodes[0] for user in users} == {"a", "b", "c"}
    assert sum(len(node.users) for node in abc) == 13, "a node saw somebody else's user"


def test_the_cookie_reveals_neither_node_nor_class(abc):
    with proxy(sticky(*abc)) as p:
        user = p.user("alice")
        user.get()
        (value,) = user.cookies.values()
    for node in abc:
        assert node.host not in value
        assert str(node.port) not in value
    assert "shop" not in value
    assert "web" not in value


def test_the_node_does_not_see_the_cookie_and_sees_the_others_unchanged(abc):
    with proxy(sticky(*abc)) as p:
        user = p.user("alice")
        user.get()
        ((name, value),) = user.cookies.items()
        ours = f"{name}={value}"
        cases = {
            ours: None,
            f"{ours}; b=2": "b=2",
            f"a=1; {ours}": "a=1",
            f'a=1; {ours}; b="2"; c=x=y': 'a=1; b="2"; c=x=y',
            f"a=1; a=2; {ours}; a=3": "a=1; a=2; a=3",
        }
        for sent, kept in cases.items():
            seen = p.get("/", ("Cookie", sent)).json()["fields"]
            assert [v for k, v in seen if k == "Cookie"] == ([kept] if kept else []), sent
        answer = p.get("/", ("Cookie", "a=1"), ("Cookie", ours), ("Cookie", "b=2"))
        seen = [v for k, v in answer.json()["fields"] if k == "Cookie"]
        assert "; ".join(seen) == "a=1; b=2"


def test_hide_cookie_false_lets_the_node_see_it(abc):
    with proxy(sticky(*abc, hide_cookie=False)) as p:
        user = p.user("alice")
        user.get()
        ((name, value),) = user.cookies.items()
        seen = user.get().json()["fields"]
    assert ["Cookie", f"{name}={value}"] in seen


def test_the_name_can_be_chosen(abc):
    with proxy(sticky(*abc, name="SHOPNODE")) as p:
        user = p.user("alice")
        for _ in range(4):
            user.get()
    assert list(user.cookies) == ["SHOPNODE"]
    assert len(set(user.nodes)) == 1


def test_many_users_on_one_keep_alive_connection_are_decided_one_by_one(abc):
    with proxy(sticky(*abc)) as p, p.client() as shared:
        users = [p.user(f"u{n}") for n in range(10)]
        for _ in range(4):
            for user in users:
                user.get(connection=shared)
    assert [len(set(user.nodes)) for user in users] == [1] * 10
    assert {user.nodes[0] for user in users} == {"a", "b", "c"}


def test_pipelined_requests_of_many_users_are_decided_one_by_one(abc):
    with proxy(sticky(*abc)) as p, p.client() as shared:
        users = [p.user(f"u{n}") for n in range(10)]
        for _ in range(4):
            shared.send(b"".join(user.request() for user in users))
            for user in users:
                user.take(shared.response())
    assert [len(set(user.nodes)) for user in users] == [1] * 10


def test_sessions_hold_with_every_algorithm_and_on_every_worker(abc):
    for algorithm in ("least-connections", "random-of-two", "hash", "fastest-response"):
        config = sticky(*abc, pool={"algorithm": algorithm}, workers=2)
        with proxy(config) as p:
            users = [p.user(f"u{n}") for n in range(7)]
            for _ in range(6):
                for user in users:
                    user.get()
            assert [len(set(user.nodes)) for user in users] == [1] * 7, algorithm


def test_concurrent_users_never_swap_nodes(abc):
    with proxy(sticky(*abc, workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(31)]

        def live(user):
            with p.client() as own:
                for _ in range(15):
                    user.get(connection=own)

        threads = [threading.Thread(target=live, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(set(user.nodes)) for user in users] == [1] * 31
    assert [len(user.nodes) for user in users] == [15] * 31


def test_parallel_first_requests_of_one_browser_go_to_one_node(abc):
    """A browser opens six connections before it has any cookie."""
    go = threading.Event()

    def hold(node):
        answer = node.script

        def held(exchange):
            exchange.wait(go)
            answer(exchange)

        node.script = held

    for node in abc:
        hold(node)
    with proxy(sticky(*abc, workers=2, reserve="5s")) as p:
        clients = [p.client() for _ in range(6)]
        first = request("/", ("User-Agent", "one browser"))
        clients[0].send(first)
        while not any(node.requests for node in abc):
            threading.Event().wait(0.001)
        for client in clients[1:]:
            client.send(first)
        go.set()
        names = {client.response().node for client in clients}
        assert len(names) == 1
        assert p.get("/", ("User-Agent", "one browser")).node in names
        for client in clients:
            client.sock.close()


def test_reserve_0_switches_the_reservation_off(abc):
    with proxy(sticky(*abc, reserve="0s")) as p:
        assert {p.get("/", ("User-Agent", "x")).node for _ in range(3)} == {"a", "b", "c"}


def test_a_pool_without_persistence_sets_no_cookie_and_takes_turns(abc):
    with proxy(settings(*abc)) as p:
        user = p.user("alice")
        assert all(user.get().all("Set-Cookie") == [] for _ in range(6))
    assert set(user.nodes) == {"a", "b", "c"}


def test_the_same_secret_reads_the_same_cookies(abc, tmp_path):
    """Two proxies that share the installation's secret need no store."""
    secret = tmp_path / "secret"
    secret.write_text(bytes(range(32)).hex() + "\n")
    secret.chmod(0o600)
    config = sticky(*abc)
    config["proxy"]["secret_file"] = str(secret)
    with proxy(config) as one, proxy(config) as two:
        alice = one.user("alice")
        alice.get()
        alice.address = two.address()
        for _ in range(4):
            assert alice.get().all("Set-Cookie") == []
    assert len(set(alice.nodes)) == 1
