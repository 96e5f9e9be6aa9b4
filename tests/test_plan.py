"""What a configuration becomes in the plan that workers read."""

import fcntl
import os
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb import plan
from fastlb._core._testing_plan_read import network_has, read_plan
from fastlb._core.plan import CLASS_FLAGS, PROXY_FLAGS, SERVER_FLAGS
from fastlb.check import check_file, check_text
from fastlb.class_id import class_hex
from fastlb.config import (
    AppCookieClass,
    CacheClass,
    Config,
    CookieClass,
    Node,
    Pool,
    Route,
    TransparentClass,
    VirtualServer,
    VirtualServerTls,
)
from fastlb.cookie_tail import cookie_tail, follows
from fastlb.plan import compile_plan, schedule, seal, server_flags
from fastlb.plan_class import Place, seconds, ticks
from fastlb.slots import NodeKey, Slots
from fastlb.units import InetAddress
from fastlb.uses import told_of_certificates

ROOT = Path(__file__).parents[1]
KEYS = [bytes([number] * 16) for number in range(4)]
TEXT = """
[proxy]
access_log_format = "combined"
[virtual_servers.shop]
listen = ["127.0.0.1:80", "[::1]:80", "unix:/run/a.sock"]
pool = "web"
routes = [{ host = "API.example.com.", path = "/v1/", pool = "api" },
          { host = "*.b.c", pool = "api" }]
trusted_proxies = ["10.0.0.0/8", "2001:db8::/32"]
decision_header = ["127.0.0.0/8"]
[virtual_servers.other]
listen = "127.0.0.1:81"
pool = "api"
[pools.api]
nodes = ["[2001:db8::1]:8443"]
drain_last = "refuse"
retries = 0
[pools.web]
nodes = ["10.0.0.1:8080", { address = "10.0.0.2:8080", weight = 3 },
         { address = "10.0.0.3:8080", backup = true, weight = 0 }]
algorithm = "hash"
persistence = "shop"
[persistence.by-ip]
type = "ip"
ipv4_prefix = 24
expiry = "1500ms"
failure_mode = "close"
delete_on_failure = false
[persistence.shop]
type = "transparent"
fallback = "by-ip"
failure_mode = "redirect"
redirect_url = "/sorry"
timeout = "30m"
max_lifetime = "12h"
preserve = true
[timeouts]
node_keep_alive = "7s"
[limits]
request_line = "1KiB"
headers = "2KiB"
"""


def served(text: str) -> Config:
    checked = check_text(text, Path("x"))
    assert [str(problem) for problem in checked.errors] == []
    assert checked.config is not None
    return checked.config


def compiled(
    cfg: Config, slots: Slots | None = None, passphrases: dict[str, Any] | None = None
) -> bytes:
    slots = slots or Slots()
    slots.take(cfg)
    caches = {name: (4096, 64) for name, c in cfg.persistence.items() if isinstance(c, CacheClass)}
    reserved = {
        name: (8192, 128)
        for name, c in cfg.persistence.items()
        if isinstance(c, CookieClass) and c.reserve_ms
    }
    place = Place(slots, 49152, 123456, caches, reserved, passphrases or {})
    return compile_plan(cfg, place, keys=KEYS, generation=7, workers=3)


@pytest.fixture(scope="module")
def shop() -> dict[str, Any]:
    return read_plan(compiled(served(TEXT)))


def test_the_head(shop: dict[str, Any]) -> None:
    assert (shop["generation"], shop["workers"], shop["epoch_ms"]) == (7, 3, 123456)
    assert shop["node_table_offset"] == 49152
    assert shop["log_format"] == 2  # LOG_COMBINED
    assert [low & 0xFF for low, _ in shop["keys"]] == [0, 1, 2, 3]
    assert shop["limits"]["head_bytes"] == 3 << 10
    assert shop["limits"]["request_line_bytes"] == 1 << 10
    assert shop["limits"]["body_bytes"] == 0
    assert shop["timeouts"]["node_keep_alive"] == 7000
    assert shop["timeouts"]["tunnel"] == 3_600_000


def test_log_off_is_no_format() -> None:
    assert read_plan(compiled(served('proxy.access_log = "off"\n' + TEXT.replace(
        '[proxy]\naccess_log_format = "combined"\n', ""))))["log_format"] == 0  # fmt: skip


def test_virtual_servers_and_routes(shop: dict[str, Any]) -> None:
    first, second = shop["virtual_servers"]
    assert [first["name"], second["name"]] == ["shop", "other"]
    assert shop["pools"][first["pool"]]["name"] == "web"
    api = [pool["name"] for pool in shop["pools"]].index("api")
    assert first["routes"] == [("api.example.com", "/v1/", api), ("*.b.c", "", api)]
    assert second["routes"] == []
    assert shop["listeners"] == {0: 0, 1: 0, 2: 0, 3: 1}


RULED = """
[virtual_servers.a]
listen = "127.0.0.1:80"
pool = "web"
rules = ["shop:route", "shop:tag"]
[virtual_servers.plain]
listen = "127.0.0.1:81"
pool = "web"
[virtual_servers.b]
listen = "127.0.0.1:82"
pool = "web"
rules = ["pack.shop:route", "shop:route"]
[pools.web]
nodes = ["10.0.0.1:80"]
[rules]
on_error = "500"
timeout = "3s"
watchdog = "20ms"
parked = 7
"""


def test_rules() -> None:
    slots = Slots()
    slots.rules.take(["gone:rule"])
    cfg = served(RULED)
    found = read_plan(compiled(cfg, slots))
    names = ["shop:route", "shop:tag", "pack.shop:route"]
    assert found["rules"] == {
        "names": [(name, number + 1) for number, name in enumerate(names)],
        "on_error": 1,  # RULES_ANSWER_500
        "timeout": 3000,
        "watchdog": 20,
        "parked_max": 7,
        "shared": (0, 0),
        "directory": os.fsencode(Path.cwd()),
    }
    assert [one["rules"] for one in found["virtual_servers"]] == [[0, 1], [], [2, 0]]


def test_a_plan_without_rules(shop: dict[str, Any]) -> None:
    assert shop["rules"]["names"] == []
    assert [one["rules"] for one in shop["virtual_servers"]] == [[], []]


PASSED = """
[virtual_servers.passed]
listen = "127.0.0.1:443"
protocol = "tls"
pool = "a"
not_tls = "tcp"
routes = [{ sni = "API.example.com.", alpn = "h2", pool = "b" },
          { sni = "*.b.c", pool = "b" }, { alpn = "acme-tls/1", pool = "a" }]
[virtual_servers.bytes]
listen = "127.0.0.1:444"
protocol = "tcp"
pool = "b"
trusted_proxies = ["10.0.0.0/8"]
proxy_protocol = true
[pools.a]
nodes = ["10.0.0.1:443"]
persistence = "tls"
proxy_protocol = "v1"
[pools.b]
nodes = ["10.0.0.2:443"]
proxy_protocol = "v2"
drain_last = "refuse"
[persistence.tls]
type = "ssl"
fallback = "by-ip"
[persistence.by-ip]
type = "ip"
[limits]
handshakes = 100
handshakes_per_second = 2000
[timeouts]
handshake = "3s"
"""


def test_passages() -> None:
    read = read_plan(compiled(served(PASSED)))
    passed, raw = read["virtual_servers"]
    assert [one["protocol"] for one in (passed, raw)] == [2, 3]
    assert passed["tls_routes"] == [("api.example.com", "h2", 1), ("*.b.c", "", 1),
                                    ("", "acme-tls/1", 0)]  # fmt: skip
    told = SERVER_FLAGS["x-forwarded-for"] | SERVER_FLAGS["x-forwarded-proto"]
    assert (passed["flags"], raw["flags"]) == (
        SERVER_FLAGS["not_tls_is_tcp"] | told,
        SERVER_FLAGS["proxy_protocol"] | told,
    )
    watched = 32
    assert [pool["flags"] for pool in read["pools"]] == [
        PROXY_FLAGS["v1"] | watched,
        PROXY_FLAGS["v2"] | 1 | watched,
    ]
    limits = read["limits"]
    assert (limits["handshakes"], limits["handshakes_per_second"]) == (100, 2000)
    assert read["timeouts"]["handshake"] == 3000


def test_a_class_of_tls_sessions() -> None:
    cls = read_plan(compiled(served(PASSED)))["classes"][0]
    assert cls["cache"] == (4096, 64)
    assert cls["flags"] == sum(
        CLASS_FLAGS[name] for name in ("delete_on_failure", "has_cache", "learns", "keys_granted")
    )


@pytest.mark.parametrize(
    ("keys", "flags"),
    [
        ({}, set()),
        ({"not_tls": "tcp"}, set()),
        ({"protocol": "tls", "not_tls": "tcp"}, {"not_tls_is_tcp"}),
        ({"proxy_protocol": True}, {"proxy_protocol"}),
        ({"tls": VirtualServerTls(certificates=())}, set()),
        (
            {"tls": VirtualServerTls(certificates=(), client_certificates="optional")},
            {"client_subject"},
        ),
    ],
)
def test_flags_of_a_virtual_server(keys: dict[str, Any], flags: set[str]) -> None:
    server = VirtualServer(listen=(), pool="a", forwarded_fields=(), **keys)
    assert server_flags(server) == flags


def test_nobody_writes_what_nodes_are_told_elsewhere() -> None:
    asking = VirtualServerTls(certificates=(), client_certificates="required")
    near, far = (Node(address=InetAddress(ip_address(ip), 80)) for ip in ("10.0.0.1", "10.0.0.2"))
    pools = {
        "a": Pool(nodes=(near,)), "b": Pool(nodes=(far, near)), "c": Pool(nodes=(far,)),
    }  # fmt: skip
    servers = {
        "asks": VirtualServer(listen=(), pool="a", protocol="https", tls=asking),
        "same-pool": VirtualServer(listen=(), pool="a"),
        "same-node": VirtualServer(listen=(), pool="c", routes=(Route(host="x", pool="b"),)),
        "others": VirtualServer(listen=(), pool="c"),
    }
    cfg = Config(virtual_servers=servers, pools=pools)
    assert told_of_certificates(cfg) == {"asks", "same-pool", "same-node"}
    others = server_flags(servers["others"], told=True)
    assert others - set(servers["others"].forwarded_fields) == {"no_subject_of_clients"}


def test_networks() -> None:
    blob = compiled(served(TEXT))
    for which, ip, expected in (
        ("trusted", "10.1.2.3", True),
        ("trusted", "11.1.2.3", False),
        ("trusted", "2001:db8:1::5", True),
        ("trusted", "2001:db9::5", False),
        ("trusted", "127.0.0.1", False),
        ("decision", "127.9.9.9", True),
        ("decision", "10.1.2.3", False),
    ):
        assert network_has(blob, 0, which, ip) == expected, (which, ip)
    assert not network_has(blob, 1, "trusted", "10.1.2.3")


def test_pools_and_nodes(shop: dict[str, Any]) -> None:
    api, web = shop["pools"]
    assert (api["flags"], api["retries"], api["persistence"]) == (33, 0, -1)
    assert (web["flags"], web["retries"], web["algorithm"]) == (32, 2, 5)
    assert shop["classes"][web["persistence"]]["name"] == "shop"
    assert [node["name"] for node in api["nodes"]] == ["[2001:db8::1]:8443"]
    assert [node["address"] for node in web["nodes"]] == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
        "10.0.0.3:8080",
    ]
    assert [(node["weight"], node["flags"]) for node in web["nodes"]] == [(1, 0), (3, 0), (0, 1)]
    assert Counter(web["schedule"]) == {0: 1, 1: 3}


def test_a_nodes_place_in_the_hash_is_its_addresss_alone(shop: dict[str, Any]) -> None:
    again = read_plan(compiled(served(TEXT.replace('"10.0.0.1:8080", ', ""))))
    seeds = {node["name"]: node["hash_seed"] for node in shop["pools"][1]["nodes"]}
    assert len(set(seeds.values())) == 3
    for node in again["pools"][1]["nodes"]:
        assert node["hash_seed"] == seeds[node["name"]]


def test_classes(shop: dict[str, Any]) -> None:
    by_ip, cookie = shop["classes"]
    assert (by_ip["fallback"], cookie["fallback"]) == (-1, 0)
    assert by_ip["bits"] == (24, 64)
    assert by_ip["cache"] == (4096, 64)
    assert by_ip["expiry_ticks"] == 15
    assert by_ip["flags"] == CLASS_FLAGS["has_cache"]
    assert by_ip["failure_mode"] == 2
    assert cookie["id"] == int(class_hex("shop"), 16)
    assert cookie["redirect_url"] == "/sorry"
    assert (cookie["timeout_s"], cookie["max_lifetime_s"]) == (1800, 43200)
    assert (cookie["reserve_ticks"], cookie["reservations"]) == (10, (8192, 128))
    assert cookie["cookie_names"] == [(f"X-Mapping-{class_hex('shop')}", -1)]
    assert cookie["cookie_tail"] == "; Path=/; Max-Age=1800; HttpOnly"
    assert cookie["flags"] == sum(
        CLASS_FLAGS[name]
        for name in (
            "delete_on_failure",
            "hide_cookie",
            "protect_cache",
            "preserve",
            "inserts_cookie",
        )
    )


COOKIES = """
[virtual_servers.lb_test]
listen = "127.0.0.1:80"
pool = "web"
[virtual_servers.else]
listen = "127.0.0.1:81"
pool = "other"
[virtual_servers.third]
listen = "127.0.0.1:82"
pool = "other"
routes = [{ path = "/a/", pool = "web" }]
[pools.web]
nodes = ["10.0.0.1:80"]
persistence = "first"
[pools.other]
nodes = ["10.0.0.2:80"]
[persistence.first]
type = "transparent"
fallback = "insert"
[persistence.insert]
type = "cookie-insert"
"""


def insert_class(keys: str = "") -> dict[str, Any]:
    return read_plan(compiled(served(COOKIES + keys)))["classes"][1]


def test_an_inserted_cookie_has_a_name_for_each_virtual_server_that_may_ask_for_it() -> None:
    assert insert_class()["cookie_names"] == [("NSC_mc_uftu", 0), ("NSC_uijse", 2)]
    assert insert_class('name = "N"')["cookie_names"] == [("N", -1)]


@pytest.mark.parametrize(
    ("keys", "flags", "tail"),
    [
        ("", {"listed_only"}, "; Path=/; HttpOnly"),
        ("version = 0", {"listed_only"}, "; Path=/; HttpOnly"),
        ('timeout = "1h"', {"listed_only"}, "; Path=/; Max-Age=3600; HttpOnly"),
        (
            'timeout = "1h"\nversion = 0',
            {"listed_only", "writes_expires"},
            "; Path=/; HttpOnly",
        ),
        ('max_lifetime = "1h"\nversion = 0', {"listed_only"}, "; Path=/; HttpOnly"),
    ],
)
def test_what_an_inserted_cookie_says_of_its_age(keys: str, flags: set[str], tail: str) -> None:
    cls = insert_class(keys)
    assert cls["cookie_tail"] == tail
    always = {"delete_on_failure", "hide_cookie", "protect_cache", "inserts_cookie"}
    assert cls["flags"] == sum(CLASS_FLAGS[name] for name in flags | always)
    assert cls["passphrases"] == []


def test_keys_of_passphrases_are_in_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "passphrases"
    file.write_text("a passphrase\n")
    keys = [(bytes(range(64)), bytes(range(16))), (bytes(64), bytes(16))]
    cfg = served(f'{COOKIES}passphrase_file = "{file}"')
    cls = read_plan(compiled(cfg, passphrases={"insert": keys}))["classes"][1]
    assert cls["passphrases"] == keys
    always = {"delete_on_failure", "hide_cookie", "protect_cache", "inserts_cookie"}
    assert cls["flags"] == sum(CLASS_FLAGS[name] for name in always)


def test_slots_stay_when_the_configuration_changes() -> None:
    slots = Slots()
    compiled(served(TEXT), slots)
    before = slots.nodes.used[NodeKey("web", "10.0.0.2", 8080)]
    new = read_plan(compiled(served(TEXT.replace('"10.0.0.1:8080", ', '"10.0.0.9:8080", ')), slots))
    assert {n["name"]: n["slot"] for n in new["pools"][1]["nodes"]}["10.0.0.2:8080"] == before


@pytest.mark.parametrize(
    ("keys", "secure", "expected"),
    [
        ({}, False, "; Path=/; HttpOnly"),
        ({}, True, "; Path=/; HttpOnly; Secure"),
        ({"secure": False}, True, "; Path=/; HttpOnly"),
        ({"secure": True, "same_site": "none"}, False, "; Path=/; HttpOnly; Secure; SameSite=None"),
        ({"http_only": False, "path": "/a", "domain": "b.c"}, False, "; Path=/a; Domain=b.c"),
        ({"directives": "Partitioned ;  Priority=High;"}, False,
         "; Path=/; HttpOnly; Partitioned; Priority=High"),
        ({"timeout_ms": 1500}, False, "; Path=/; Max-Age=2; HttpOnly"),
        ({"timeout_ms": 60_000, "max_lifetime_ms": 5000}, False, "; Path=/; Max-Age=5; HttpOnly"),
        ({"max_lifetime_ms": 5000}, False, "; Path=/; HttpOnly"),
    ],
)  # fmt: skip
def test_the_text_after_a_cookies_value(keys: dict[str, Any], secure: bool, expected: str) -> None:
    assert cookie_tail(TransparentClass(**keys), secure) == expected


EVERY = {"path", "domain", "secure", "same_site", "age"}


@pytest.mark.parametrize(
    ("keys", "text", "followed"),
    [
        ({}, "; HttpOnly", EVERY),
        ({"path": "/a"}, "; Path=/a; HttpOnly", EVERY - {"path"}),
        ({"domain": "b.c"}, "; Domain=b.c; HttpOnly", EVERY - {"domain"}),
        ({"secure": True}, "; HttpOnly; Secure", EVERY - {"secure"}),
        ({"secure": False}, "; HttpOnly", EVERY - {"secure"}),
        ({"same_site": "lax"}, "; HttpOnly; SameSite=Lax", EVERY - {"same_site"}),
        ({"timeout_ms": 5000}, "; Max-Age=5; HttpOnly", EVERY - {"age"}),
        ({"max_lifetime_ms": 5000, "http_only": False}, "", EVERY),
        ({"directives": "path=/x; samesite=None; Expires=never; Priority=High"},
         "; HttpOnly; path=/x; samesite=None; Expires=never; Priority=High",
         EVERY - {"path", "same_site", "age"}),
    ],
)  # fmt: skip
def test_what_a_cookie_takes_over_from_the_applications(
    keys: dict[str, Any], text: str, followed: set[str]
) -> None:
    cls = AppCookieClass(cookie="SID", **keys)
    # Whether only TLS is served makes no difference: the application knows.
    assert {cookie_tail(cls, secure) for secure in (False, True)} == {text}
    assert follows(cls) == followed
    assert follows(TransparentClass(**keys)) == set()


def test_the_flags_of_the_applications_cookie() -> None:
    text = TEXT.replace('type = "transparent"', 'type = "cookie"\ncookie = "SID"\npath = "/a"')
    (cookie,) = [one for one in read_plan(compiled(served(text)))["classes"] if one["cookie_names"]]
    names = {name for name, bit in CLASS_FLAGS.items() if cookie["flags"] & bit}
    assert {name for name in names if "follows" in name} == {
        "follows_domain", "follows_secure", "follows_same_site",
    }  # fmt: skip


def test_units_round_up_and_only_zero_is_zero() -> None:
    assert [ticks(ms) for ms in (0, 1, 100, 101)] == [0, 1, 1, 2]
    assert [seconds(ms) for ms in (0, 1, 1000, 1001)] == [0, 1, 1, 2]


def test_the_example_of_a_smooth_schedule() -> None:
    assert schedule([5, 1, 1]) == [0, 0, 1, 0, 2, 0, 0]
    assert schedule([2, 2]) == [0, 1]
    assert schedule([0, 4, 0]) == [1]
    assert schedule([0, 0]) == []
    assert schedule([]) == []


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_each_node_stands_in_the_schedule_by_its_weight(weights: list[int]) -> None:
    order = schedule(weights)
    if not any(weights):
        assert order == []
        return
    counts = Counter(order)
    factor = sum(weights) // len(order)
    assert {index: counts[index] * factor for index in range(len(weights))} == dict(
        enumerate(weights)
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 256), min_size=1, max_size=4096))
def test_a_schedule_is_never_too_long_and_forgets_nobody(weights: list[int]) -> None:
    order = schedule(weights)
    assert len(order) <= plan.SCHEDULE_MAX
    assert set(order) == {index for index, weight in enumerate(weights) if weight}


def test_the_largest_schedule_is_quick_and_fair() -> None:
    weights = [1 + index % 256 for index in range(4096)]
    counts = Counter(schedule(weights))
    assert len(counts) == 4096
    assert counts[255] > 10 * counts[0]


def test_a_sealed_plan_cannot_be_changed() -> None:
    fd = seal(b"blob", 3)
    try:
        assert os.pread(fd, 100, 0) == b"blob"
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == 15
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 1)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


def test_the_quickstart_compiles() -> None:
    cfg = check_file(ROOT / "examples/quickstart.toml").config
    assert cfg is not None
    assert [pool["name"] for pool in read_plan(compiled(cfg))["pools"]] == ["web"]
