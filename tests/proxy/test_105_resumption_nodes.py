"""TLS passed through to servers that somebody else wrote: nginx, openssl and GnuTLS.

Like the stories of test_100_resumption.py, with its words.
"""

import random
from collections import Counter

import pytest

from tests.harness import proxy
from tests.harness.nginx import Nginx
from tests.harness.openssl_server import GnutlsServer, OpensslServer, page_says_reused
from tests.harness.tls_client import Kept, TlsClient, TlsUser, gnutls, openssl
from tests.harness.tls_client import curl_https as curl
from tests.proxy.test_100_resumption import KINDS, PEM, by_session, entries, tls12


def nginx(tickets, keys=("one",), blob=b"", **more):
    """Tells in each answer whether its handshake resumed a session; `keys` for its tickets, of
    which the first encrypts."""
    lines = "".join(f"ssl_session_ticket_key {name}.key;\n" for name in keys)
    locations = f"""
    ssl_certificate both.pem; ssl_certificate_key both.pem;
    ssl_session_cache shared:one:1m; ssl_session_tickets {"on" if tickets else "off"};
    {lines if tickets else ""}
    set $reused false;
    if ($ssl_session_reused = r) {{ set $reused true; }}
    location / {{ return 200 '{{"node": "$server_addr", "reused": $reused}}'; }}
    location /blob {{ }}
    """
    files = {f"{name}.key": random.randbytes(80) for name in ("one", "two")}
    return Nginx(locations, {"both.pem": PEM, "blob": blob, **files}, listen="ssl", **more)


@KINDS
def test_nginx_nodes(tickets):
    with nginx(tickets) as a, nginx(tickets) as b, nginx(tickets) as c:
        with proxy(by_session(a.address, b.address, c.address)) as p:
            users = [TlsUser(p.address(), "1.2", tickets) for _ in range(6)]
            for _ in range(3):
                for user in users:
                    user.visit()
            assert curl(p.address(), 3, "--tls-max", "1.2").reused == [False, True, True]
    assert [user.reused for user in users] == [[False, True, True]] * 6
    assert set(Counter(user.nodes[0] for user in users).values()) == {2}


@KINDS
def test_openssl_servers(tickets):
    with OpensslServer(PEM, *tls12(tickets)) as a, OpensslServer(PEM, *tls12(tickets)) as b:
        with proxy(by_session(a.address, b.address)) as p:
            said = [openssl(p.address(), "-reconnect") for _ in range(2)]
    for each in said:
        assert each.reused[:6] == [False, *[True] * 5]
        assert page_says_reused(each.text)


@KINDS
@pytest.mark.parametrize(("option", "version"), [("-tls1", "1.0"), ("-tls1_1", "1.1")])
def test_versions_of_old(tickets, option, version):
    """Which some nodes of an intranet still speak."""
    weak = ["-cipher", "ALL:@SECLEVEL=0", *([] if tickets else ["-no_ticket"])]
    with OpensslServer(PEM, option, *weak) as a, OpensslServer(PEM, option, *weak) as b:
        with proxy(by_session(a.address, b.address)) as p:
            for said in [openssl(p.address(), option, *weak, "-reconnect") for _ in range(2)]:
                assert said.reused[:6] == [False, *[True] * 5], said.text
                assert page_says_reused(said.text)
            assert {line["tls"] for line in p.log(12)} == {version}
            assert len({line["node"] for line in p.log(12)}) == 2


@KINDS
def test_gnutls_servers(tickets, tmp_path):
    options = [] if tickets else ["--noticket"]
    with GnutlsServer(PEM, *options) as a, GnutlsServer(PEM, *options) as b:
        with proxy(by_session(a.address, b.address)) as p:
            for client in "12":
                (tmp_path / client).mkdir()
                kept = Kept(tmp_path / client)
                said = [
                    openssl(p.address(), *tls12(tickets), *kept.options(), sent=OLD)
                    for _ in range(4)
                ]
                assert [each.reused for each in said] == [[False], [True], [True], [True]]
            only12 = "NORMAL:-VERS-TLS1.3"
            said = gnutls(p.address(), "--resume", "--priority", only12, sent=OLD)
            assert said.reused == [False, True]


OLD = b"GET / HTTP/1.0\r\n\r\n"  # gnutls-serv closes after it


@KINDS
def test_large_bodies_through_a_resumed_session(tickets):
    """What comes behind the handshake is not looked at, and nothing of it is lost."""
    blob = random.Random(1).randbytes(5_000_000)
    with nginx(tickets, blob=blob) as a, nginx(tickets, blob=blob) as b:
        with proxy(by_session(a.address, b.address)) as p:
            user = TlsUser(p.address(), "1.2", tickets)
            for turn in range(2):
                with TlsClient(p.address(), user.context, user.session) as client:
                    assert client.ask("/blob").body == blob
                    user.session = client.session
                    assert client.reused == (turn == 1)


def test_a_renewed_ticket_leads_to_the_node_too():
    """nginx renews a ticket of a key that it does not use any more."""
    with nginx(True) as a, nginx(True) as b:
        with proxy(by_session(a.address, b.address)) as p:
            users = [TlsUser(p.address(), "1.2") for _ in range(4)]
            for user in users:
                user.visit()
            old = [user.session for user in users]
            for node in (a, b):
                rotate(node, "two", "one")
            for user in users:
                user.visit()
            assert entries(p) == 8
            for node in (a, b):
                rotate(node, "two")
            for user in users:
                user.visit()
            renewed = [user.session for user in users]
            assert [user.reused for user in users] == [[False, True, True]] * 4
            assert [len(set(user.nodes)) for user in users] == [1] * 4
            assert all(before.id != after.id for before, after in zip(old, renewed, strict=True))
            for user, session in zip(users, old, strict=True):
                user.session = session
                user.visit()
            assert [user.reused[-1] for user in users] == [False] * 4
            assert [len(set(user.nodes)) for user in users] == [1] * 4


def rotate(node, *keys):
    node.locations = node.locations.replace("ssl_session_ticket_key one.key;\n", "")
    node.locations = node.locations.replace("ssl_session_ticket_key two.key;\n", "")
    lines = "".join(f"ssl_session_ticket_key {name}.key;\n" for name in keys)
    node.locations = lines + node.locations
    node.restart()
