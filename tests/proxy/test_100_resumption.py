"""TLS passed through: a session is resumed, since it comes back to the node that granted it.

No two nodes share keys: "reused" is only said by the node that began the session.
"""

import random
import ssl
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.core.handshakes import certificate, client_hello, records, sni
from tests.harness import RawNode, changed, proxy, settings, until
from tests.harness.browser import Chromium, trusting
from tests.harness.certificates import Authority
from tests.harness.operator import here, status_of
from tests.harness.tls_client import Kept, TlsClient, TlsUser, gnutls, openssl
from tests.harness.tls_client import curl_https as curl
from tests.harness.tls_node import TlsNode

PEM = certificate()
KINDS = pytest.mark.parametrize("tickets", [False, True], ids=["ids", "tickets"])


@pytest.fixture
def abc():
    """Three nodes that speak TLS 1.2 and grant what the client wants: an id, or a ticket."""
    with three(version="1.2", one_by_one=True) as nodes:
        yield nodes


@pytest.fixture
def abc13():
    with three(version="1.3") as nodes:
        yield nodes


class three:
    def __init__(self, **options):
        self.nodes = [TlsNode(name, PEM, **options) for name in "abc"]

    def __enter__(self):
        return [node.start() for node in self.nodes]

    def __exit__(self, *exc):
        for node in self.nodes:
            node.stop()


def by_session(*nodes, workers=1, pool=None, classes=None, **keys):
    return settings(
        *nodes, persistence={"type": "ssl", **keys}, server={"protocol": "tls"}, workers=workers,
        pool=pool, classes=classes,
    )  # fmt: skip


def tls12(tickets):
    return ["-tls1_2", *([] if tickets else ["-no_ticket"])]


def entries(p):
    return status_of(p)["persistence"]["shop"]["entries"]


def outcomes(p, count):
    """A line is written when its connection has ended, so the order tells nothing."""
    return Counter(p.outcomes(count))


def handshakes(nodes):
    """(full, resumed) of all nodes together."""
    return sum(node.full for node in nodes), sum(node.reused for node in nodes)


# ---- each client ----


@KINDS
def test_a_session_is_resumed_at_its_node(abc, tickets):
    with proxy(by_session(*abc)) as p:
        users = [TlsUser(p.address(), "1.2", tickets) for _ in range(6)]
        for _ in range(4):
            for user in users:
                user.visit()
        assert [user.reused for user in users] == [[False, True, True, True]] * 6
        assert sorted(Counter(user.nodes[0] for user in users).values()) == [2, 2, 2]
        assert [len(set(user.nodes)) for user in users] == [1] * 6
        lines = p.log(24)
        assert Counter((line["outcome"], line["found_in"]) for line in lines) == {
            ("no-key", "none"): 6, ("hit", "cache"): 18,
        }  # fmt: skip
        assert {(line["sni"], line["tls"]) for line in lines} == {("www.example.com", "1.2")}
        # One map for each session: the id that a server echoes beside a ticket makes none.
        assert entries(p) == 6
    assert handshakes(abc) == (6, 18)


@KINDS
def test_openssl_reconnects_five_times(abc, tickets):
    with proxy(by_session(*abc)) as p:
        for _ in range(3):
            said = openssl(p.address(), *tls12(tickets), "-reconnect")
            assert said.reused == [False, *[True] * 5], said.text
    assert handshakes(abc) == (3, 15)


@KINDS
def test_openssl_comes_back_with_a_session_from_a_file(abc, tickets, tmp_path):
    kept = Kept(tmp_path)
    with proxy(by_session(*abc)) as p:
        said = [openssl(p.address(), *tls12(tickets), *kept.options()) for _ in range(4)]
    assert [each.reused for each in said] == [[False], [True], [True], [True]]
    assert len({each.nodes[0] for each in said}) == 1


@KINDS
def test_gnutls_resumes(abc, tickets):
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS1.2{'' if tickets else ':%NO_TICKETS'}"
    with proxy(by_session(*abc)) as p:
        for _ in range(3):
            said = gnutls(p.address(), "--resume", "--priority", priority)
            assert said.reused == [False, True], said.text
    assert handshakes(abc) == (3, 3)


@pytest.mark.parametrize("tickets", [False, True], ids=["ids", "tickets"])
def test_curl_resumes_in_one_process(tickets):
    with three(version="1.2", tickets=tickets) as nodes, proxy(by_session(*nodes)) as p:
        for _ in range(3):
            said = curl(p.address(), 4)
            assert said.reused == [False, True, True, True], said.text
            assert len(set(said.nodes)) == 1
    assert handshakes(nodes) == (3, 9)


def test_each_session_that_chromium_comes_back_with_is_resumed(abc, authority):
    """It opens connections at once, so it may begin more than one session."""
    pair = authority.certificate("shop.test")
    for node in abc:
        node.pem = pair.key_path.read_bytes() + pair.certificate_path.read_bytes()
        node.extra = (("Connection", "close"),)
        node.forget()
    one_by_one = "(async () => { for (let n = 0; n < 9; n++) await fetch('/n' + n) })()"
    with proxy(by_session(*abc)) as p:
        with Chromium(*trusting("shop.test", pair.made)) as browser:
            browser.open(f"https://shop.test:{p.address()[1]}/")
            browser.run(one_by_one)
        full, reused = handshakes(abc)
        assert reused >= 5
        found = outcomes(p, full + reused)
        assert found["hit"] == reused
        assert found["hit"] + found["new"] + found["no-key"] == full + reused


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_large_bodies_towards_a_node(abc):
    blob = random.Random(1).randbytes(5_000_000)
    with proxy(by_session(*abc)) as p:
        user = TlsUser(p.address(), "1.2")
        for turn in range(2):
            with TlsClient(p.address(), user.context, user.session) as client:
                assert client.ask("/", method="POST", body=blob).json()["body"] == len(blob)
                user.session = client.session
                assert client.reused == (turn == 1)


# ---- refused, expired, forgotten ----


@KINDS
def test_a_refused_resumption_makes_a_new_session_at_the_same_node(abc, tickets):
    with proxy(by_session(*abc)) as p:
        users = [TlsUser(p.address(), "1.2", tickets) for _ in range(3)]
        for user in users:
            user.visit()
        for node in abc:
            node.forget()
        for _ in range(3):
            for user in users:
                user.visit()
        assert [user.reused for user in users] == [[False, False, True, True]] * 3
        assert [len(set(user.nodes)) for user in users] == [1] * 3
        assert outcomes(p, 12) == {"no-key": 3, "hit": 9}
        assert entries(p) == 6


@KINDS
def test_a_map_expires_and_the_session_begins_anew(abc, tickets):
    with proxy(by_session(*abc, expiry="3s")) as p:
        user = TlsUser(p.address(), "1.2", tickets)
        user.visit()
        user.visit()
        until(lambda: oldest(p) >= 4, "the map is too old")
        user.visit()
        assert outcomes(p, 3) == {"no-key": 1, "hit": 1, "expired": 1}
    assert user.reused == [False, True, False]


def oldest(p):
    return status_of(p)["persistence"]["shop"]["oldest_seconds"]


def test_ids_that_a_client_made_up_find_nothing_and_leave_nothing(abc):
    """Only what a node granted makes a map, under the id that the node gave it."""

    def one(p, number):
        hello = records(client_hello(number.to_bytes(32, "big"), sni(b"www.example.com") + TLS12))
        with p.client() as client:
            client.send(hello)
            assert client.reader.exactly(1) == b"\x16"

    with proxy(by_session(*abc)) as p:
        for _ in range(2):
            for number in range(10):
                one(p, number)
        assert outcomes(p, 20) == {"new": 20}
        assert entries(p) <= 20


TLS12 = (
    b"\x00\x0a\x00\x04\x00\x02\x00\x17"  # group P-256
    b"\x00\x0b\x00\x02\x01\x00"  # uncompressed points
    b"\x00\x0d\x00\x04\x00\x02\x04\x03"  # ECDSA with P-256 and SHA-256
)


def test_a_node_that_never_answers_makes_no_map():
    with RawNode(lambda exchange: exchange.wait_end()) as node:
        with proxy(by_session(node)) as p:
            for number in range(50):
                with p.client() as client:
                    client.send(records(client_hello(number.to_bytes(32, "big"))))
                    node.wait_connections(number + 1)
            p.log(50)
            assert entries(p) == 0


# ---- TLS 1.3 ----


def test_tls_1_3_is_recognised_and_nothing_learned(abc13):
    with proxy(by_session(*abc13)) as p:
        users = [TlsUser(p.address(), "1.3") for _ in range(4)]
        for _ in range(3):
            for user in users:
                user.visit()
        assert outcomes(p, 12) == {"tls13": 12}
        assert entries(p) == 0
        assert status_of(p)["persistence"]["shop"]["outcomes"]["tls13"] == 12
    assert {name for user in users for name in user.nodes} == {"a", "b", "c"}


def with_ip(*nodes, **more):
    return by_session(*nodes, fallback="by-ip", classes={"by-ip": {"type": "ip"}}, **more)


def test_tls_1_3_resumes_where_the_fallback_finds_the_node(abc13):
    with proxy(with_ip(*abc13)) as p:
        users = [TlsUser(p.address(), "1.3", source=f"127.0.21.{n}") for n in range(1, 7)]
        for _ in range(3):
            for user in users:
                user.visit()
        found = Counter((line["outcome"], line["found_class"]) for line in p.log(18))
        assert found == {("tls13", None): 6, ("hit", "by-ip"): 12}
        assert entries(p) == 0
    assert [user.reused for user in users] == [[False, True, True]] * 6
    assert set(Counter(user.nodes[0] for user in users).values()) == {2}


@pytest.mark.parametrize("client", ["openssl", "curl", "gnutls"])
def test_tls_1_3_of_other_clients(abc13, client, tmp_path):
    with proxy(with_ip(*abc13)) as p:
        if client == "openssl":
            kept = Kept(tmp_path)
            reused = [openssl(p.address(), *kept.options()).reused[0] for _ in range(3)]
        elif client == "curl":
            reused = curl(p.address(), 3).reused
        else:
            reused = gnutls(p.address(), "--resume", "--waitresumption").reused
    assert reused[0] is False
    assert all(reused[1:])


def test_a_hello_retry_request(tmp_path):
    """The client guesses a group that the node does not take, and is asked again."""
    with three(version="1.3", curve="secp384r1") as nodes, proxy(with_ip(*nodes)) as p:
        kept = Kept(tmp_path)
        said = [
            openssl(p.address(), "-groups", "X25519:P-384", "-msg", *kept.options())
            for _ in range(3)
        ]
        for each in said:
            assert each.text.count(", ClientHello") == 2, each.text
        assert [each.reused for each in said] == [[False], [True], [True]]
        assert entries(p) == 0
        assert outcomes(p, 3) == {"tls13": 1, "hit": 2}


def test_a_hello_retry_request_without_a_fallback():
    with three(version="1.3", curve="secp384r1") as nodes, proxy(by_session(*nodes)) as p:
        for _ in range(3):
            assert TlsUser(p.address()).visit()
        assert outcomes(p, 3) == {"tls13": 3}
        assert entries(p) == 0


@KINDS
def test_a_client_of_tls_1_3_at_nodes_of_1_2(abc, tickets, tmp_path):
    """The id that such a client makes up is not the one that the node grants."""
    with proxy(by_session(*abc)) as p:
        users = [TlsUser(p.address(), "any", tickets) for _ in range(3)]
        for _ in range(3):
            for user in users:
                user.visit()
        assert [user.reused for user in users] == [[False, True, True]] * 3
        kept = Kept(tmp_path)
        options = [] if tickets else ["-no_ticket"]
        said = [openssl(p.address(), *options, *kept.options()) for _ in range(3)]
        assert [each.reused for each in said] == [[False], [True], [True]]
        assert outcomes(p, 12) == {"new": 4, "hit": 8}
        assert entries(p) == 4


def test_nodes_of_both_versions_in_one_pool():
    """What the node chose counts, not what the client offered."""
    with TlsNode("a", PEM, version="1.2") as a, TlsNode("b", PEM, version="1.3") as b:
        with proxy(by_session(a, b)) as p:
            users = [TlsUser(p.address()) for _ in range(4)]
            for _ in range(2):
                for user in users:
                    user.visit()
            at_a = [user for user in users if user.nodes[0] == "a"]
            assert len(at_a) == 2
            for user in at_a:
                assert (user.nodes, user.reused) == (["a", "a"], [False, True])
            assert entries(p) == a.full


# ---- nodes that die or drain ----


@KINDS
def test_a_session_whose_node_died_begins_anew_elsewhere(abc, tickets):
    with proxy(by_session(*abc)) as p:
        user = TlsUser(p.address(), "1.2", tickets)
        home = user.visit()
        gone = next(node for node in abc if node.name == home)
        gone.stop()
        for _ in range(3):
            user.visit()
        gone.start()
        user.visit()
        assert outcomes(p, 5) == {"no-key": 1, "connect-failed": 1, "hit": 3}
        (moved,) = [line for line in p.log_lines() if line["outcome"] == "connect-failed"]
        assert moved["previous_node"] == gone.address
    assert user.reused == [False, False, True, True, True]
    assert home not in user.nodes[1:]
    assert len(set(user.nodes[1:])) == 1


@pytest.mark.parametrize("mode", ["close", "redirect"])
@pytest.mark.parametrize("delete", [True, False])
def test_a_session_whose_node_died_is_closed(abc, mode, delete):
    keys = {"redirect_url": "/sorry"} if mode == "redirect" else {}
    config = by_session(*abc, failure_mode=mode, delete_on_failure=delete, **keys)
    with proxy(config) as p:
        user = TlsUser(p.address(), "1.2")
        home = user.visit()
        gone = next(node for node in abc if node.name == home)
        gone.stop()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            user.visit()
        gone.start()

        def back():
            try:
                return user.visit()
            except (ssl.SSLError, ConnectionError):
                return None

        until(back, "the session is served again")
        assert "session-closed" in {line.get("cause") for line in p.log(2)}

        def served():
            return [line["outcome"] for line in p.log_lines() if line["bytes_out"]]

        until(lambda: len(served()) >= 2, "the visit served is in the log")
        assert sorted(served())[:2] == (["new", "no-key"] if delete else ["hit", "no-key"])


def test_a_draining_node_keeps_its_sessions(abc):
    with proxy(by_session(*abc)) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(6)]
        for user in users:
            user.visit()
        assert here("drain", abc[1].address, "-c", str(p.file)).returncode == 0
        new = [TlsUser(p.address(), "1.2") for _ in range(6)]
        for _ in range(2):
            for user in users + new:
                user.visit()
    assert [user.reused for user in users] == [[False, True, True]] * 6
    assert "b" in {user.nodes[-1] for user in users}
    assert {name for user in new for name in user.nodes} == {"a", "c"}


# ---- processes ----


def test_every_worker_knows_every_session(abc):
    with proxy(by_session(*abc, workers=2)) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(8)]
        for _ in range(5):
            for user in users:
                user.visit()
        served = [worker["requests"] for worker in status_of(p)["workers"]]
    assert [user.reused for user in users] == [[False, *[True] * 4]] * 8
    assert all(served), "one worker served everything"


def test_sessions_outlive_every_worker(abc):
    with proxy(by_session(*abc, workers=2)) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(6)]
        for user in users:
            user.visit()
        for index in (0, 1):
            p.wait_worker_replaced(p.kill_worker(index))
        for user in users:
            user.visit()
    assert [user.reused for user in users] == [[False, True]] * 6


def test_sessions_outlive_a_reload(abc):
    config = by_session(*abc)
    with proxy(config) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(6)]
        for user in users:
            user.visit()
        assert p.reload(changed(config, "pools.web.nodes", abc[::-1])).returncode == 0
        for user in users:
            user.visit()
    assert [user.reused for user in users] == [[False, True]] * 6


def test_a_reload_keeps_running_connections(abc):
    config = by_session(*abc)
    with proxy(config) as p, TlsClient(p.address()) as client:
        home = client.ask().node
        assert p.reload(changed(config, "pools.web.algorithm", "random-of-two")).returncode == 0
        assert {client.ask().node for _ in range(3)} == {home}


def test_reloads_under_load_break_no_session(abc):
    config = by_session(*abc, workers=2)
    other = changed(config, "pools.web.nodes", abc[::-1])
    with proxy(config) as p, ThreadPoolExecutor(4) as pool:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(8)]
        for user in users:
            user.visit()
        running = [pool.submit(lambda u=user: [u.visit() for _ in range(40)]) for user in users]
        for turn in range(4):
            assert p.reload(config if turn % 2 else other).returncode == 0
        for each in running:
            each.result()
    assert [user.reused for user in users] == [[False, *[True] * 40]] * 8


def test_sessions_outlive_a_stop_and_a_start(abc, tmp_path):
    config = changed(by_session(*abc), "proxy.state_dir", str(tmp_path / "state"))
    with proxy(config) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(6)]
        for user in users:
            user.visit()
    with proxy(config) as p:
        for user in users[::-1]:
            user.address = p.address()
            user.visit()
    assert [user.reused for user in users] == [[False, True]] * 6


# ---- many ----


def all_visit(users):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda user: user.visit(), users))


def test_1_000_clients_are_all_resumed(abc):
    """Ids and tickets, two workers, eight at a time."""
    with proxy(by_session(*abc, workers=2)) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(1000)]
        all_visit(users)
        random.Random(4).shuffle(users)
        all_visit(users)
        assert entries(p) == 1000
    assert [user for user in users if user.reused != [False, True]] == []
    assert handshakes(abc) == (1000, 1000)


def test_without_persistence_about_a_third_is_resumed(abc):
    with proxy(settings(*abc, server={"protocol": "tls"})) as p:
        users = [TlsUser(p.address(), "1.2", tickets=n % 2 == 0) for n in range(300)]
        all_visit(users)
        random.Random(4).shuffle(users)
        all_visit(users)
    assert 60 <= sum(user.reused[1] for user in users) <= 140
