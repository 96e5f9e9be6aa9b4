"""Answers that come late: after a reload, or after their session has moved on."""

import json
import threading

from tests.harness import RawNode, changed, proxy, settings, until
from tests.harness.proxy import command
from tests.harness.wire import reply, request


def scripted(name, **paths):
    fine = reply(200, json.dumps({"node": name}).encode())
    return RawNode({**{f"/{path}": script for path, script in paths.items()}, "*": fine}, name)


def answer(name, *fields):
    return reply(200, json.dumps({"node": name}).encode(), *fields)


def held(name, go, *fields):
    def script(exchange):
        exchange.wait(go)
        exchange.send(answer(name, *fields))

    return script


def test_a_login_that_is_answered_after_a_reload_with_another_size_is_learned():
    go = threading.Event()
    made = [scripted(n, login=held(n, go, ("Set-Cookie", "JSESSIONID=L"))) for n in "abc"]
    for node in made:
        node.start()
    config = settings(*made, persistence={"type": "j2ee", "size": 64})
    with proxy(config) as p, p.client() as client:
        client.send(request("/login"))
        until(lambda: any(node.requests for node in made), "the login at a node")
        assert p.reload(changed(config, "persistence.shop.size", 1000)).returncode == 0
        go.set()
        home = client.response().node
        assert p.get("/", ("Cookie", "JSESSIONID=L")).node == home
    for node in made:
        node.stop()


def test_a_late_answer_of_a_disabled_node_does_not_take_the_session_back():
    go = threading.Event()
    made = [scripted(n, slow=held(n, go, ("Set-Cookie", "JSESSIONID=S"))) for n in "abc"]
    for node in made:
        node.start()
    with proxy(settings(*made, persistence={"type": "j2ee"})) as p, p.client() as client:
        mine = ("Cookie", "JSESSIONID=S")
        home = next(node for node in made if node.name == p.get("/", mine).node)
        client.send(request("/slow", mine))
        home.wait_requests(2)
        assert command("disable", home.address, "-c", str(p.file)).returncode == 0
        second = p.get("/", mine).node
        go.set()
        client.response()
        assert p.get("/", mine).node == second
    for node in made:
        node.stop()
