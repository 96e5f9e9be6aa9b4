"""Commands and what goes wrong at the start: one clear line each, and the right exit code."""

import os
import socket
import subprocess
import sys

import pytest

from tests.harness import HttpNode, changed, check, command, proxy, settings, sticky, toml
from tests.harness.proxy import TIMEOUT, environment, free_port

NODE = "127.0.0.1:9"


def fixed(config, tmp_path):
    """The configuration with a port and folders filled in, as text."""
    config["proxy"].setdefault("state_dir", str(tmp_path / "state"))
    server = config["virtual_servers"]["shop"]
    if server["listen"] == ["127.0.0.1:0"]:
        server["listen"] = [f"127.0.0.1:{free_port()}"]
    return toml(config)


def run(config, tmp_path, *before):
    """`fastlb run` that is expected to end by itself."""
    file = tmp_path / "fastlb.toml"
    file.write_text(fixed(config, tmp_path))
    return subprocess.run(
        [*before, sys.executable, "-m", "fastlb", "run", "-c", str(file)],
        capture_output=True, text=True, timeout=2 * TIMEOUT, env=environment(), check=False,
    )  # fmt: skip


def one_clear_line(done, code, *words):
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]


def test_check_of_a_good_configuration_is_0(tmp_path):
    done = check(fixed(sticky(NODE), tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_check_lists_every_error_with_its_place_and_a_suggestion(tmp_path):
    config = sticky(NODE, timeout="5 parsecs")
    config["pools"]["web"]["algorithm"] = "round-robbin"
    config["pools"]["web"]["nodes"].append("10.0.0.1")
    config["virtual_servers"]["shop"]["pool"] = "wep"
    config["limits"] = {"headrs": "1KiB"}
    done = check(fixed(config, tmp_path))
    assert done.returncode == 2
    text = done.stdout + done.stderr
    for words in (
        ("persistence.shop", "timeout", "5 parsecs"),
        ("pools.web", "algorithm", "round-robbin", "round-robin"),
        ("pools.web", "nodes", "10.0.0.1"),
        ("virtual_servers.shop", "pool", "wep", "web"),
        ("limits", "headrs", "headers"),
    ):
        assert any(all(word in line for word in words) for line in text.splitlines()), words
    assert "Traceback" not in text


def test_check_of_broken_toml_and_of_no_file_is_2(tmp_path):
    done = check("[proxy\nworkers = ")
    assert done.returncode == 2
    assert "fastlb.toml:1:" in done.stderr + done.stdout
    missing = command("check", "-c", str(tmp_path / "missing.toml"))
    assert missing.returncode == 2
    assert "missing.toml" in missing.stderr


def test_run_of_a_bad_configuration_starts_nothing(tmp_path):
    config = settings(NODE, pool={"algorithm": "dice"})
    done = run(config, tmp_path)
    assert done.returncode == 2
    assert "dice" in done.stderr
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").glob("*.sock"))


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = settings(NODE, server={"listen": [f"127.0.0.1:{port}"]})
        one_clear_line(run(config, tmp_path), 1, f"127.0.0.1:{port}", "in use")


def test_a_second_proxy_on_the_same_port_does_not_steal_its_connections(tmp_path):
    with HttpNode("a") as a, proxy(settings(a)) as p:
        host, port = p.address()
        config = settings(NODE, server={"listen": [f"{host}:{port}"]})
        one_clear_line(run(config, tmp_path), 1, str(port), "in use")
        assert {p.get().node for _ in range(8)} == {"a"}


def test_an_address_that_is_not_ours_is_one_clear_line(tmp_path):
    config = settings(NODE, server={"listen": ["192.0.2.1:8080"]})
    one_clear_line(run(config, tmp_path), 1, "192.0.2.1:8080")


def test_a_too_low_descriptor_limit_is_one_clear_line(tmp_path):
    config = settings(NODE, limits={"max_connections": 10000})
    before = ["prlimit", "--nofile=200:200"]
    if os.geteuid() == 0:  # without this, root may simply raise the limit again
        before += ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--"]
    one_clear_line(run(config, tmp_path, *before), 1, "200", "max_connections")


def test_a_state_dir_that_is_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "state").write_text("a file")
    one_clear_line(run(settings(NODE), tmp_path), 1, str(tmp_path / "state"))


def test_a_state_dir_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    one_clear_line(run(settings(NODE), tmp_path), 1, str(tmp_path / "state"))


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    secret.chmod(0o644)
    config = settings(NODE, secret_file=str(secret))
    one_clear_line(run(config, tmp_path), 1, str(secret))


def test_the_state_dir_and_its_secret_are_private(tmp_path):
    config = settings(NODE)
    config["proxy"]["state_dir"] = str(tmp_path / "state")
    with proxy(config):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "state" / "secret").stat().st_mode & 0o777 == 0o600


def test_two_proxies_cannot_share_a_state_dir(tmp_path):
    config = settings(NODE)
    config["proxy"]["state_dir"] = str(tmp_path / "state")
    with proxy(config):
        one_clear_line(run(settings(NODE), tmp_path), 1, str(tmp_path / "state"))


@pytest.mark.parametrize("name", ["status", "reload", "stop"])
def test_commands_without_a_running_proxy_are_1_and_one_line(name, tmp_path):
    file = tmp_path / "fastlb.toml"
    file.write_text(fixed(settings(NODE), tmp_path))
    one_clear_line(command(name, "-c", str(file)), 1, "running")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--fly"], ["status", "--jsn"]])
def test_wrong_usage_is_2(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["run", "check", "status", "stop", "reload", "demo"])
def test_each_command_has_help_with_an_example(name):
    done = command(name, "--help")
    assert done.returncode == 0
    assert f"fastlb {name}" in done.stdout
    assert "example" in done.stdout.lower()


def test_stop_ends_the_proxy(tmp_path):
    with HttpNode("a") as a, proxy(settings(a)) as p:
        assert command("stop", "-c", str(p.file)).returncode == 0
        assert p.process.wait(TIMEOUT) == 0


def test_status_for_people_names_pools_nodes_and_classes():
    with HttpNode("a") as a, proxy(sticky(a)) as p:
        p.user("alice").get()
        done = command("status", "-c", str(p.file))
    assert done.returncode == 0
    for word in ("web", a.address, "up", "shop", "transparent"):
        assert word in done.stdout


def test_a_stale_control_socket_of_a_killed_proxy_does_not_hinder_a_start(tmp_path):
    with HttpNode("a") as a:
        config = settings(a)
        config["proxy"]["state_dir"] = str(tmp_path / "state")
        with proxy(config) as p:
            workers = p.worker_pids()
            p.process.kill()
            p.process.wait(TIMEOUT)
            for pid in workers:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            p.start()
            assert p.get().node == "a"


def test_reload_says_what_needs_a_restart_instead_of_ignoring_it():
    with HttpNode("a") as a:
        config = settings(a)
        with proxy(config) as p:
            done = p.reload(changed(config, "proxy.workers", 2))
            pids = p.worker_pids()
    assert len(pids) == 2 or (done.stdout + done.stderr).count("workers") >= 1
