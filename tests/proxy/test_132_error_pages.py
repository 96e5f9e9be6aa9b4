"""Pages of the operator's own, instead of fastlb's, and when to come back."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness import HttpNode, Proxy, RawNode, changed, check, proxy, reply, settings, toml

GONE = "127.0.0.9:1"  # nobody listens there


def with_pages(folder: Path, *nodes: Any, **server: Any) -> dict[str, Any]:
    (folder / "sorry.html").write_bytes("<h1>Désolé</h1>".encode())
    (folder / "bad.json").write_bytes(b'{"error": "bad request"}')
    (folder / "big.txt").write_bytes(b"x" * (1 << 20))
    pages = {"503": "sorry.html", "400": "bad.json", "502": "big.txt"}
    server = {"error_pages": {k: str(folder / v) for k, v in pages.items()}, **server}
    return settings(*(nodes or (GONE,)), server=server)


def test_no_node(tmp_path: Path) -> None:
    with proxy(with_pages(tmp_path, retry_after="90s")) as p:
        with p.client() as client:
            for _ in range(2):  # on one connection: framed as any answer
                answer = client.ask("/")
                assert (answer.status, answer.body.decode()) == (503, "<h1>Désolé</h1>")
                assert answer.get("Content-Type") == b"text/html; charset=utf-8"
                assert answer.get("Retry-After") == b"90"
                assert answer.get("Cache-Control") == b"no-store"
            answer = client.ask("/", method="HEAD")
            assert (answer.status, answer.get("Content-Length"), answer.body) == (503, b"17", b"")
            assert client.ask("/").status == 503


def test_a_request_that_is_none_and_a_page_of_a_mebibyte(tmp_path: Path) -> None:
    def nonsense(exchange: Any) -> None:
        exchange.send(b"nonsense\r\n\r\n")

    with RawNode(nonsense) as a, proxy(with_pages(tmp_path, a)) as p:
        with p.client() as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            answer = client.answer_then_closed()
            assert answer is not None
            assert (answer.status, answer.get("Content-Type")) == (400, b"application/json")
            assert answer.body == b'{"error": "bad request"}'
        answer = p.get()
        assert (answer.status, answer.get("Content-Type")) == (502, b"text/plain; charset=utf-8")
        assert answer.body == b"x" * (1 << 20)


def test_answers_of_nodes_are_their_own(tmp_path: Path) -> None:
    with RawNode(reply(503, b"the node's")) as a, proxy(with_pages(tmp_path, a)) as p:
        assert p.get().body == b"the node's"


def test_so_are_answers_of_rules(tmp_path: Path) -> None:
    (tmp_path / "pages_rules.py").write_text(
        "from fastlb import rule\n\n@rule.request\ndef no(request):\n"
        "    return request.respond(503, body=b'the rule')\n"
    )
    with HttpNode("a") as a:
        config = with_pages(tmp_path, a, rules=["pages_rules:no"])
        with proxy(config, rules_of(tmp_path)) as p:
            assert p.get().body == b"the rule"


def rules_of(folder: Path) -> type:
    class WithRules(Proxy):
        def start(self) -> None:
            name = "pages_rules.py"
            (self.folder / name).write_text((folder / name).read_text())
            super().start()

    return WithRules


def test_a_reload_reads_them_again_or_refuses_as_a_whole(tmp_path: Path) -> None:
    config = with_pages(tmp_path)
    with proxy(config) as p:
        assert p.get().body.decode() == "<h1>Désolé</h1>"
        page = tmp_path / "sorry.html"
        page.write_text("later")
        assert p.get().body.decode() == "<h1>Désolé</h1>"
        assert p.reload(config).returncode == 0
        assert p.get().body == b"later"
        page.unlink()
        done = p.reload(config)
        assert done.returncode == 2
        assert "error_pages.503" in done.stderr
        assert str(page) in done.stderr
        assert p.get().body == b"later"


@pytest.mark.parametrize(("pages", "said"), [
    ({"503": "no-such-file.html"}, "No such file"),
    ({"503": "."}, "Is a directory"),
    ({"503": "big"}, "larger than 1024 KiB"),
    ({"404": "page"}, "fastlb never answers 404; expected one of 400, 408"),
    ({"5xx": "page"}, "fastlb never answers 5xx"),
    ({"200": "page"}, "fastlb never answers 200"),
])  # fmt: skip
def test_a_page_that_cannot_be_sent_is_said_at_once(
    tmp_path: Path, pages: dict[str, str], said: str
) -> None:
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "page").write_bytes(b"page")
    pages = {status: str(tmp_path / file) for status, file in pages.items()}
    config = settings(GONE, server={"error_pages": pages, "listen": ["127.0.0.1:8080"]})
    done = check(toml(config))
    assert done.returncode == 2
    assert said in done.stdout + done.stderr


def test_they_mean_nothing_where_nothing_is_answered(tmp_path: Path) -> None:
    server = {"error_pages": {"503": "no-such-file"}, "protocol": "tcp"}
    config = settings(GONE, server=server)
    done = check(toml(changed(config, "virtual_servers.shop.listen", ["127.0.0.1:8080"])))
    assert done.returncode == 0
    assert 'error_pages: only used with protocol "http" and "https"' in done.stdout + done.stderr
    with proxy(config):
        pass


def test_a_named_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = {"error_pages": {"503": str(tmp_path / "pipe")}, "listen": ["127.0.0.1:8080"]}
    done = check(toml(settings(GONE, server=server)))
    assert done.returncode == 2
    assert "not a regular file" in done.stdout + done.stderr
