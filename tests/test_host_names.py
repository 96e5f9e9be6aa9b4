"""Host names: what a configuration becomes, what files and answers say, what is held."""

import asyncio
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb import name_watch, resolver
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.host_names import NOTHING, Known, expand, host_of, names_of
from fastlb.name_watch import NameWatch
from fastlb.resolver import TTL_MAX_S, Found, HostsFile, Resolver, Unresolved
from fastlb.slots import NodeKey
from fastlb.units import IP, HostAddress, InetAddress
from tests.harness.dns_server import DnsServer

APP = HostAddress("app.test", 80)


def ips(*texts: str) -> tuple[IP, ...]:
    return tuple(map(ipaddress.ip_address, texts))


def config(nodes: str, pool: str = "", other: str = "") -> Config:
    text = '[virtual_servers.a]\nlisten = "127.0.0.1:1"\npool = "web"\n'
    text += f"[pools.web]\nnodes = [{nodes}]\n{pool}\n{other}"
    found = check_text(text, Path("x"))
    assert found.config is not None, found.errors
    return found.config


def addresses(cfg: Config, pool: str = "web") -> list[str]:
    return [str(node.address) for node in cfg.pools[pool].nodes]


# --- how they are written ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app.internal:80", "app.internal:80"),
        ("App.Internal.:80", "app.internal:80"),
        ("localhost:8080", "localhost:8080"),
        ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
        ("_srv.db-1:65535", "_srv.db-1:65535"),
        ("1password.example:80", "1password.example:80"),
    ],
)
def test_a_name(text: str, name: str) -> None:
    (node,) = config(f'"{text}"').pools["web"].nodes
    assert isinstance(node.address, HostAddress)
    assert str(node.address) == name


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("app.internal", "FLB-C023"),
        ("app.internal:0", "FLB-C024"),
        ("app.internal:http", "FLB-C024"),
        ("10.0.0.256:80", "FLB-C022"),
        ("10.0.0:80", "FLB-C022"),
        ("-app:80", "FLB-C022"),
        ("a..b:80", "FLB-C022"),
        ("a b:80", "FLB-C022"),
        ("unix:/run/x.sock", "FLB-C022"),
        (f"{'a' * 64}.test:80", "FLB-C022"),
        (f"{'a.' * 130}test:80", "FLB-C022"),
        ("bücher.example:80", "FLB-C022"),
        ("::1:80", "FLB-C023"),
    ],
)
def test_no_name_and_no_address(text: str, code: str) -> None:
    found = check_text(
        '[virtual_servers.a]\nlisten = "127.0.0.1:1"\npool = "web"\n'
        f'[pools.web]\nnodes = ["{text}"]\n',
        Path("x"),
    )
    assert [problem.code for problem in found.errors] == [code]


# --- what a configuration becomes ---


def test_without_names_a_configuration_is_what_it_is() -> None:
    cfg = config('"10.0.0.1:80"')
    assert expand(cfg, NOTHING) is cfg


def test_a_node_for_each_address() -> None:
    cfg = config('"10.0.0.9:80", { address = "app.test:80", weight = 3 }, "more.test:81"')
    assert names_of(cfg) == {
        "app.test": [("web", APP)],
        "more.test": [("web", HostAddress("more.test", 81))],
    }
    assert addresses(expand(cfg, NOTHING)) == ["10.0.0.9:80"]
    known = Known(
        {"app.test": ips("10.0.0.2", "10.0.0.1", "::1"), "more.test": ips("10.0.0.2")},
        {("web", APP): ips("10.0.0.0", "10.0.0.1"), ("other", APP): ips("10.0.0.7")},
    )
    done = expand(cfg, known)
    assert addresses(done) == [
        "10.0.0.9:80", "10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "10.0.0.2:81",
    ]  # fmt: skip
    assert [node.weight for node in done.pools["web"].nodes] == [1, 3, 3, 3, 3, 1]
    leaving = [one.leaving for one in done.hosts.values()]
    assert sorted(leaving) == [False] * 4 + [True]
    assert done.hosts["web", InetAddress(*ips("10.0.0.0"), 80)].leaving
    assert [host_of(done, "web", node) for node in done.pools["web"].nodes[:2]] == [None, APP]


def test_one_address_is_one_node() -> None:
    cfg = config('"app.test:80", "more.test:80", "10.0.0.1:80"')
    both = ips("10.0.0.1", "10.0.0.2")
    done = expand(cfg, Known({"app.test": both, "more.test": both}, {}))
    assert addresses(done) == ["10.0.0.2:80", "10.0.0.1:80"]
    held = Known({"more.test": ips("10.0.0.2")}, {("web", APP): ips("10.0.0.2")})
    done = expand(cfg, held)
    assert [one.leaving for one in done.hosts.values()] == [False]


@given(
    st.lists(st.sampled_from("abcdef"), unique=True, max_size=6),
    st.lists(st.sampled_from("abcdef"), unique=True, max_size=6),
)
@settings(max_examples=50)
def test_the_plan_depends_on_who_is_there_and_not_on_who_leaves(
    now: list[str], held: list[str]
) -> None:
    number = {letter: ips(f"10.0.0.{ord(letter)}")[0] for letter in "abcdef"}
    cfg = config('"app.test:80"')
    current = tuple(number[one] for one in now)
    away = tuple(number[one] for one in held if one not in now)
    first = expand(cfg, Known({"app.test": current}, {("web", APP): away}))
    second = expand(cfg, Known({"app.test": away}, {("web", APP): current}))
    assert first.pools == second.pools
    assert sum(one.leaving for one in first.hosts.values()) == len(away)


# --- what answers ---


def test_the_hosts_file(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    hosts = HostsFile(file)
    assert hosts.look_up("app") == ()
    file.write_text(
        "# App\n10.0.0.1 App.Test. app # db\n::1\tapp\n\nnonsense app\n"
        "fe80::1%eth0 app\n10.0.0.1 app"
    )
    assert hosts.look_up("app") == ips("10.0.0.1", "::1")
    assert hosts.look_up("app.test") == ips("10.0.0.1")
    assert hosts.look_up("db") == ()
    assert not hosts.is_changed()
    file.write_text("10.0.0.2 app\n")
    assert hosts.is_changed()
    assert hosts.look_up("app") == ips("10.0.0.2")
    file.unlink()
    assert hosts.look_up("app") == ()


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def asked(dns: DnsServer, tmp_path: Path, name: str, *before: str) -> Found:
    one = Resolver([InetAddress(*ips(dns.host), dns.port)], HostsFile(tmp_path / "hosts"))
    return asyncio.run(one.look_up(name, ips(*before)))


@pytest.mark.parametrize(("ttl", "kept"), [(0, 1), (1, 1), (300, 300), (999_999, TTL_MAX_S)])
def test_an_answer_in_order_and_its_ttl(
    dns: DnsServer, tmp_path: Path, ttl: int, kept: float
) -> None:
    dns.say("app.test", "::1", "10.0.0.10", "10.0.0.9", "0.0.0.0", "224.0.0.1", ttl=ttl)
    assert asked(dns, tmp_path, "app.test") == Found(ips("10.0.0.9", "10.0.0.10", "::1"), kept)


def test_names_without_an_address(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("none.test")
    dns.say("nowhere.test", "0.0.0.0")
    for name, why in (
        ("gone.test", "there is no such name"),
        ("none.test", "it has no address"),
        ("nowhere.test", "it has no address that can be connected to"),
    ):
        with pytest.raises(Unresolved, match=why):
            asked(dns, tmp_path, name, "10.0.0.1")


def test_half_an_answer(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("app.test", "10.0.0.1", "::1", ttl=600)
    dns.mode, dns.only = "failing", "AAAA"
    found = asked(dns, tmp_path, "app.test", "10.0.0.7", "::2")
    assert found == Found(ips("10.0.0.1", "::2"), resolver.HALF_TTL_S)
    dns.only = None
    with pytest.raises(Unresolved, match="refuse to answer, or fail"):
        asked(dns, tmp_path, "app.test", "10.0.0.7")


# --- over time ---


class Story:
    """A name whose answers are given, and a clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.changes = 0
        self.answers: dict[str, Found | Unresolved] = {}
        monkeypatch.setattr(name_watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Resolver, "look_up", self._look_up)
        self.watch = NameWatch(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def _look_up(self, name: str, before: tuple[IP, ...] = ()) -> Found:
        found = self.answers[name]
        if isinstance(found, Unresolved):
            raise found
        return found

    async def say(self, *texts: str, name: str = "app.test", more: int = 0) -> None:
        self.answers[name] = Found(ips(*texts), 60, more) if texts else Unresolved("gone")
        if name in self.watch.names:
            await self.watch._ask(self.watch.names[name])

    async def use(self, cfg: Config) -> None:
        await self.watch.learn(cfg)
        self.watch.settle(cfg)

    def held(self, place: tuple[str, HostAddress] = ("web", APP)) -> tuple[IP, ...]:
        return self.watch.known.held.get(place, ())


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


def test_what_leaves_is_held_and_let_go(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await story.say("10.0.0.1", "10.0.0.2")
        await story.use(config('"app.test:80"', 'resolve_hold = "10s"'))
        assert story.watch.known.addresses == {"app.test": ips("10.0.0.1", "10.0.0.2")}
        for _ in range(3):  # an answer that rotates
            await story.say("10.0.0.1")
            assert story.held() == ips("10.0.0.2")
            story.now += 9
            story.watch.expire()
            await story.say("10.0.0.2", "10.0.0.1")
            assert story.held() == ()
        await story.say("10.0.0.1", "10.0.0.3")
        story.now += 9
        await story.say("10.0.0.3")
        story.watch.expire()
        assert story.held() == ips("10.0.0.2", "10.0.0.1")
        before = story.changes
        story.now += 1
        story.watch.expire()
        assert (story.held(), story.changes) == (ips("10.0.0.1"), before + 1)
        story.watch.expire([NodeKey("web", "10.0.0.1", 80), NodeKey("web", "10.0.0.3", 80)])
        assert (story.held(), story.watch.held) == ((), {})
        story.watch.close()

    asyncio.run(main())
    said = capsys.readouterr().err
    assert said.count("10.0.0.2:80 of [pools.web]") == 2  # it drains; it is taken out


def test_what_was_no_node_is_not_held(story: Story) -> None:
    async def main() -> None:
        story.watch.in_use = lambda pool, address: str(address) == "10.0.0.1:80"
        await story.say("10.0.0.1", "10.0.0.2")
        await story.use(config('"app.test:80"'))
        await story.say("10.0.0.3")
        assert story.held() == ips("10.0.0.1")
        story.watch.close()

    asyncio.run(main())


def test_failures_keep_what_is_known_and_are_said_once(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        await story.say("10.0.0.1")
        await story.use(config('"app.test:80"'))
        waits = []
        story.answers["app.test"] = Unresolved("gone")
        for _ in range(9):
            waits.append(await story.watch._ask(story.watch.names["app.test"]))
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert story.watch.known.addresses == {"app.test": ips("10.0.0.1")}
        assert story.held() == ()
        (row,) = story.watch.shown("web")
        assert (row["error"], row["addresses"]) == ("gone", ["10.0.0.1"])
        await story.say("10.0.0.1")
        assert story.watch.shown("web")[0]["error"] is None
        story.watch.close()

    asyncio.run(main())
    said = capsys.readouterr().err
    assert said.count("FLB-S183") == 1
    assert said.count("is answered again") == 1


def test_each_pool_holds_for_itself(story: Story) -> None:
    async def main() -> None:
        other = '[pools.other]\nnodes = ["app.test:81"]\nresolve_hold = "0s"\n'
        await story.say("10.0.0.1", "10.0.0.2")
        cfg = config('"app.test:80"', other=other)
        await story.use(cfg)
        await story.say("10.0.0.1")
        assert list(story.watch.held) == [("web", APP)]
        done = expand(cfg, story.watch.known)
        assert addresses(done) == ["10.0.0.1:80", "10.0.0.2:80"]
        assert addresses(done, "other") == ["10.0.0.1:81"]
        await story.use(config('"10.0.0.5:80"'))
        assert (story.watch.names, story.watch.held) == ({}, {})

    asyncio.run(main())


def test_a_configuration_that_is_not_used_after_all_forgets_nothing(story: Story) -> None:
    async def main() -> None:
        first = config('"app.test:80"')
        await story.say("10.0.0.1", "10.0.0.2")
        await story.use(first)
        await story.say("10.0.0.1")
        story.answers["new.test"] = Unresolved("gone")
        await story.watch.learn(config('"new.test:80"'))
        story.watch.settle(first)
        assert list(story.watch.names) == ["app.test"]
        assert story.held() == ips("10.0.0.2")
        story.watch.close()

    asyncio.run(main())


def test_what_another_control_process_knew_is_kept_or_held(story: Story) -> None:
    async def main() -> None:
        story.answers["app.test"] = Unresolved("gone")
        await story.say("10.0.0.9", name="more.test")
        await story.use(config('"app.test:80", "more.test:81"'))
        story.watch.remember(
            [
                ("web", "app.test:80", "10.0.0.1"),
                ("web", "app.test:80", "10.0.0.2"),
                ("web", "more.test:81", "10.0.0.8"),
                ("web", "more.test:81", "10.0.0.9"),
                ("web", "other.test:80", "10.0.0.3"),
                ("other", "app.test:80", "10.0.0.4"),
                ("web", "app.test:80", "nonsense"),
            ]
        )
        known = story.watch.known
        assert known.addresses["app.test"] == ips("10.0.0.1", "10.0.0.2")
        assert known.held == {("web", HostAddress("more.test", 81)): ips("10.0.0.8")}
        story.watch.close()

    asyncio.run(main())


def test_too_many_addresses_are_said_once(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await story.say("10.0.0.1", more=7)
        await story.use(config('"app.test:80"'))
        await story.say("10.0.0.1", more=7)
        story.watch.close()

    asyncio.run(main())
    assert capsys.readouterr().err.count("has 8 addresses; the first 64 are nodes [FLB-S184]") == 1
