"""`fastlb demo`, the newcomer's first command, as a newcomer would see it."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

from tests.harness import TIMEOUT, command, until
from tests.harness.proxy import environment


def test_the_demo_checks_itself():
    done = command("demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 users, 10 requests each: 30 stayed on their node" in done.stdout
    assert done.stdout.rstrip().endswith("demo: all sessions hold")


def test_the_demo_finds_other_ports_and_says_so():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else has it: as good
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        done = command("demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"127\.0\.0\.1:8080 is taken; using 127\.0\.0\.1:\d+", done.stdout)


def test_the_demo_runs_until_ctrl_c_and_shows_users_and_browsers(tmp_path):
    output = tmp_path / "output"
    with open(output, "wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "fastlb", "demo"], stdout=file, stderr=file, env=environment(),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as after `make &`
        )  # fmt: skip
    try:
        found = until(lambda: re.search(r"open (http://\S+)", output.read_text()), "the address")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )
        answers = [json.load(opener.open(found[1] + "api", timeout=TIMEOUT)) for _ in range(3)]
        assert len({answer["node"] for answer in answers}) == 1
        assert [answer["hits"] for answer in answers] == [1, 2, 3]
        page = opener.open(found[1], timeout=TIMEOUT).read().decode()
        assert "request 4 of your session" in page
        until(lambda: len(re.findall("same node", output.read_text())) > 3, "the users' lines")
        assert "browser" in output.read_text()
        assert "\x1b" not in output.read_text(), "colours where no terminal is"
    finally:
        demo.send_signal(signal.SIGINT)
        try:
            code = demo.wait(TIMEOUT + 15)
        except subprocess.TimeoutExpired:
            demo.kill()
            demo.wait()
            raise
    assert code == 0
    assert "Traceback" not in output.read_text()
    assert "LOST" not in output.read_text()
