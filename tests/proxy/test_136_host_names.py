"""Host names as nodes: addresses that come, go and come back, while users have sessions there."""

import pytest

from tests.harness import HttpNode, changed, proxy, settings, sticky, until
from tests.harness.dns_server import DnsServer
from tests.harness.lasting import lasting
from tests.harness.operator import here, pool_of, status_of


@pytest.fixture
def dns():
    with DnsServer() as server:
        yield server


@pytest.fixture
def abc():
    """Nodes at addresses of their own and one port."""
    with HttpNode("a") as a:
        nodes = [HttpNode(name) for name in "bc"]
        for node in nodes:
            node.port = a.port
            node.start()
        yield a, *nodes
        for node in nodes:
            node.stop()


def named(dns, *nodes, make=settings, **more):
    config = make(*nodes, **more)
    config["proxy"]["resolvers"] = [dns.address]
    return config


def states(p, pool="web"):
    return {node["address"]: node["state"] for node in pool_of(p, pool)}


def wait_states(p, wanted):
    until(lambda: states(p) == wanted, f"nodes {wanted}")


def row_of(p, node):
    (found,) = [one for one in pool_of(p) if one["address"] == node.address]
    return found


def test_each_address_of_a_name_is_a_node(dns, abc):
    a, b, c = abc
    dns.say("app.test", b.host, a.host, ttl=3600)
    config = named(dns, {"address": f"APP.test.:{a.port}", "weight": 3}, c)
    with proxy(config) as p:
        rows = pool_of(p)
        assert [one["address"] for one in rows] == [a.address, b.address, c.address]
        assert [one["weight"] for one in rows] == [3, 3, 1]
        host = f"app.test:{a.port}"
        assert [one["host"] for one in rows] == [host, host, None]
        assert {p.get().node for _ in range(6)} == {"a", "b", "c"}
        (name,) = status_of(p)["pools"]["web"]["hosts"]
        assert name["name"] == host
        assert name["addresses"] == [a.host, b.host]
        assert (name["held"], name["error"]) == ([], None)
        assert 3000 < name["next_seconds"] <= 3600
        done = here("drain", "app.test", "-c", str(p.file))
        assert done.stdout.count("up -> draining") == 2
        assert states(p)[c.address] == "up"
    assert sorted(dns.asked) == [("app.test", "A"), ("app.test", "AAAA")]


def test_addresses_that_come_and_go(dns, abc):
    a, b, c = abc
    dns.say("app.test", a.host, b.host)
    with proxy(named(dns, f"app.test:{a.port}", make=sticky)) as p:
        user = p.user("alice")
        home = {"a": a, "b": b}[user.get().node]
        other = b if home is a else a
        dns.say("app.test", other.host, c.host)
        wait_states(p, {other.address: "up", c.address: "up", home.address: "draining"})
        assert row_of(p, home)["asked"] == "draining"
        assert user.get().node == home.name
        newcomers = {p.get(source=f"127.0.63.{n}").node for n in range(1, 5)}
        assert newcomers == {other.name, c.name}
        assert f'{home.address} of [pools.web]: "app.test" leads there no more' in p.stderr()
        dns.say("app.test", a.host, b.host, c.host)
        wait_states(p, dict.fromkeys((a.address, b.address, c.address), "up"))
        assert user.get().node == home.name
        assert len(set(user.nodes)) == 1
        generation = status_of(p)["generation"]
        dns.wait_asked("app.test", 2)
        assert status_of(p)["generation"] == generation
        assert f'"app.test" leads to {c.host} too' in p.stderr()


def test_an_address_is_taken_out_once_that_ends_no_session(dns, abc):
    a, b, _ = abc
    dns.say("app.test", a.host, b.host)
    config = named(dns, f"app.test:{a.port}", persistence={"type": "ip", "expiry": "1h"})
    with proxy(config) as p:
        sources = [f"127.0.61.{n}" for n in range(1, 7)]
        homes = {source: p.get(source=source).node for source in sources}
        assert set(homes.values()) == {"a", "b"}
        dns.say("app.test", a.host)
        wait_states(p, {a.address: "up", b.address: "draining"})
        assert {source: p.get(source=source).node for source in sources} == homes
        here("sessions", "delete", "--class", "shop", "--node", b.address, "-c", str(p.file))
        wait_states(p, {a.address: "up"})
        assert f'{b.address} of [pools.web] is taken out: "app.test", nobody needs it' in p.stderr()
        assert {p.get(source=source).node for source in sources} == {"a"}


def test_an_address_is_taken_out_when_its_time_is_over(dns, abc):
    a, b, _ = abc
    dns.say("app.test", a.host, b.host)
    pool = {"resolve_hold": "1s"}
    with proxy(named(dns, f"app.test:{a.port}", make=sticky, pool=pool)) as p:
        user = p.user("alice")
        home = {"a": a, "b": b}[user.get().node]
        other = b if home is a else a
        dns.say("app.test", other.host)
        wait_states(p, {other.address: "up"})
        assert "its time is over" in p.stderr()
        assert user.get().node == other.name


def test_a_rotating_answer_breaks_no_session(dns, abc):
    """Two of three addresses each time, as large names are answered."""
    a, b, c = abc
    dns.say("app.test", a.host, b.host, c.host)
    with proxy(named(dns, f"app.test:{a.port}", make=sticky, workers=2)) as p:
        users = [p.user(f"u{n}", source=f"127.0.62.{n + 1}") for n in range(6)]
        for user in users:
            user.get()
        assert {user.nodes[0] for user in users} == {"a", "b", "c"}
        generation = status_of(p)["generation"]
        for out in (a, b, c):
            left = [node for node in abc if node is not out]
            dns.say("app.test", *(node.host for node in left))
            until(lambda out=out: states(p)[out.address] == "draining", f"{out.name} drains")
            for user in users:
                user.get()
        assert {len(set(user.nodes)) for user in users} == {1}
        assert status_of(p)["generation"] == generation  # no plan was made of it


def test_a_name_that_cannot_be_resolved_is_a_warning(dns, abc):
    a, b, _ = abc
    with proxy(named(dns, f"app.test:{a.port}", b)) as p:
        assert "[FLB-S183]" in p.stderr()
        assert 'host name "app.test": there is no such name; there are no nodes of it yet' in (
            p.stderr()
        )
        assert states(p) == {b.address: "up"}
        assert p.get().node == "b"
        dns.say("app.test", a.host, ttl=3600)
        wait_states(p, {a.address: "up", b.address: "up"})
        assert p.stderr().count("FLB-S183") == 1


def test_a_pool_of_a_name_alone_answers_503_until_it_is_known(dns, abc):
    dns.mode = "silent"
    with proxy(named(dns, f"app.test:{abc[0].port}")) as p:
        assert states(p) == {}
        assert p.get().status == 503
        dns.mode = "well"
        dns.say("app.test", abc[0].host)
        wait_states(p, {abc[0].address: "up"})
        assert p.get().node == "a"


@pytest.mark.parametrize("mode", ["silent", "failing", "gone"])
def test_what_was_known_stays_when_dns_fails(dns, abc, mode):
    a, b, _ = abc
    dns.say("app.test", a.host, b.host)
    with proxy(named(dns, f"app.test:{a.port}", make=sticky)) as p:
        if mode == "gone":
            dns.forget("app.test")
        else:
            dns.mode = mode
        until(lambda: "[FLB-S183]" in p.stderr(), "the failure is said", limit=20)
        assert "its last addresses stay" in p.stderr()
        dns.wait_asked("app.test")
        assert p.stderr().count("FLB-S183") == 1
        assert states(p) == {a.address: "up", b.address: "up"}
        dns.mode = "well"
        dns.say("app.test", b.host)
        wait_states(p, {a.address: "draining", b.address: "up"})
        assert '"app.test" is answered again' in p.stderr()


def test_one_kind_of_address_that_fails_keeps_what_was_known_of_it(dns):
    with HttpNode("six", host="::1") as six, HttpNode("four") as four:
        four.stop()
        four.port = six.port
        four.start()
        dns.say("app.test", four.host, "::1")
        with proxy(named(dns, f"app.test:{six.port}")) as p:
            both = {four.address: "up", six.address: "up"}
            assert states(p) == both
            dns.mode, dns.only = "failing", "AAAA"
            dns.wait_asked("app.test", 2)
            assert states(p) == both
            assert "FLB-S183" not in p.stderr()


def test_a_reload_keeps_names_and_learns_new_ones(dns, abc):
    a, b, c = abc
    dns.say("app.test", a.host, ttl=3600)
    config = named(dns, f"app.test:{a.port}", make=sticky)
    with proxy(config) as p:
        user = p.user("alice")
        user.get()
        asked = len(dns.asked)
        assert p.reload(changed(config, "timeouts.keep_alive", "59s")).returncode == 0
        assert len(dns.asked) == asked
        dns.say("more.test", b.host, c.host, ttl=3600)
        more = [f"app.test:{a.port}", f"more.test:{a.port}"]
        assert p.reload(changed(config, "pools.web.nodes", more)).returncode == 0
        assert states(p) == dict.fromkeys((a.address, b.address, c.address), "up")
        assert user.get().node == "a"
        # A reload that fails leaves all as it was.
        bad = changed(config, "pools.web.nodes", [f"app.test:{a.port}:80"])
        assert p.reload(bad).returncode != 0
        assert states(p) == dict.fromkeys((a.address, b.address, c.address), "up")
        assert p.reload(config).returncode == 0
        assert states(p) == {a.address: "up"}


def test_changes_by_command_hold_while_names_change(dns, abc):
    a, b, c = abc
    dns.say("app.test", a.host)
    with proxy(named(dns, f"app.test:{a.port}", make=sticky)) as p:
        assert here("node", "add", b.address, "--pool", "web", "-c", str(p.file)).returncode == 0
        assert here("node", "weight", a.address, "5", "-c", str(p.file)).returncode == 0
        here("disable", a.address, "-c", str(p.file))
        dns.say("app.test", a.host, c.host)
        wait_states(p, {a.address: "disabled", b.address: "up", c.address: "up"})
        assert row_of(p, a)["weight"] == 5
        dns.say("app.test", c.host)
        dns.wait_asked("app.test", 2)
        assert row_of(p, a)["state"] == "disabled"
        done = here("node", "add", f"more.test:{a.port}", "--pool", "web", "-c", str(p.file))
        assert done.returncode == 1
        assert "a host name is followed from the file on" in done.stderr


def test_an_address_listed_by_itself_stays_what_it_is(dns, abc):
    a, b, _ = abc
    dns.say("app.test", a.host, b.host)
    with proxy(named(dns, f"app.test:{a.port}", {"address": a, "weight": 7})) as p:
        assert (row_of(p, a)["weight"], row_of(p, a)["host"]) == (7, None)
        dns.say("app.test", b.host)
        dns.wait_asked("app.test", 2)
        assert states(p) == {a.address: "up", b.address: "up"}


def test_no_more_than_64_addresses(dns):
    dns.say("app.test", *(f"127.0.70.{n}" for n in range(1, 81)))
    with proxy(named(dns, "app.test:80")) as p:
        assert len(states(p)) == 64
        assert 'host name "app.test" has 80 addresses; the first 64 are nodes [FLB-S184]' in (
            p.stderr()
        )
        dns.wait_asked("app.test", 2)
        assert p.stderr().count("FLB-S184") == 1


def test_monitors_check_each_address_by_its_name(dns, abc):
    a, b, c = abc
    dns.say("app.test", a.host, b.host)
    config = named(dns, f"app.test:{a.port}", pool={"monitors": ["check"]})
    config["monitors"] = {
        "check": {"type": "http", "interval": "100ms", "fast_interval": "100ms", "timeout": "5s"}
    }
    with proxy(config) as p:
        b.stop()
        wait_states(p, {a.address: "up", b.address: "down"})
        before = row_of(p, a)["monitors"][0]["checks"]
        dns.say("app.test", a.host, b.host, c.host)
        wait_states(p, {a.address: "up", b.address: "down", c.address: "up"})
        until(lambda: row_of(p, c)["monitors"][0]["checks"], "c is checked")
        assert row_of(p, a)["monitors"][0]["checks"] >= before
        b.start()
        wait_states(p, dict.fromkeys((a.address, b.address, c.address), "up"))
        assert {one.get("Host") for one in c.requests} == {f"app.test:{a.port}".encode()}


def test_names_of_the_hosts_file_and_no_dns(dns):
    with HttpNode("a", host="127.0.0.1") as a:
        with proxy(named(dns, f"localhost:{a.port}")) as p:
            assert states(p)[a.address] == "up"
            assert {p.get().node for _ in range(3)} == {"a"}
    assert dns.asked == []


def test_addresses_for_which_there_is_no_room_change_nothing(dns, abc):
    a = abc[0]
    many = [f"127.0.{72 + n // 250}.{n % 250 + 1}:9" for n in range(4090)]
    dns.say("app.test", a.host)
    with proxy(named(dns, f"app.test:{a.port}", *many)) as p:
        dns.say("app.test", *(f"127.0.70.{n}" for n in range(1, 20)))
        until(lambda: "[FLB-S185]" in p.stderr(), "that they are not in force")
        assert len(states(p)) == 4091
        assert states(p)[a.address] == "up"
        dns.say("app.test", "127.0.70.1", "127.0.70.2")
        until(lambda: len(states(p)) == 4093, "those for which there is room")


def test_another_control_process_goes_on_with_the_addresses_it_cannot_ask_for(dns, abc):
    a, b, _ = abc
    dns.say("app.test", a.host, b.host)
    config = named(dns, f"app.test:{a.port}", make=sticky)
    config["monitors"] = {"check": {"type": "http", "interval": "1h", "start": "down"}}
    config["pools"]["web"]["monitors"] = ["check"]
    with lasting(config) as p:
        both = {a.address: "up", b.address: "up"}
        wait_states(p, both)
        user = p.user("alice")
        user.get()
        dns.mode = "failing"
        for node in (a, b):
            node.script = lambda exchange: exchange.wait_end()  # and no check succeeds
        p.crash()
        p.start()
        assert states(p) == both
        assert "FLB-S183" in p.stderr()
