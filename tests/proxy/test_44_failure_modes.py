"""What happens to a session whose node is down, disabled or gone."""

import pytest

from tests.harness import HttpNode, changed, proxy, sticky


@pytest.fixture
def nodes():
    made = {name: HttpNode(name) for name in "abc"}
    for node in made.values():
        node.start()
    yield made
    for node in made.values():
        node.stop()


def settled_user(p):
    user = p.user("alice")
    user.get()
    user.get()
    return user


def test_new_node_moves_the_session_and_it_stays_there(nodes):
    with proxy(sticky(*nodes.values())) as p:
        user = settled_user(p)
        home = user.nodes[0]
        nodes[home].stop()
        assert len(user.get().all("Set-Cookie")) == 1
        moved = user.nodes[-1]
        assert moved != home
        line = p.log(3)[2]
        assert (line["outcome"], line["previous_node"]) == ("connect-failed", nodes[home].address)
        assert line["node"] == nodes[moved].address
        nodes[home].start()
        for _ in range(4):
            assert user.get().all("Set-Cookie") == []
        assert set(user.nodes[2:]) == {moved}


def redirecting(nodes, delete):
    return sticky(
        *nodes.values(), failure_mode="redirect", redirect_url="/sorry", delete_on_failure=delete
    )


@pytest.mark.parametrize("delete", [True, False])
def test_redirect_answers_302_and_forgets_or_keeps_the_session(nodes, delete):
    with proxy(redirecting(nodes, delete)) as p:
        user = settled_user(p)
        home = user.nodes[0]
        nodes[home].stop()
        answer = user.get()
        assert (answer.status, answer.get("Location")) == (302, b"/sorry")
        assert b"no-store" in answer.get("Cache-Control")
        assert len(answer.all("Set-Cookie")) == (1 if delete else 0)
        assert bool(user.cookies) is not delete
        nodes[home].start()
        if delete:
            assert len(user.get().all("Set-Cookie")) == 1
        else:
            assert wait_until_served(user).node == home


@pytest.mark.parametrize("delete", [True, False])
def test_close_answers_503_and_closes(nodes, delete):
    config = sticky(*nodes.values(), failure_mode="close", delete_on_failure=delete)
    with proxy(config) as p:
        user = settled_user(p)
        home = user.nodes[0]
        nodes[home].stop()
        with p.client() as client:
            answer = user.get(connection=client)
            assert answer.status == 503
            assert answer.get("Connection").lower() == b"close"
            client.expect_closed()
        assert bool(user.cookies) is not delete
        nodes[home].start()
        if not delete:
            assert wait_until_served(user).node == home


def wait_until_served(user):
    """The first 200: passive health may hold a node that came back for a moment longer."""
    from tests.harness import until

    def look():
        answer = user.get()
        return answer if answer.status == 200 else None

    return until(look, "the node that is back serves its session")


def test_the_redirect_target_is_served_to_who_asks_for_it_without_a_session(nodes):
    with proxy(redirecting(nodes, True)) as p:
        user = settled_user(p)
        nodes[user.nodes[0]].stop()
        answer = user.get()
        follow = user.get(answer.get("Location").decode())
        assert follow.status == 200


@pytest.mark.parametrize("delete", [True, False])
def test_a_redirect_never_points_at_itself(nodes, delete):
    with proxy(redirecting(nodes, delete)) as p:
        user = settled_user(p)
        nodes[user.nodes[0]].stop()
        assert user.get("/sorry").status in (200, 503)


def test_a_request_without_a_session_does_not_meet_the_failure_mode(nodes):
    config = sticky(*nodes.values(), failure_mode="close")
    nodes["a"].stop()
    with proxy(config) as p:
        assert {p.user(f"u{n}").get().status for n in range(9)} == {200}


def test_a_node_removed_by_reload_moves_its_sessions_only(nodes):
    config = sticky(*nodes.values())
    with proxy(config) as p:
        users = [p.user(f"u{n}") for n in range(10)]
        for user in users:
            user.get()
        rest = [node for name, node in nodes.items() if name != "b"]
        assert p.reload(changed(config, "pools.web.nodes", rest)).returncode == 0
        for _ in range(3):
            for user in users:
                user.get()
    for user in users:
        if user.nodes[0] == "b":
            assert len(set(user.nodes[1:])) == 1
            assert user.nodes[1] != "b"
        else:
            assert len(set(user.nodes)) == 1


def test_a_node_added_by_reload_moves_nobody(nodes):
    a, b, c = nodes.values()
    config = sticky(a, b)
    with proxy(config) as p:
        users = [p.user(f"u{n}") for n in range(7)]
        for user in users:
            user.get()
        assert p.reload(changed(config, "pools.web.nodes", [c, b, a])).returncode == 0
        for user in users:
            user.get()
        assert "c" in {p.user(f"new{n}").get().node for n in range(6)}
    assert [len(set(user.nodes)) for user in users] == [1] * 7


def test_a_node_that_was_removed_and_came_back_is_the_session_s_again(nodes):
    a, b, c = nodes.values()
    config = sticky(a, b, c)
    with proxy(config) as p:
        alice = next(u for u in (p.user(f"u{n}") for n in range(9)) if u.get().node == "b")
        cookies = dict(alice.cookies)
        p.reload(changed(config, "pools.web.nodes", [a, c]))
        assert alice.get().node != "b"
        p.reload(config)
        alice.cookies = cookies
        assert alice.get().node == "b"


def test_a_session_finds_its_node_on_another_port_if_it_is_the_only_one_of_its_address():
    with HttpNode("old") as old, HttpNode("other") as other:
        with HttpNode("new", host=old.host) as new:
            config = sticky(old, other)
            with proxy(config) as p:
                user = next(u for u in (p.user(f"u{n}") for n in range(4)) if u.get().node == "old")
                p.reload(changed(config, "pools.web.nodes", [other, new]))
                assert [user.get().node for _ in range(3)] == ["new"] * 3


def test_two_other_nodes_of_the_address_are_no_match():
    with HttpNode("old") as old, HttpNode("n1", host=old.host) as n1:
        with HttpNode("n2", host=old.host) as n2:
            config = sticky(old)
            with proxy(config) as p:
                user = p.user("alice")
                user.get()
                p.reload(changed(config, "pools.web.nodes", [n1, n2]))
                assert len(user.get().all("Set-Cookie")) == 1
                assert [len(user.get().all("Set-Cookie")) for _ in range(3)] == [0] * 3
                assert len(set(user.nodes[1:])) == 1


def test_a_redirect_tells_the_page_where_the_user_was(nodes):
    config = sticky(
        *nodes.values(), failure_mode="redirect", redirect_url="/sorry?x=1&from=%{path}"
    )
    with proxy(config) as p:
        user = settled_user(p)
        nodes[user.nodes[0]].stop()
        answer = user.get("/cart?item=1&n=2")
        assert answer.status == 302
        assert answer.get("Location") == b"/sorry?x=1&from=/cart%3Fitem%3D1%26n%3D2"
        # The page there has its path, whatever its query: no second redirect.
        assert user.get(answer.get("Location").decode()).status == 200


def test_a_redirect_with_a_path_never_points_at_itself(nodes):
    config = sticky(
        *nodes.values(),
        failure_mode="redirect",
        redirect_url="/sorry?from=%{path}",
        delete_on_failure=False,
    )
    with proxy(config) as p:
        user = settled_user(p)
        nodes[user.nodes[0]].stop()
        assert user.get("/sorry?from=/sorry%3Ffrom%3D/").status == 503
