"""Three examples in a row on one virtual server: maintenance, rate_limit, hardening. And the rule
that the guide begins with."""

import re
import shutil
import time

import pytest

from tests.harness import HttpNode, RawNode, changed, proxy, reply, settings
from tests.harness.proxy import Proxy
from tests.harness.rules import EXAMPLES, ROOT, example, place, ruled

OFFICE, HOME = "127.0.9.1", "127.0.9.2"
# A window that does not end while the test runs.
WINDOW = next(seconds for seconds in range(3000, 3600) if time.time() % seconds < seconds / 2)


class Everyday(Proxy):
    """With the three modules, and the constants that an operator would set."""

    def __init__(self, config, folder):
        place(folder, "maintenance", ALLOWED=(f"{OFFICE}/32",))
        place(folder, "rate_limit", PER_USER=5, PER_ADDRESS=12, WINDOW=WINDOW)
        shutil.copy(EXAMPLES / "hardening.py", folder)
        super().__init__(config, folder)


def application(exchange):
    exchange.read_body()
    fields = [("Server", "Apache/2.4.1 (Unix)"), ("X-Powered-By", "PHP/8.2"), ("X-Own", "1")]
    if exchange.request.target == b"/framed":
        fields += [("x-frame-options", "DENY"), ("Content-Security-Policy", "default-src *")]
    exchange.send(reply(200, b"hello", *fields))


@pytest.fixture(scope="module")
def shop():
    with RawNode(application) as node:
        config = example("maintenance", web=[node])
        config = changed(config, "proxy.workers", 2)
        rules = ["maintenance:maintenance", "rate_limit:limit", "hardening:harden"]
        with proxy(changed(config, "virtual_servers.shop.rules", rules), Everyday) as p:
            yield p


def statuses(p, count, *fields, **more):
    return [p.get("/", *fields, **more).status for _ in range(count)]


# ---- the guide's first rule ----


def test_the_rule_in_five_lines_works():
    (text, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/rules.md").read_text(), re.DOTALL)
    with HttpNode("a") as a, HttpNode("b") as b:
        kind = {"type": "universal"}
        config = settings(a, b, persistence=kind, server={"rules": ["shop_rules:session"]})
        with proxy(config, ruled(shop_rules=text)) as p:
            for session in ("one", "two", "three"):
                cookie = ("Cookie", f"PHPSESSID={session}")
                assert len({p.get("/", cookie).node for _ in range(4)}) == 1
            assert {p.get("/").node for _ in range(2)} == {"a", "b"}


# ---- maintenance ----


def test_a_file_is_the_switch(shop):
    switch, page = shop.folder / "maintenance.on", shop.folder / "maintenance.html"
    try:
        with shop.client(source="127.0.9.3") as kept, shop.client(source="127.0.9.4") as another:
            assert [kept.ask().status, another.ask().status] == [200, 200]
            switch.touch()
            for client in (kept, another):  # whichever worker has them
                answer = client.ask("/x?y")
                assert answer.status == 503
                assert answer.get("Retry-After") == b"600"
                assert answer.get("Cache-Control") == b"no-store"
                assert answer.get("Content-Type") == b"text/html; charset=utf-8"
                assert b"Back soon" in answer.body
                assert answer.all("Set-Cookie") == []
            switch.write_text("1800\n")
            page.write_text("<p>Until six</p>")
            answer = kept.ask()
            assert (answer.get("Retry-After"), answer.body) == (b"1800", b"<p>Until six</p>")
            switch.write_text("soon\r\nSet-Cookie: x=y")
            assert kept.ask().get("Retry-After") == b"600"
            assert shop.get("/office", source=OFFICE).status == 200
            switch.unlink()
            assert [kept.ask().status, another.ask().status] == [200, 200]
    finally:
        switch.unlink(missing_ok=True)
        page.unlink(missing_ok=True)
    assert shop.log_of("/office")["log"] == {"maintenance": "let through"}


def test_a_page_for_head_has_no_body(shop):
    switch = shop.folder / "maintenance.on"
    switch.touch()
    try:
        with shop.client(source=HOME) as client:
            answer = client.ask("/", method="HEAD")
            assert (answer.status, answer.body) == (503, b"")
            assert client.ask("/").status == 503, "the connection is not out of step"
    finally:
        switch.unlink()


# ---- rate limit ----


def test_a_user_has_one_limit_in_all_workers(shop):
    key = ("X-API-Key", "anna")
    assert statuses(shop, 8, key, source="127.0.9.10") == [200] * 5 + [429] * 3
    assert shop.get("/", key, source="127.0.9.11").status == 429, "wherever it comes from"
    assert shop.get("/", ("X-API-Key", "bert"), source="127.0.9.10").status == 200
    refused = shop.get("/refused", key, source="127.0.9.10")
    assert 0 < int(refused.get("Retry-After")) <= WINDOW
    assert refused.body == b"Too many requests.\n"
    line = shop.log_of("/refused")
    assert line["log"] == {"limited": "user"}
    assert line["rule"] == "rate_limit:limit"
    assert "node" not in line


def test_invented_keys_do_not_help(shop):
    got = [
        shop.get("/", ("X-API-Key", f"key{number}"), source="127.0.9.20").status
        for number in range(15)
    ]
    assert got == [200] * 12 + [429] * 3
    assert shop.get("/", source="127.0.9.21").status == 200


# ---- hardening ----


def test_fields_are_added_where_the_application_sets_none(shop):
    answer = shop.get("/", source="127.0.9.30")
    assert answer.status == 200
    assert [answer.get(name) for name in ("Server", "X-Powered-By")] == [None, None]
    assert answer.get("X-Own") == b"1"
    assert answer.get("X-Content-Type-Options") == b"nosniff"
    assert answer.get("X-Frame-Options") == b"SAMEORIGIN"
    assert answer.get("Strict-Transport-Security") is None, "this is not HTTPS"
    framed = shop.get("/framed", source="127.0.9.30")
    assert framed.all("X-Frame-Options") == [b"DENY"]
    assert framed.all("Content-Security-Policy") == [b"default-src *"]
    assert framed.get("Referrer-Policy") == b"strict-origin-when-cross-origin"
    assert [x.startswith(b"X-Mapping-") for x in framed.all("Set-Cookie")] == [True]
