"""Chromium keeps and returns the session cookie, over many connections, and cannot read it."""

import pytest

from tests.harness import HttpNode, proxy, sticky
from tests.harness.browser import Chromium

PARALLEL = "Promise.all([...Array(12)].map((_, n) => fetch('/n' + n).then(r => r.json())))"


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def test_a_browser_stays_on_its_node(abc):
    with proxy(sticky(*abc, workers=2)) as p, Chromium() as browser:
        host, port = p.address()
        url = f"http://{host}:{port}/"
        browser.open(url)
        (cookie,) = browser.cookies()
        assert cookie["name"].startswith("X-Mapping-")
        assert (cookie["httpOnly"], cookie["session"], cookie["path"]) == (True, True, "/")
        assert browser.run("document.cookie") == ""
        answers = browser.run(PARALLEL)
        browser.open(url + "another")
        answers += browser.run(PARALLEL)
        assert len({answer["node"] for answer in answers}) == 1
        assert browser.cookies()[0]["value"] == cookie["value"]
        seen = [name.lower() for answer in answers for name, _ in answer["fields"]]
        assert "cookie" not in seen


def test_a_browser_whose_node_dies_moves_once(abc):
    with proxy(sticky(*abc)) as p, Chromium() as browser:
        host, port = p.address()
        browser.open(f"http://{host}:{port}/")
        home = browser.run("fetch('/x').then(r => r.json())")["node"]
        next(node for node in abc if node.name == home).stop()
        browser.run("fetch('/y').then(r => r.json())")
        after = {answer["node"] for _ in range(3) for answer in browser.run(PARALLEL)}
        assert len(after) == 1
        assert home not in after
