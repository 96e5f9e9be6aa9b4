"""The command line: help, exit codes, and what goes wrong."""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import fastlb as package
from fastlb import cli, command, control_socket, errors
from fastlb.control_socket import ControlSocket, ask, socket_path
from fastlb.errors import Refused, StartError
from tests.control.running import fastlb

GOOD = """
[virtual_servers.shop]
listen = "127.0.0.1:1"
pool = "web"
[pools.web]
nodes = ["10.0.0.1:80"]
"""
NODE_COMMANDS = ("drain", "undrain", "disable", "enable")
COMMANDS = (
    "run", "check", "reload", "upgrade", "stop", "status", *NODE_COMMANDS, "node", "sessions",
    "demo",
    "version",
)  # fmt: skip
ACTIONS = ("list", "count", "delete", "flush")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fastlb.toml"
    path.write_text(f'[proxy]\nstate_dir = "state"\n{GOOD}')
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert f"example: fastlb {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ACTIONS)
def test_each_action_on_sessions_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sessions", name, "--help"])
    assert caught.value.code == 0
    assert f"example: fastlb sessions {name} --class " in capsys.readouterr().out


def test_only_what_works_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:4] == "    "
    ]
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--fly"], ["status", "--jsn"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_check_of_a_right_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "-c", str(file)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{file}: right\n", "")
    file.write_text(GOOD + "[pools.unused]\nnodes = []\n")
    assert cli.main(["check", "-c", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{file}: right, 2 warnings\n"
    assert shown.err.count("fastlb: warning: ") == 2


def test_check_says_all_that_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace('"web"', '"wep"') + 'algorithm = "dice"\n')
    assert cli.main(["check", "-c", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first.startswith(f"fastlb: error: {file}:4: [virtual_servers.shop] pool: ")
    assert first.endswith("[FLB-C030]")
    assert '"dice"' in second


def test_no_file_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check"]) == 2
    assert "name one with -c FILE" in capsys.readouterr().err
    assert cli.main(["run", "-c", "none.toml"]) == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_run_of_a_wrong_file_starts_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace('"web"', '"wep"'))
    assert cli.main(["run", "-c", str(file)]) == 2
    assert capsys.readouterr().err.startswith("fastlb: error: ")
    assert [path.name for path in file.parent.iterdir()] == ["fastlb.toml"]


@pytest.mark.parametrize(
    "words",
    [
        ["reload"],
        ["stop"],
        ["status"],
        *([verb, "10.0.0.1:80"] for verb in NODE_COMMANDS),
        ["sessions", "count", "--class", "shop"],
    ],
)
def test_nobody_to_talk_to_is_1(
    words: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "-c", str(file)]) == 1
    state = file.parent / "state"
    assert capsys.readouterr().err == (
        f"fastlb: error: no fastlb is running with state directory {state} [FLB-S060]\n"
    )


def test_commands_find_the_state_directory_of_a_wrong_file(file: Path) -> None:
    arguments = cli.parser().parse_args(["status", "-c", str(file)])
    assert command.state_dir(arguments) == file.parent / "state"
    file.write_text('[proxy]\nstate_dir = "/srv/x"\nnonsense = 5\n')
    assert command.state_dir(arguments) == Path("/srv/x")
    file.write_text("nonsense = 5\n")
    assert command.state_dir(arguments).name == "fastlb"
    file.write_text("nonsense =\n")
    assert cli.main(["status", "-c", str(file)]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"fastlb {package.__version__}\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fastlb", "version"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=Path(package.__file__).parents[1],
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_errors_of_a_start_are_lines_and_1(file: Path) -> None:
    (file.parent / "state").mkdir(mode=0o700)
    secret = file.parent / "state" / "secret"
    secret.write_text("wrong")
    secret.chmod(0o600)
    file.write_text(file.read_text().replace("127.0.0.1:1", "192.0.2.1:80"))
    done = fastlb("run", "-c", str(file))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("fastlb: error: ") for line in lines)
    assert {line[-10:] for line in lines} == {"[FLB-S003]", "[FLB-S012]"}


def test_the_path_of_the_control_socket_may_be_too_long(file: Path) -> None:
    deep = file.parent / ("d" * 100)
    file.write_text(f'[proxy]\nstate_dir = "{deep}"\n{GOOD.replace(":1", ":10009")}')
    done = fastlb("run", "-c", str(file.parent / "fastlb.toml"))
    assert done.returncode == 1
    assert "too long" in done.stderr


# --- the control socket ---


def run_socket(directory: Path, lines: list[bytes]) -> list[dict[str, object]]:
    """Serves one client that sends `lines`; its answers."""

    async def echo(request: dict[str, object]) -> dict[str, object]:
        return {"ok": True, "request": request}

    async def main() -> list[dict[str, object]]:
        server = ControlSocket(directory, {"echo": echo})
        await server.open()
        assert socket_path(directory).stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(socket_path(directory))
        answers = []
        for line in lines:
            writer.write(line)
            answers.append(json.loads(await reader.readline()))
        writer.close()
        await asyncio.sleep(0)
        server.close()
        return answers

    return asyncio.run(main())


def test_requests_are_lines_of_json(tmp_path: Path) -> None:
    good, not_json, unknown, no_object = run_socket(
        tmp_path, [b'{"command": "echo", "x": 1}\n', b"nonsense\n", b'{"command": "no"}\n', b"[]\n"]
    )
    assert good == {"ok": True, "request": {"command": "echo", "x": 1}}
    assert not_json == {"ok": False, "error": "not JSON"}
    assert unknown == no_object == {"ok": False, "error": "no such command; expected one of echo"}
    assert not socket_path(tmp_path).exists()


@pytest.mark.parametrize(
    "line",
    [b'{"command": ["echo"]}', b'{"command": {}}', b'{"command": null}', b"[" * 50_000],
    ids=["list", "object", "null", "nested"],
)
def test_a_line_that_is_no_command_is_answered(tmp_path: Path, line: bytes) -> None:
    bad, good = run_socket(tmp_path, [line + b"\n", b'{"command": "echo"}\n'])
    assert bad["ok"] is False
    assert good["ok"] is True


def test_who_does_not_read_its_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(request: dict[str, object]) -> dict[str, object]:
        return {"ok": True, "text": "x" * 2_000_000}

    async def main(lines: bytes) -> None:
        server = ControlSocket(tmp_path, {"long": long})
        await server.open()
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(socket_path(tmp_path)))
            one.sendall(lines)
            # Nothing is read: only the server's end of it ends this.
            looks = select.poll()
            looks.register(one, 0)
            assert await asyncio.to_thread(looks.poll, 20_000), "it is kept for ever"
        server.close()

    monkeypatch.setattr(control_socket, "REQUEST_S", 0.1)
    monkeypatch.setattr(control_socket, "ANSWER_S", 0.1)
    asyncio.run(main(b'{"command": "long"}\n'))
    asyncio.run(main(b'{"command": "long"}\n' * 3))


def test_a_command_that_is_refused_is_answered(tmp_path: Path) -> None:
    async def refuse(request: dict[str, object]) -> dict[str, object]:
        raise Refused(errors.NO_SUCH_POOL, found="x", suggestion="")

    async def main() -> dict[str, object]:
        server = ControlSocket(tmp_path, {"refuse": refuse})
        await server.open()
        answer = await asyncio.to_thread(ask, tmp_path, "refuse")
        server.close()
        return answer

    assert asyncio.run(main()) == {"ok": False, "error": 'no pool "x" [FLB-S081]'}


def test_a_command_that_the_system_refuses_is_answered(tmp_path: Path) -> None:
    async def refuse(request: dict[str, object]) -> dict[str, object]:
        raise OSError(24, "Too many open files")

    async def main() -> dict[str, object]:
        server = ControlSocket(tmp_path, {"refuse": refuse})
        await server.open()
        answer = await asyncio.to_thread(ask, tmp_path, "refuse")
        server.close()
        return answer

    error = "refuse: the system refuses what it takes: Too many open files [FLB-S169]"
    assert asyncio.run(main()) == {"ok": False, "error": error}


def test_a_silent_server_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path(tmp_path)))
        server.listen()
        with pytest.raises(StartError) as caught:
            ask(tmp_path, "status", timeout_s=0.1)
    assert "does not answer: timed out [FLB-S061]" in caught.value.lines[0]


@pytest.mark.parametrize("name", ["add", "remove", "weight"])
def test_each_change_of_a_pool_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["node", name, "--help"])
    assert f"example: fastlb node {name} 10.0.0." in capsys.readouterr().out
