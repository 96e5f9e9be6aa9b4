"""What a right configuration becomes, and that its documentation is true."""

import ipaddress
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastlb import config, features
from fastlb.check import check_file, check_text
from fastlb.class_id import class_hex, server_cookie_name
from fastlb.config import Config, CookieClass, IpClass, Proxy, TransparentClass
from fastlb.units import InetAddress, KeyPart, UnixAddress
from tests.named_files import with_files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ci"))
import config_reference  # noqa: E402


def served(text: str, file: Path = Path("fastlb.toml")) -> Config:
    """The configuration of a text in which nothing is wrong."""
    checked = check_text(text, file)
    assert [str(problem) for problem in checked.errors] == []
    assert checked.config is not None
    return checked.config


def with_class(text: str) -> str:
    return (
        '[virtual_servers.a]\nlisten = "127.0.0.1:80"\npool = "web"\n'
        '[pools.web]\nnodes = ["127.0.0.1:81"]\npersistence = "c"\n[persistence.c]\n' + text
    )


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    monkeypatch.setattr(features, "UNAVAILABLE", ())
    (tmp_path / "passphrases").write_bytes((ROOT / "examples/passphrases").read_bytes())
    checked = check_file(with_files((ROOT / "examples/everything.toml").read_text(), tmp_path))
    assert [str(problem) for problem in checked.errors] == []
    assert checked.config is not None
    return checked.config


def test_quickstart_is_right_and_warns_of_nothing() -> None:
    checked = check_file(ROOT / "examples/quickstart.toml")
    assert (checked.errors, checked.warnings) == ([], [])
    assert checked.config is not None
    assert checked.config.virtual_servers["demo"].listen == (
        InetAddress(ipaddress.ip_address("127.0.0.1"), 8080),
    )
    demo = checked.config.persistence["demo"]
    assert isinstance(demo, TransparentClass)
    assert demo.fallback == "by-ip"


@pytest.mark.parametrize("name", ["https", "tls-passthrough", "tcp"])
def test_the_examples_of_protocols_are_right(name: str, tmp_path: Path) -> None:
    checked = check_file(with_files((ROOT / f"examples/{name}.toml").read_text(), tmp_path))
    assert [str(one) for one in (*checked.errors, *checked.warnings)] == []
    assert checked.config is not None


def test_every_example_is_looked_at() -> None:
    names = {file.stem for file in (ROOT / "examples").glob("*.toml")}
    assert names == {"everything", "quickstart", "https", "tls-passthrough", "tcp"}


def test_the_example_of_everything_leaves_no_key_out() -> None:
    text = (ROOT / "examples/everything.toml").read_text()
    document = tomllib.loads(text)
    names = set(re.findall(r"[a-z_0-9]+(?= = )", text))
    for cls, keys in config_reference.TEXTS.items():
        for name in keys:
            if cls != "Config" and name != "datacenters":
                key = "name" if name == "cookie_name" else config.key_of(name)
                assert key in names, f"{cls}.{key}"
    assert set(config_reference.TEXTS["Config"]) - set(config.NO_KEYS) == set(document)


def test_values_are_resolved(everything: Config) -> None:
    web = everything.pools["web"]
    assert [node.weight for node in web.nodes] == [1, 3, 1, 1]
    assert (web.nodes[2].backup, web.nodes[3].draining) == (True, True)
    shop = everything.virtual_servers["shop"]
    assert shop.listen[2] == UnixAddress("/run/fastlb/shop.sock")
    assert shop.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"),)
    assert everything.timeouts.keep_alive_ms == 60_000
    assert everything.limits.buffers_bytes == 256 << 20
    api: Any = everything.persistence["api"]
    assert api.key == (KeyPart("header", "X-Session"),)
    assert list(everything.persistence)[:2] == ["shop", "by-ip"]
    assert everything.cluster is not None
    assert len(everything.cluster.datacenters["dc2"]) == 2


def test_files_are_relative_to_the_configuration(everything: Config, tmp_path: Path) -> None:
    insert: Any = everything.persistence["insert"]
    assert insert.passphrase_file == tmp_path / "passphrases"
    tls = everything.virtual_servers["secure"].tls
    assert tls is not None
    assert tls.certificates[0].key == tmp_path / "shop.key"
    log = served('proxy.access_log = "a.log"\n' + with_class('type = "ip"'), Path("/etc/x/f.toml"))
    assert log.proxy.access_log == "/etc/x/a.log"


def test_defaults() -> None:
    cfg = served(with_class('type = "ip"\n'))
    assert cfg.limits == config.Limits()
    assert cfg.timeouts == config.Timeouts()
    assert cfg.proxy.workers == config.cpu_count()
    assert cfg.proxy.access_log == "stdout"
    assert (cfg.admin, cfg.cluster) == (None, None)
    cls = cfg.persistence["c"]
    assert isinstance(cls, IpClass)
    assert (cls.size, cls.expiry_ms, cls.ipv4_prefix, cls.ipv6_prefix) == (32768, 1_800_000, 32, 64)


def test_state_dir_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Proxy().state_dir == Path("/var/lib/fastlb")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/state")
    assert Proxy().state_dir == Path("/home/a/state/fastlb")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/b")
    cfg = served(with_class('type = "ip"\n'))
    assert cfg.proxy.state_dir == Path("/home/b/.local/state/fastlb")
    assert cfg.proxy.secret_file == Path("/home/b/.local/state/fastlb/secret")


def test_secret_file_follows_state_dir() -> None:
    cfg = served('[proxy]\nstate_dir = "/srv/lb"\n' + with_class('type = "ip"\n'))
    assert cfg.proxy.secret_file == Path("/srv/lb/secret")


def test_a_virtual_servers_cookie_is_named_as_the_appliance_does() -> None:
    assert server_cookie_name("lb_test") == "NSC_mc_uftu"
    assert server_cookie_name("Az-zZ.09") == "NSC_Ba-aA.09"


def test_class_hex_is_the_start_of_sha256() -> None:
    assert class_hex("abc") == "ba7816bf"  # FIPS 180-2, B.1


@pytest.mark.parametrize(
    ("text", "name", "secure"),
    [
        ('type = "transparent"', f"X-Mapping-{class_hex('c')}", None),
        ('type = "transparent"\nname = "S"\nsecure = true', "S", True),
        ('type = "transparent"\ndirectives = "Secure; Max-Age=3600"', None, False),
        ('type = "cookie"\ncookie = "SID"', f"K-SID-{class_hex('c')}", None),
        ('type = "cookie-insert"', "", None),
    ],
)
def test_cookie_defaults(
    monkeypatch: pytest.MonkeyPatch, text: str, name: str | None, secure: bool | None
) -> None:
    monkeypatch.setattr(features, "UNAVAILABLE", ())
    cls = served(with_class(text)).persistence["c"]
    assert isinstance(cls, CookieClass)
    assert name is None or (cls.cookie_name or "") == name
    assert cls.secure is secure


def test_bounds_are_those_of_the_core() -> None:
    limits = (ROOT / "fastlb/_core/limits.pxd").read_text()
    core = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", limits)}
    assert core["WORKERS_MAX"] == 2 * config.WORKERS_MAX
    assert core["NODES_MAX"] - 1 == core["NODE_SLOT_UNLISTED"] == config.NODES_MAX
    assert core["VIRTUAL_SERVERS_MAX"] == config.VIRTUAL_SERVERS_MAX
    assert core["CLASSES_MAX"] == config.CLASSES_MAX
    assert core["RULES_MAX"] == config.RULES_MAX
    assert core["FALLBACK_DEPTH_MAX"] == config.FALLBACK_DEPTH_MAX
    assert core["COOKIE_NAMES_MAX"] == config.COOKIE_NAMES_MAX
    assert core["HEAD_FIELDS_MAX"] == config.HEADER_COUNT_MAX
    assert core["HEAD_BYTES_MAX"] > config.HEAD_BYTES_MAX


def test_every_key_has_its_text() -> None:
    for cls in (*config.CLASS_TYPES.values(), config.Proxy, config.Pool, config.VirtualServer):
        for name in cls.__struct_fields__:
            assert config_reference.text_of(cls, name)


def test_the_documentation_is_up_to_date() -> None:
    assert config_reference.page() == config_reference.PAGE.read_text()


def test_the_first_example_of_the_documentation_is_right() -> None:
    example = re.search(r"```toml\n(.*?)```", config_reference.PAGE.read_text(), re.S)
    assert example is not None
    checked = check_text(example[1], Path("fastlb.toml"))
    assert (checked.errors, checked.warnings) == ([], [])
    assert len([line for line in example[1].splitlines() if line]) <= 10
