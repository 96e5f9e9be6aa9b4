"""The NetScaler appliance's cookie: its name, its value, its age, and the encrypted form."""

import re
from email.utils import parsedate_to_datetime

import pytest

from fastlb.class_id import server_cookie_name
from tests.harness import HttpNode, RawNode, changed, proxy, reply, settings, until
from tests.harness.client import curl

NAME = server_cookie_name("shop")
PLAIN = re.compile(r"ffffffff[0-9a-f]{8}45525d5f4f58455e445a4a42[0-9a-f]{4}")
SEALED = re.compile(r"[A-Za-z0-9_-]{47}|[A-Za-z0-9_-]{58}")
OLD, NEW = "an older passphrase", "the newer passphrase"


@pytest.fixture
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


@pytest.fixture
def passphrases(tmp_path):
    """Writes the file; later calls write it anew."""

    def write(*lines):
        file = tmp_path / "passphrases"
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)
        return str(file)

    return write


def insert(*nodes, **more):
    known = {"classes", "pool", "server", "workers"}
    keys = {key: more.pop(key) for key in list(more) if key not in known}
    return settings(*nodes, persistence={"type": "cookie-insert", **keys}, **more)


def two_servers(*nodes, **keys):
    """Two virtual servers, two pools with the same nodes, one class."""
    config = insert(*nodes, **keys)
    other = {**config["virtual_servers"]["shop"], "pool": "more"}
    config["virtual_servers"]["lb_test"] = {**other, "listen": list(other["listen"])}
    config["pools"]["more"] = dict(config["pools"]["web"])
    return config


def value_for(node):
    """What the appliance writes for a node."""
    address, port = node.host, node.port
    number = int.from_bytes(bytes(map(int, address.split("."))), "big")
    return f"ffffffff{number ^ 0x03081E11:08x}45525d5f4f58455e445a4a42{port ^ 0x3630:04x}"


def parts(answer):
    """Name, value and attributes of the only Set-Cookie."""
    (line,) = answer.all("Set-Cookie")
    pair, *attributes = line.decode().split("; ")
    name, _, value = pair.partition("=")
    return name, value, attributes


def outcome(p, target, cookie):
    p.get(target, ("Cookie", cookie))
    return p.log_of(target)["outcome"]


# ---- as the appliance does it ----


def test_the_first_answer_names_the_node_and_the_next_ones_set_nothing(abc):
    with proxy(insert(*abc)) as p:
        for user in [p.user(f"u{n}") for n in range(4)]:
            name, value, attributes = parts(user.get())
            (node,) = [one for one in abc if one.name == user.nodes[0]]
            assert (name, value) == (NAME, value_for(node))
            assert PLAIN.fullmatch(value)
            assert attributes == ["Path=/", "HttpOnly"]
            for _ in range(5):
                assert user.get().all("Set-Cookie") == []
            assert set(user.nodes) == {node.name}
        assert p.status()["workers"][0]["gil_acquisitions"] == 0


def test_curl_with_the_appliances_value_gets_its_node(abc):
    with proxy(insert(*abc)) as p:
        host, port = p.address()
        for node in abc:
            for value in (
                value_for(node),
                value_for(node).upper(),
                "09a3c1d7" + value_for(node)[8:],
                value_for(node)[:16] + "0123456789abcdef01234567" + value_for(node)[40:],
            ):
                done = curl("-i", "-b", f"x=1; {NAME}={value}", f"http://{host}:{port}/")
                assert f'"node": "{node.name}"'.encode() in done.stdout
                assert b"Set-Cookie" not in done.stdout


@pytest.mark.parametrize("keep", ["host", "port", "neither"])
def test_a_node_that_the_pool_lacks_is_never_obeyed(abc, keep):
    a, b, c = abc
    with HttpNode("stranger") as stranger, proxy(insert(a, b, c)) as p:
        value = value_for(stranger)
        if keep == "port":
            value = value[:40] + value_for(a)[40:]
        if keep == "host":
            # The appliance's rule and ours: the only node of that address is meant.
            value = value_for(a)[:40] + value[40:]
        answer = p.get("/x", ("Cookie", f"{NAME}={value}"))
        line = p.log_of("/x")
        if keep == "host":
            assert (answer.node, line["outcome"]) == ("a", "moved")
        else:
            assert line["outcome"] == "unknown-node"
        assert PLAIN.fullmatch(parts(answer)[1])
        assert stranger.requests == []


@pytest.mark.parametrize(
    "value", ["", "x", "ffffffff", "g" * 44, "0" * 43, "0" * 45, "%", '"', "\xff" * 44, "0" * 4000]
)
def test_garbage_is_tampered_and_replaced(abc, value):
    with proxy(insert(*abc)) as p:
        answer = p.get("/x", ("Cookie", f"a=1; {NAME}={value}"))
        assert p.log_of("/x")["outcome"] == "tampered"
        assert PLAIN.fullmatch(parts(answer)[1])
        seen = [v for k, v in answer.json()["fields"] if k == "Cookie"]
        assert seen == ["a=1"]


def test_the_first_valid_one_of_several_fields_counts(abc):
    a, b, _ = abc
    with proxy(insert(*abc)) as p:
        fields = [("Cookie", f"{NAME}=x; {NAME}={value_for(b)}"), ("Cookie", f"{NAME}=1")]
        answer = p.get("/", *fields, ("Cookie", f"{NAME}={value_for(a)}"))
        assert (answer.node, answer.all("Set-Cookie")) == ("b", [])
        assert [v for k, v in answer.json()["fields"] if k == "Cookie"] == []


# ---- names ----


def test_each_virtual_server_has_its_own_name_and_knows_the_others(abc):
    with proxy(two_servers(*abc)) as p:
        user = p.user("alice")
        assert parts(user.get())[0] == "NSC_tipq"
        home = user.nodes[0]
        user.address = p.address("lb_test")
        name, value, _ = parts(user.get())
        assert (name, user.nodes[-1]) == ("NSC_mc_uftu", home)
        assert value == user.cookies["NSC_tipq"]
        for server in ("lb_test", "shop") * 2:
            user.address = p.address(server)
            answer = user.get()
            assert answer.all("Set-Cookie") == []
            assert [k for k, _ in answer.json()["fields"]].count("Cookie") == 0
    assert set(user.nodes) == {home}


def test_the_own_name_wins_over_another_servers(abc):
    a, b, _ = abc
    with proxy(two_servers(*abc)) as p:
        own, others = f"NSC_mc_uftu={value_for(b)}", f"NSC_tipq={value_for(a)}"
        for cookie in (f"{own}; {others}", f"{others}; {own}"):
            with p.client(server="lb_test") as client:
                answer = client.ask("/", ("Cookie", cookie))
            assert (answer.node, answer.all("Set-Cookie")) == ("b", [])


def test_a_name_can_be_chosen_for_all(abc):
    with proxy(two_servers(*abc, name="SRV")) as p:
        user = p.user("alice")
        assert parts(user.get())[0] == "SRV"
        user.address = p.address("lb_test")
        assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


def test_a_session_that_failed_is_forgotten_under_every_name(abc):
    config = two_servers(*abc, failure_mode="redirect", redirect_url="/sorry")
    nodes = {node.name: node for node in abc}
    with proxy(config) as p:
        user = p.user("alice")
        user.get()
        user.address = p.address("lb_test")
        user.get()
        assert len(user.cookies) == 2
        nodes[user.nodes[0]].stop()
        assert user.get().status == 302
        assert user.cookies == {}
        assert user.get().status == 200


# ---- attributes and dates ----


@pytest.mark.parametrize(
    ("keys", "attributes"),
    [
        ({"http_only": False}, ["Path=/"]),
        ({"path": "/shop", "domain": "shop.test"}, ["Path=/shop", "Domain=shop.test", "HttpOnly"]),
        ({"secure": True, "same_site": "none"}, ["Path=/", "HttpOnly", "Secure", "SameSite=None"]),
        ({"version": 0}, ["Path=/", "HttpOnly"]),
        ({"version": 1}, ["Path=/", "HttpOnly"]),
        ({"version": 1, "timeout": "1h"}, ["Path=/", "Max-Age=3600", "HttpOnly"]),
        ({"timeout": "1h", "max_lifetime": "10m"}, ["Path=/", "Max-Age=600", "HttpOnly"]),
        ({"directives": "Priority=High"}, ["Path=/", "HttpOnly", "Priority=High"]),
    ],
)
def test_attributes_are_as_configured(keys, attributes):
    with HttpNode("a") as a, proxy(insert(a, **keys)) as p:
        assert parts(p.get())[2] == attributes


def expires_in(p):
    """Seconds from the proxy's own Date to the Expires of its cookie, and the attributes."""
    _, _, (*attributes, last) = parts(p.get())
    name, _, date = last.partition("=")
    assert name == "Expires"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    with p.client() as client:
        client.send(b"GET / HTTP/9.9\r\n\r\n")  # what the proxy itself answers has its Date
        now = client.response().get("Date").decode()
    return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds(), attributes


def test_version_0_writes_a_date_in_gmt_of_each_response():
    with HttpNode("a") as a, proxy(insert(a, version=0, timeout="1h")) as p:
        for _ in range(2):
            seconds, attributes = expires_in(p)
            assert 3600 - 20 <= seconds <= 3600
            assert attributes == ["Path=/", "HttpOnly"]
        first = parts(p.get())[2]
        until(lambda: parts(p.get())[2] != first, "another date in a later response")


def test_version_0_takes_the_shorter_of_both_ages():
    config = {"version": 0, "timeout": "2h", "max_lifetime": "30m"}
    with HttpNode("a") as a, proxy(insert(a, **config)) as p:
        assert 1800 - 20 <= expires_in(p)[0] <= 1800


# ---- encrypted ----


def test_an_encrypted_cookie_keeps_the_session_and_hides_the_node(abc, passphrases):
    with proxy(insert(*abc, passphrase_file=passphrases(NEW), workers=2)) as p:
        users = [p.user(f"u{n}") for n in range(7)]
        for user in users:
            name, value, attributes = parts(user.get())
            assert (name, attributes) == (NAME, ["Path=/", "HttpOnly"])
            assert SEALED.fullmatch(value)
            for _ in range(5):
                assert user.get().all("Set-Cookie") == []
    assert [len(set(user.nodes)) for user in users] == [1] * 7
    assert {user.nodes[0] for user in users} == {"a", "b", "c"}
    values = {user.nodes[0]: user.cookies[NAME] for user in users}
    assert all(user.cookies[NAME] == values[user.nodes[0]] for user in users)


def test_a_known_cookie_costs_no_gil_and_wrong_ones_neither(abc, passphrases):
    with proxy(insert(*abc, passphrase_file=passphrases(NEW, OLD))) as p:
        user = p.user("alice")
        user.get()

        def taken():
            return p.status()["workers"][0]["gil_acquisitions"]

        before = taken()
        assert before > 0
        for _ in range(20):
            user.get()
        good = user.cookies[NAME]
        with p.client() as client:
            for number in range(300):
                wrong = good[:-1] + chr(ord("A") + number % 26) if number % 2 else f"{number:047}"
                client.ask("/", ("Cookie", f"{NAME}={wrong}"), ("User-Agent", "robot"))
        user.get()
        # New sessions of the robot: one encryption for each node that it was given.
        assert taken() <= before + len(abc)
        assert set(user.nodes) == {user.nodes[0]}


def test_rotation_by_reload_keeps_every_session_and_rewrites_the_old_ones(abc, passphrases):
    config = insert(*abc, passphrase_file=passphrases(OLD))
    with proxy(config) as p:
        user, late = p.user("alice"), p.user("bob")
        user.get(), late.get()
        old = user.cookies[NAME]
        passphrases(OLD, NEW)
        assert p.reload(config).returncode == 0
        assert user.get().all("Set-Cookie") == []
        passphrases(NEW, OLD)
        assert p.reload(config).returncode == 0
        assert parts(user.get())[1] != old
        assert user.get().all("Set-Cookie") == []
        assert len(set(user.nodes)) == 1
        passphrases(NEW)
        assert p.reload(config).returncode == 0
        assert user.get().all("Set-Cookie") == []
        assert len(set(user.nodes)) == 1
        assert outcome(p, "/old", f"{NAME}={old}") == "tampered"
        assert len(late.get().all("Set-Cookie")) == 1


def test_a_reload_with_an_unusable_file_changes_nothing(abc, passphrases):
    config = insert(*abc, passphrase_file=passphrases(NEW))
    with proxy(config) as p:
        user = p.user("alice")
        user.get()
        file = passphrases("# nothing")
        done = p.reload(config)
        assert done.returncode != 0
        assert file in done.stderr
        assert "no passphrase in it" in done.stderr
        for _ in range(4):
            assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


def test_proxies_with_one_file_read_each_others_cookies_and_others_do_not(
    abc, passphrases, tmp_path
):
    stranger = tmp_path / "elsewhere"
    stranger.write_text("a stranger's passphrase\n")
    config = insert(*abc, passphrase_file=passphrases(NEW))
    foreign = changed(config, "persistence.shop.passphrase_file", str(stranger))
    with proxy(config) as one, proxy(config) as two, proxy(foreign) as three:
        user = one.user("alice")
        user.get()
        user.address = two.address()
        assert user.get().all("Set-Cookie") == []
        cookie = f"{NAME}={user.cookies[NAME]}"
        assert outcome(three, "/x", cookie) == "tampered"
    assert len(set(user.nodes)) == 1


def test_changed_and_plain_and_other_classes_values_are_refused(abc, passphrases):
    file = passphrases(NEW)
    config = insert(*abc, passphrase_file=file, name="N", reserve="0s")
    config["persistence"]["api"] = {"type": "cookie-insert", "passphrase_file": file, "name": "M"}
    config["pools"]["api"] = {**config["pools"]["web"], "persistence": "api"}
    config["virtual_servers"]["shop"]["routes"] = [{"path": "/api/", "pool": "api"}]
    with proxy(config) as p:
        good = parts(p.get())[1]
        other = parts(p.get("/api/"))[1]
        swapped = good[:-1] + ("A" if good[-1] != "A" else "B")
        assert outcome(p, "/0", f"N={good}") == "hit"
        assert outcome(p, "/1", f"N={swapped}") == "tampered"
        assert outcome(p, "/2", f"N={value_for(abc[0])}") == "tampered"
        assert outcome(p, "/3", f"N={other}") == "other-class"
        assert outcome(p, "/4", f"N={good}=") == "tampered"


def test_an_old_cookie_that_a_client_kept_has_expired(abc, passphrases):
    keys = {"timeout": "1s", "reserve": "0s"}
    with proxy(insert(*abc, passphrase_file=passphrases(NEW), **keys)) as p:
        name, value, attributes = parts(p.get())
        assert "Max-Age=1" in attributes
        count = iter(range(10**6))

        def expired():
            return outcome(p, f"/{next(count)}", f"{name}={value}") == "expired"

        until(expired, "the kept cookie to expire")


def test_use_renews_an_encrypted_cookie_until_its_absolute_age(abc, passphrases):
    keys = {"timeout": "1s", "max_lifetime": "3s"}
    with proxy(insert(*abc, passphrase_file=passphrases(NEW), **keys)) as p:
        user = p.user("alice")
        user.get()
        first = user.cookies[NAME]

        def has(outcome):
            user.get()
            return outcome in [line["outcome"] for line in p.log_lines()]

        until(lambda: has("expired"), "the end of a session in constant use")
        lines = [line["outcome"] for line in p.log_lines()]
        assert lines[:2] == ["new", "hit"]
        assert user.cookies[NAME] != first


# ---- what all cookie classes have ----


def test_hide_cookie_false_lets_the_node_see_it(abc):
    with proxy(insert(*abc, hide_cookie=False)) as p:
        user = p.user("alice")
        user.get()
        assert ["Cookie", f"{NAME}={user.cookies[NAME]}"] in user.get().json()["fields"]


def test_a_fallback_finds_the_session_of_a_client_that_lost_its_cookie(abc):
    by_ip = {"by-ip": {"type": "ip"}}
    with proxy(insert(*abc, fallback="by-ip", classes=by_ip)) as p:
        user = p.user("alice")
        user.get()
        user.cookies.clear()
        for _ in range(4):
            assert user.get().all("Set-Cookie") == []
    assert len(set(user.nodes)) == 1


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("mode", ["new-node", "redirect", "close"])
def test_failure_modes(abc, passphrases, mode, encrypted):
    keys = {"failure_mode": mode} | ({"redirect_url": "/sorry"} if mode == "redirect" else {})
    if encrypted:
        keys["passphrase_file"] = passphrases(NEW)
    nodes = {node.name: node for node in abc}
    with proxy(insert(*abc, **keys)) as p:
        user = p.user("alice")
        user.get()
        home = user.nodes[0]
        nodes[home].stop()
        answer = user.get()
        assert answer.status == {"new-node": 200, "redirect": 302, "close": 503}[mode]
        if mode == "new-node":
            assert parts(answer)[0] == NAME
        else:
            assert user.cookies == {}
            assert user.get().status == 200
        assert user.nodes[-1] != home
        assert user.get().all("Set-Cookie") == []


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_node_that_a_reload_removed(abc, passphrases, encrypted):
    keys = {"passphrase_file": passphrases(NEW)} if encrypted else {}
    config = insert(*abc, **keys)
    with proxy(config) as p:
        user = p.user("alice")
        user.get()
        left = [node for node in abc if node.name != user.nodes[0]]
        assert p.reload(changed(config, "pools.web.nodes", left)).returncode == 0
        assert parts(user.get("/gone"))[0] == NAME
        assert p.log_of("/gone")["outcome"] == ("node-removed" if encrypted else "unknown-node")
        assert user.nodes[1] in {node.name for node in left}


def test_a_node_cannot_set_a_cookie_of_any_of_its_names():
    with RawNode(reply(200)) as node, proxy(two_servers(node)) as p:
        fields = [("Set-Cookie", "NSC_tipq=x"), ("Set-Cookie", "NSC_mc_uftu=y"), ("X-A", "1")]
        node.script = reply(200, b"", *fields)
        answer = p.get()
        assert parts(answer)[:2] == ("NSC_tipq", value_for(node))
        assert answer.get("X-A") == b"1"
