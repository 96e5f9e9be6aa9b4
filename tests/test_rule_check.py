"""Rules looked at by a process of their own: whatever a module does, a line says so."""

import asyncio
import json
import os
import pwd
import threading
import time
from pathlib import Path

import pytest

from fastlb import errors, rule_check, side_process
from fastlb.check import check_file
from fastlb.errors import Problem
from fastlb.rule_check import Unused, check_rules, traced_place
from fastlb.rule_mark import RuleKind
from tests.harness.proxy import command
from tests.harness.wait import until

ROUTE = "from fastlb import rule\n@rule.request\ndef route(request): ...\n"
SERVER = """[virtual_servers.{name}]
listen = "127.0.0.1:{port}"
protocol = "{protocol}"
pool = "web"
rules = [{rules}]
"""
POOL = '[pools.web]\nnodes = ["127.0.0.1:81"]\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(errors.__file__).parents[1]))


def found(directory: Path, *rules: str, protocol: str = "http") -> list[Problem]:
    """All that `check` says of a configuration with these rules."""
    listed = ", ".join(f'"{rule}"' for rule in rules)
    text = SERVER.format(name="shop", port=80, protocol=protocol, rules=listed) + POOL
    (directory / "fastlb.toml").write_text(text)
    return check_file(directory / "fastlb.toml").problems


def test_all_rules_of_all_modules_at_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        ROUTE + "@rule.connection\nasync def hello(c): ...\n@rule.response\ndef spare(r, q): ...\n"
    )
    (tmp_path / "more.py").write_text(ROUTE + "from shop import hello\n")
    found = check_rules(tmp_path, ["shop:hello", "more:route", "shop:route"])
    assert found.kinds == {
        "shop:hello": RuleKind("connection", True),
        "more:route": RuleKind("request", False),
        "shop:route": RuleKind("request", False),
    }
    assert found.unused == [Unused("spare", "shop", f"{tmp_path}/shop.py", 6)]
    assert (found.problems, found.ended) == ([], None)


def test_right_rules_are_right(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ROUTE)
    assert found(tmp_path, "shop:route") == []
    cfg = check_file(tmp_path / "fastlb.toml").config
    assert cfg is not None
    assert cfg.rule_kinds == {"shop:route": RuleKind("request", False)}
    assert not (tmp_path / "__pycache__").exists()


def test_each_problem_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ROUTE)
    (tmp_path / "bad.py").write_text("\ndef f(:\n")
    problems = found(tmp_path, "shop:route", "shop:rout", "shap:route", "bad:a", "bad:b")
    assert [(one.code, one.file, one.line, one.table, one.key) for one in problems] == [
        ("FLB-C140", f"{tmp_path}/fastlb.toml", 5, "virtual_servers.shop", "rules[2]"),
        ("FLB-C142", f"{tmp_path}/bad.py", 2, "virtual_servers.shop", "rules[3]"),
        ("FLB-C141", f"{tmp_path}/shop.py", None, "virtual_servers.shop", "rules[1]"),
    ]
    assert str(problems[1]) == (
        f"{tmp_path}/bad.py:2: [virtual_servers.shop] rules[3]: "
        "cannot be imported: SyntaxError: invalid syntax"
    )


def test_the_configuration_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    codes = {one.code for one in found(tmp_path, "bad:route", "bad:route", "no rule")}
    assert codes == {"FLB-C142", "FLB-C147", "FLB-C026"}


def test_too_many_rules(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(129)]
    (tmp_path / "shop.py").write_text(
        "from fastlb import rule\n" + "".join(f"@rule.request\ndef {n}(r): ...\n" for n in names)
    )
    assert found(tmp_path, *(f"shop:{name}" for name in names[:-1])) != []  # the last is unused
    (one,) = found(tmp_path, *(f"shop:{name}" for name in names))
    assert (one.code, one.text) == ("FLB-C045", "129 rules; expected at most 128")


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_only_connection_rules_where_nothing_else_is_seen(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "shop.py").write_text(ROUTE + "@rule.connection\ndef hello(c): ...\n")
    (one,) = found(tmp_path, "shop:hello", "shop:route", protocol=protocol)
    assert (one.code, one.line, one.key) == ("FLB-C145", 5, "rules[1]")


def test_a_spare_rule_is_worth_a_warning(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ROUTE + "@rule.request\ndef spare(r): ...\n")
    (one,) = found(tmp_path, "shop:route")
    assert (one.code, one.level, one.line) == ("FLB-C149", "warning", 4)
    assert "rule that no virtual server uses" in str(one)


HARM = {  # what a module does: how it ends, and the line
    "import os\nos._exit(0)": ("ends the process (status 0)", None),
    "import os\nos.abort()": ("crashes Python (SIGABRT)", 2),
    "import ctypes\nctypes.string_at(0)": ("crashes Python (SIGSEGV)", 2),
    "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)": ("(SIGKILL)", None),
    "import os\nos.closerange(3, 200)": ("ends the process (status 1)", None),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_module_that_ends_the_process(tmp_path: Path, harm: str) -> None:
    how, line = HARM[harm]
    (tmp_path / "shop.py").write_text(f"{harm}\n{ROUTE}")
    (one,) = found(tmp_path, "shop:route")
    assert (one.code, one.file, one.line) == ("FLB-C146", f"{tmp_path}/shop.py", line)
    assert how in one.text


@pytest.mark.parametrize(
    "harm",
    ["while True: pass", "def f(n): f(n)\nwhile True:\n try: f(1)\n except RecursionError: pass"],
)
def test_a_module_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(rule_check, "TIME_S", 1.0)
    (tmp_path / "shop.py").write_text("from helper import x\n" + ROUTE)
    (tmp_path / "helper.py").write_text(f"x = 1\n{harm}\n")
    (one,) = found(tmp_path, "shop:route")
    assert (one.code, one.file) == ("FLB-C146", f"{tmp_path}/helper.py")
    assert one.line is not None
    assert one.line >= 2
    assert 'importing "shop" does not end within 1 s' in one.text


def test_a_process_that_says_nothing_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_check, "TIME_S", 0.5)
    monkeypatch.setattr(rule_check, "GRACE_S", 0.5)
    stop = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n"
    (tmp_path / "shop.py").write_text(stop + ROUTE)
    (one,) = found(tmp_path, "shop:route")
    assert "does not end within 0.5 s" in one.text


HARMLESS = [
    "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
    "import subprocess\nPID = subprocess.Popen(['sleep', '600']).pid\n"
    "open(__file__ + '.pid', 'w').write(str(PID))",
    "import os\nos.fork()",
    "print('{\"end\": true}')\nimport sys\nsys.stdout.write('x' * 100000)",
    "import sys\nsys.stdout.close()",
    "import atexit\natexit.register(print, 'late')",
    "import os\nos.chdir('/')",
    "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "import warnings\nwarnings.simplefilter('error')",
]


@pytest.mark.parametrize("act", HARMLESS)
def test_what_an_import_leaves_behind_is_no_harm(tmp_path: Path, act: str) -> None:
    (tmp_path / "shop.py").write_text(f"{act}\n{ROUTE}")
    assert found(tmp_path, "shop:route") == []
    pid = tmp_path / "shop.py.pid"
    if pid.exists():
        gone = Path("/proc", pid.read_text(), "stat")
        until(lambda: not gone.exists() or ") Z " in gone.read_text(), "what was left behind ended")


def test_json_has_file_and_line_whatever_a_module_prints(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("print('noise')\n1 / 0\n")
    text = SERVER.format(name="a", port=80, protocol="http", rules='"shop:route"') + POOL
    (tmp_path / "fastlb.toml").write_text(text)
    done = command("check", "--json", "-c", str(tmp_path / "fastlb.toml"))
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == [
        {
            "code": "FLB-C142",
            "level": "error",
            "file": f"{tmp_path}/shop.py",
            "line": 2,
            "table": "virtual_servers.a",
            "key": "rules[0]",
            "text": "cannot be imported: ZeroDivisionError: division by zero",
        }
    ]


def test_without_python_nothing_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(ROUTE)
    monkeypatch.setattr(rule_check.sys, "executable", str(tmp_path / "nothing"))
    (one,) = found(tmp_path, "shop:route")
    assert (one.code, one.key) == ("FLB-C148", "rules")
    assert "cannot be started: No such file or directory" in one.text


def test_it_runs_as_the_user_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    chosen = rule_check._as_user(entry.pw_name)
    assert (chosen["user"], chosen["group"]) == (entry.pw_uid, entry.pw_gid)
    assert entry.pw_gid in chosen["extra_groups"]
    assert rule_check._as_user(None) == {}
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert rule_check._as_user(entry.pw_name) == {}


def test_nobody_waits_for_an_aborted_check(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"open({str(tmp_path / 'on')!r}, 'w')\nwhile True: pass\n")

    async def reload_and_stop() -> float:
        check = asyncio.create_task(asyncio.to_thread(check_rules, tmp_path, ["shop:route"]))
        while not (tmp_path / "on").exists():
            await asyncio.sleep(0.01)  # the loop goes on meanwhile
        begun = time.monotonic()
        side_process.abort()
        assert (await check).ended == "crashes Python (SIGKILL)"
        return time.monotonic() - begun

    assert asyncio.run(reload_and_stop()) < rule_check.TIME_S / 2
    assert side_process._running == set()


def test_checks_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ROUTE)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(check_rules(tmp_path, ["shop:route"])))
        for _ in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == [results[0]] * 3


def test_the_place_in_a_trace() -> None:
    main = f'  File "{rule_check.__file__}", line 200 in main\n'
    text = (
        "Timeout (0:00:10)!\n"
        'Thread 0x1 (most recent call first):\n  File "/d/other.py", line 1 in f\n'
        '\nThread 0x2 (most recent call first):\n  File "/usr/lib/x.py", line 7 in sleep\n'
        f'  File "/d/shop.py", line 3 in <module>\n  File "/d/more.py", line 9 in g\n{main}'
    )
    assert traced_place(text, "/d") == ("/d/shop.py", 3)
    assert traced_place(text.replace(main, "  ...\n"), "/d") == ("/d/other.py", 1)
    assert traced_place(main, "/d") is None
    assert traced_place("", "/d") is None
