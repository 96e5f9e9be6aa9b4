"""Plans in a worker's memory: mapped once, kept while a request uses them, then gone."""

import os
import threading
from pathlib import Path

import pytest

from fastlb.channel import Kind
from tests.harness import HttpNode, RawNode, reply, request, settings
from tests.harness.settings import changed
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker


def waiting_node() -> RawNode:
    def script(exchange) -> None:
        exchange.read_body()
        exchange.wait(exchange.node.go)
        exchange.send(reply(200, b"late"))

    node = RawNode({"/wait": script, "*": reply(200, b"now")})
    node.go = threading.Event()
    return node


def plan_access(w: WorkerProcess) -> set[str]:
    lines = Path(f"/proc/{w.pid}/maps").read_text().splitlines()
    return {line.split()[1] for line in lines if "fastlb-plan-" in line}


def test_plan_is_mapped_for_reading_only() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        assert plan_access(w) == {"r--s"}
        assert w.plans_mapped() == 1


def test_plan_that_nobody_uses_is_unmapped() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        descriptors = w.descriptors()
        for _ in range(10):
            w.use(settings(a))
        assert w.plans_mapped() == 1
        assert w.descriptors() == descriptors


def test_plan_stays_until_its_last_request_ends() -> None:
    with waiting_node() as a, HttpNode("b") as b, worker(settings(a)) as w, w.client() as old:
        assert w.hear_any() == (Kind.RELEASED, 0, 1)
        old.send(request("/wait"))
        a.wait_requests(1)
        w.use(settings(b))
        w.use(settings(b))
        assert w.plans_mapped() == 2  # the one between had no request
        assert w.ask().node == "b"
        assert w.silent()
        a.go.set()
        assert old.response().body == b"late"
        assert w.hear_any() == (Kind.RELEASED, 0, 3)
        assert w.plans_mapped() == 1
        assert old.ask().node == "b"  # the same connection, by the new plan


def test_each_old_plan_is_released_on_its_own() -> None:
    with waiting_node() as a, waiting_node() as b, HttpNode("c") as c:
        with worker(settings(a)) as w, w.client() as first, w.client() as second:
            assert w.hear_any() == (Kind.RELEASED, 0, 1)
            first.send(request("/wait"))
            a.wait_requests(1)
            w.use(settings(b))
            second.send(request("/wait"))
            b.wait_requests(1)
            w.use(settings(c))
            assert w.plans_mapped() == 3
            b.go.set()
            assert second.response().body == b"late"
            until(lambda: w.plans_mapped() == 2, "the second plan gone")
            assert w.silent()  # the oldest is still there
            a.go.set()
            assert first.response().body == b"late"
            assert w.hear_any() == (Kind.RELEASED, 0, 3)
            assert w.plans_mapped() == 1


def test_idle_connection_holds_no_plan() -> None:
    with HttpNode("a") as a, HttpNode("b") as b, worker(settings(a)) as w, w.client() as client:
        assert client.ask().node == "a"
        w.use(settings(b))
        assert w.plans_mapped() == 1
        assert client.ask().node == "b"


def test_virtual_server_that_is_gone_answers_503_and_closes() -> None:
    with HttpNode("a") as a:
        first = settings(a)
        both = changed(
            first, "virtual_servers.other",
            {"listen": ["127.0.0.1:0"], "protocol": "http", "pool": "web"},
        )  # fmt: skip
        with worker(both) as w, w.client("other") as client:
            assert client.ask().node == "a"
            w.use(first)
            answer = client.ask()
            assert answer.status == 503
            client.expect_closed()
            assert w.ask().node == "a"


def test_log_format_off_writes_nothing(tmp_path) -> None:
    file = tmp_path / "log"
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with HttpNode("a") as a, worker(settings(a, access_log=str(file)), log) as w:
        w.ask("/one")
        until(file.read_text, "a line")
        w.use(settings(a, access_log="off"))
        w.ask("/two")
        w.wait_turn()
        assert "/two" not in file.read_text()
    os.close(log)


@pytest.mark.parametrize("size", [32, 5000])
def test_session_caches_are_found_in_the_segment(size: int) -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        with worker(settings(a, b, persistence={"type": "ip", "size": size})) as w:
            nodes = {w.ask().node for _ in range(6)}
            assert len(nodes) == 1
            assert w.shared.stores.caches["shop"].cache.stats(w.shared.now()).entries == 1


RULE = "from fastlb import rule\n@rule.request\ndef route(request): ...\n"


def test_rules_are_imported_with_the_plan_and_let_go_with_it() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        assert w.stats["gil_acquisitions"] == 0
        (w.folder / "shop.py").write_text(RULE + "print('not seen')\n")
        w.use(settings(a, server={"rules": ["shop:route"]}))
        assert w.stats["gil_acquisitions"] == 1
        w.use(settings(a))
        assert w.stats["gil_acquisitions"] == 2
        assert w.stderr() == ""


def test_a_plan_whose_rules_cannot_be_imported_is_refused() -> None:
    with HttpNode("a") as a, HttpNode("b") as b, worker(settings(a)) as w:
        ruled = settings(b, server={"rules": ["shop:route"]})
        for text in ("\n1 / 0\n", "import sys\nsys.exit(0)\n", "def route(): ...\n"):
            (w.folder / "shop.py").write_text(text)
            w.send_plan(ruled)
            assert w.hear() == (Kind.REFUSED, 0, w.generation)
            assert w.ask().node == "a"
        assert w.stderr().count("FLB-S120") == 3
        assert f"{w.folder}/shop.py:2: cannot be imported: ZeroDivisionError" in w.stderr()
        (w.folder / "shop.py").write_text(RULE)
        w.use(ruled)
        w.use(settings(b))
        assert w.ask().node == "b"
        assert w.plans_mapped() == 1
