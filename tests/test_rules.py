"""fastlb.rules: what users import, what it costs others, what type checkers say."""

import subprocess
import sys
from pathlib import Path

import pytest

import fastlb
from fastlb import rule, rules
from fastlb.rule_mark import mark_of

ROOT = Path(__file__).parents[1]


def test_rule_is_the_module_of_rules():
    assert rule is rules
    assert fastlb.rule is rules
    assert "rule" in fastlb.__all__
    with pytest.raises(AttributeError, match="no attribute 'rulez'"):
        fastlb.rulez  # noqa: B018


def test_all_that_is_public_is_there_and_told():
    for name in rule.__all__:
        assert getattr(rule, name).__doc__, name


def test_importing_fastlb_imports_no_rule():
    code = "import sys, fastlb, fastlb.cli; print(sorted(m for m in sys.modules if 'rule' in m))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "fastlb.rules" not in done.stdout
    assert "rule_objects" not in done.stdout


@pytest.mark.parametrize("kind", ["connection", "request", "response"])
def test_a_mark_leaves_the_function_as_it_is(kind):
    def function(*args):
        return args

    async def later(*args):
        return args

    mark = getattr(rule, kind)
    assert mark(function) is function
    assert mark(later) is later
    assert function(1) == (1,)
    assert (mark_of(function).kind, mark_of(function).is_async) == (kind, False)
    assert mark_of(later).is_async


GOOD = """
from fastlb import rule, testing

@rule.connection
async def by_name(connection: rule.Connection) -> None:
    if connection.sni:
        connection.pool = connection.sni

@rule.request
def session(request: rule.Request) -> None:
    request.persistence_key = request.cookies.get("PHPSESSID")
    request.persistence_key = b"raw"
    user: str = request.headers.get("X-User", "nobody")
    request.log["user"] = user
    for name, value in request.query.items():
        request.log[name] = value
    if request.path == "/x":
        return request.respond(403, "no", headers={"A": "b"})

@rule.request
async def content(request: rule.Request) -> None:
    body: bytes = await request.body(limit="1KiB")
    request.data["bytes"] = len(body)

@rule.response
def tag(request: rule.Request, response: rule.Response) -> None:
    response.headers["X-Node"] = response.node
    port: int | None = response.node.port
    response.cookies["sid"]["Partitioned"] = True
    for cookie in response.cookies.values():
        cookie["Secure"] = port is not None

decision = testing.run(session, testing.request("GET", "/", cookies={"PHPSESSID": "a"}))
key: str | None = decision.persistence_key
"""
BAD = """
from fastlb import rule

@rule.request
def wrong(request: rule.Request) -> int:
    return 5

@rule.request
def other(request: rule.Request, response: rule.Response) -> None:
    request.pool = 5
    request.sni = "x"
    request.headers["A"] = 1
    request.nothing()
"""


def mypy(tmp_path, text):
    (tmp_path / "their_rules.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir",
         str(tmp_path / "cache"), "--config-file", "", str(tmp_path / "their_rules.py")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    return [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error" in line]


@pytest.mark.deep
def test_strict_type_checkers_are_content_with_users_code(tmp_path):
    assert mypy(tmp_path, GOOD) == []
    found = mypy(tmp_path, BAD)
    assert len(found) == 6, found
