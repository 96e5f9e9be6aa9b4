"""TLS towards nodes that somebody else wrote."""

import pytest

from tests.harness import proxy, settings
from tests.harness.certificates import Authority
from tests.harness.nginx import Nginx
from tests.harness.openssl_server import GnutlsServer, OpensslServer
from tests.harness.tls_node import TlsNode

BLOB = bytes(range(256)) * 20_000  # 5 MiB


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


def with_tls(*nodes, ca=None, **tls):
    more = {"ca": str(ca)} if ca else {}
    return settings(*nodes, pool={"tls": {**more, **tls}})


def pem_of(pair):
    return pair.key_path.read_bytes() + pair.certificate_path.read_bytes()


@pytest.fixture(scope="module")
def pem(authority):
    return pem_of(authority.certificate("web.internal"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_node_that_closes_each_connection_resumes_its_session(authority, pem, version):
    closing = ("Connection", "close")
    with TlsNode("a", pem, closing, version=version) as a, \
            TlsNode("b", pem, closing, version=version) as b:  # fmt: skip
        with proxy(with_tls(a, b, ca=authority.file, server_name="web.internal")) as p:
            answers = [p.get().json() for _ in range(8)]
    assert [answer["node"] for answer in answers] == ["a", "b"] * 4
    assert {answer["sni"] for answer in answers} == {"web.internal"}
    assert (a.full, b.full, a.reused, b.reused) == (1, 1, 3, 3)


NGINX = """
ssl_certificate both.pem; ssl_certificate_key both.pem; ssl_session_cache shared:one:1m;
ssl_protocols TLSv1.2 TLSv1.3; ssl_client_certificate ca.pem; ssl_verify_client optional;
location /said { return 200 "$ssl_server_name|$ssl_protocol|$ssl_client_s_dn|$ssl_session_reused"; }
location /once { keepalive_timeout 0; return 200 "$ssl_session_reused"; }
location /forwarded { return 200 "$http_x_forwarded_for"; }
"""


@pytest.fixture(scope="module")
def nginx(authority, pem):
    files = {"both.pem": pem, "blob": BLOB, "ca.pem": authority.file.read_bytes()}
    with Nginx(NGINX, files, listen="ssl") as node:
        yield node


def test_nginx_behind(authority, nginx):
    with proxy(with_tls(nginx.address, ca=authority.file, server_name="web.internal")) as p:
        assert p.get("/said").body == b"web.internal|TLSv1.3||."
        assert p.get("/forwarded", source="127.0.0.88").body == b"127.0.0.88"
        assert p.get("/blob").body == BLOB
        assert [p.get("/once").body for _ in range(4)][1:] == [b"r"] * 3


def test_nginx_is_shown_our_certificate(authority, nginx):
    ours = authority.certificate("proxy-7", client=True)
    config = with_tls(
        nginx.address, ca=authority.file, server_name="web.internal",
        certificate=str(ours.certificate_path), key=str(ours.key_path),
    )  # fmt: skip
    with proxy(config) as p:
        assert b"|CN=proxy-7|" in p.get("/said").body


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_nginx_that_cannot_show_who_it_is_gets_no_request(authority, nginx, tmp_path, wrong):
    ca = Authority(tmp_path, "another").file if wrong == "authority" else authority.file
    name = "other.internal" if wrong == "name" else "web.internal"
    with proxy(with_tls(nginx.address, ca=ca, server_name=name)) as p:
        assert p.get("/said").status in (502, 503)
        assert p.log(1)[0]["cause"].startswith("node-handshake-failed:")
    with proxy(with_tls(nginx.address, verify=False)) as p:
        assert p.get("/said").status == 200


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_an_openssl_server_behind(authority, pem, version):
    with OpensslServer(pem, f"-tls{version}") as node:
        with proxy(with_tls(node.address, ca=authority.file, server_name="web.internal")) as p:
            pages = [p.get("/").body.decode() for _ in range(3)]
    said = ["Reused, " in page for page in pages]
    assert said == [False, True, True]


def test_a_gnutls_server_behind(authority, pem):
    with GnutlsServer(pem) as node:
        with proxy(with_tls(node.address, ca=authority.file, server_name="web.internal")) as p:
            for _ in range(3):
                answer = p.get("/")
                assert answer.status == 200
                assert b"GnuTLS" in answer.body or b"TLS1.3" in answer.body


def test_tcp_is_carried_over_tls(authority, pem):
    """Whatever the client says goes to the node within TLS."""
    with TlsNode("a", pem) as a:
        config = with_tls(a, ca=authority.file, server_name="web.internal")
        config["virtual_servers"]["shop"]["protocol"] = "tcp"
        with proxy(config) as p, p.client() as client:
            said = client.ask().json()
            assert (said["node"], said["sni"], said["reused"]) == ("a", "web.internal", False)
            assert client.ask().node == "a"
