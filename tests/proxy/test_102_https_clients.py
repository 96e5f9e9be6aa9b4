"""HTTPS with clients that somebody else wrote, and a scanner that looks for what is weak."""

import hashlib
import http.client
import itertools
import json
import re
import socket
import ssl
import subprocess
import xml.etree.ElementTree as xml

import pytest

from tests.harness import HttpNode, RawNode, changed, curl, proxy, reply, settings, until
from tests.harness.browser import Chromium, trusting
from tests.harness.certificates import Authority
from tests.harness.chop import Chopper
from tests.harness.client import tool_environment
from tests.harness.nginx import Nginx
from tests.harness.operator import status_of
from tests.harness.tls_client import Kept, TlsClient, gnutls, openssl
from tests.harness.wait import TIMEOUT

BLOB = bytes(range(256)) * 20_000  # 5 MiB
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificates(authority):
    return {
        "shop.test": authority.certificate("shop.test", intermediate=True),
        "api.example.com": authority.certificate("api.example.com", key="rsa"),
        "*.example.com": authority.certificate("*.example.com"),
    }


@pytest.fixture(scope="module")
def abc():
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        yield a, b, c


def https(*nodes, certificates, workers=1, persistence=None, **tls):
    tables = [each if isinstance(each, dict) else each.table() for each in certificates]
    server = {"protocol": "https", "tls": {"certificates": tables, **tls}}
    return settings(
        *nodes, server=server, workers=workers, persistence=persistence or {"type": "transparent"}
    )


@pytest.fixture(scope="module")
def shop(abc, certificates):
    with proxy(https(*abc, certificates=certificates.values(), workers=2)) as p:
        yield p


def context(authority, version=None, **options):
    made = ssl.create_default_context(cafile=str(authority.file))
    if version:
        made.minimum_version = made.maximum_version = ssl.TLSVersion[
            f"TLSv{version.replace('.', '_')}"
        ]
    for name, value in options.items():
        setattr(made, name, value)
    return made


def url_of(p, path="/", name="shop.test"):
    return f"https://{name}:{p.address()[1]}{path}"


def fetch(p, authority, *options, path="/", name="shop.test"):
    host, port = p.address()
    return curl(
        "--cacert", str(authority.file), "--resolve", f"{name}:{port}:{host}", *options,
        url_of(p, path, name),
    )  # fmt: skip


def fields(answer):
    return {name.lower(): value for name, value in answer["fields"]}


# ---- each client ----


@VERSIONS
def test_curl_keeps_its_session(shop, authority, tmp_path, version):
    jar = str(tmp_path / "jar")
    options = ["-c", jar, "-b", jar, f"--tlsv{version}", "--tls-max", version]
    answers = []
    for _ in range(5):
        done = fetch(shop, authority, *options)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert len({answer["node"] for answer in answers}) == 1
    assert fields(answers[0])["x-forwarded-proto"] == "https"
    (line,) = [x for x in (tmp_path / "jar").read_text().splitlines() if "X-Mapping" in x]
    assert line.split("\t")[3] == "TRUE", "the cookie is Secure"


def test_curl_asks_twice_on_one_connection(shop, authority):
    done = fetch(shop, authority, url_of(shop, "/second"), "-w", "%{num_connects}\\n")
    assert re.findall(rb"^.*\}(\d)$", done.stdout, re.MULTILINE) == [b"1", b"0"]


def test_large_bodies_both_ways(authority, certificates, tmp_path):
    (tmp_path / "blob").write_bytes(BLOB)
    with Nginx("location /up { proxy_pass http://127.0.0.1:1; }", {"blob": BLOB}) as node:
        with proxy(https(node.address, certificates=[certificates["shop.test"]])) as p:
            down = fetch(p, authority, path="/blob")
            assert hashlib.sha256(down.stdout).digest() == hashlib.sha256(BLOB).digest()

    def count(exchange):
        body = exchange.read_body()
        exchange.send(reply(200, hashlib.sha256(body).hexdigest().encode()))

    with RawNode(count) as node:
        with proxy(https(node, certificates=[certificates["shop.test"]])) as p:
            for coding in ([], ["-H", "Transfer-Encoding: chunked"]):
                up = fetch(p, authority, "-T", str(tmp_path / "blob"), *coding)
                assert up.stdout == hashlib.sha256(BLOB).hexdigest().encode(), up.stderr


@VERSIONS
def test_python_s_http_client(shop, authority, version):
    connection = http.client.HTTPSConnection(
        "shop.test", shop.address()[1], context=context(authority, version), timeout=TIMEOUT
    )
    connection._create_connection = lambda *_: socket.create_connection(shop.address(), TIMEOUT)
    nodes, cookie = set(), None
    for number in range(4):
        connection.request("GET", f"/{number}", headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        nodes.add(json.loads(answer.read())["node"])
        if number == 0:
            cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
            assert {"Secure", "HttpOnly"} <= set(attributes)
        else:
            assert answer.headers["Set-Cookie"] is None
    connection.close()
    assert len(nodes) == 1


@VERSIONS
def test_openssl_verifies_the_chain(shop, authority, version):
    said = openssl(
        shop.address(), f"-tls{version.replace('.', '_')}", "-CAfile", str(authority.file),
        "-verify_return_error", "-servername", "shop.test", "-verify_hostname", "shop.test",
        "-alpn", "http/1.1",
    )  # fmt: skip
    assert (said.returncode, said.field("Verification")) == (0, "OK")
    assert said.field("ALPN protocol") == "http/1.1"
    assert said.nodes


@VERSIONS
def test_gnutls_verifies_the_chain(shop, authority, version):
    said = gnutls(
        shop.address(), "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}",
        "--x509cafile", str(authority.file), "--sni-hostname", "shop.test",
        "--verify-hostname", "shop.test", insecure=False,
    )  # fmt: skip
    assert said.returncode == 0, said.text
    assert "The certificate is trusted" in said.text
    assert said.nodes


def test_chromium_keeps_its_secure_cookie(shop, certificates):
    parallel = "Promise.all([...Array(12)].map((_, n) => fetch('/n' + n).then(r => r.json())))"
    flags = trusting("shop.test", certificates["shop.test"].made)
    with Chromium(*flags) as browser:
        browser.open(url_of(shop))
        (cookie,) = browser.cookies()
        assert cookie["name"].startswith("X-Mapping-")
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        answers = browser.run(parallel)
        browser.open(url_of(shop, "/another"))
        answers += browser.run(parallel)
        assert browser.run("isSecureContext")
        protocols = "performance.getEntriesByType('resource').map(e => e.nextHopProtocol)"
        assert set(browser.run(protocols)) == {"http/1.1"}
    assert len({answer["node"] for answer in answers}) == 1


# ---- which certificate ----


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("shop.test", "shop.test"),
        ("api.example.com", "api.example.com"),
        ("API.Example.com", "api.example.com"),
        ("www.example.com", "*.example.com"),
        ("WWW.EXAMPLE.COM", "*.example.com"),
        ("a.b.example.com", "shop.test"),
        ("example.com", "shop.test"),
        ("unknown.test", "shop.test"),
        (None, "shop.test"),
    ],
)
@VERSIONS
def test_the_server_name_picks_the_certificate(
    shop, certificates, authority, name, chosen, version
):
    lenient = context(authority, version, check_hostname=False, verify_mode=ssl.CERT_NONE)
    with TlsClient(shop.address(), lenient, name=name) as client:
        shown = hashlib.sha256(client.tls.getpeercert(True)).hexdigest()
        assert client.ask().node
    assert shown == certificates[chosen].fingerprint


@pytest.mark.parametrize(
    ("offered", "taken"),
    [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), ([], None)],
)
def test_alpn(shop, authority, offered, taken):
    ours = context(authority)
    if offered:
        ours.set_alpn_protocols(offered)
    with TlsClient(shop.address(), ours, name="shop.test") as client:
        assert client.tls.selected_alpn_protocol() == taken
        assert client.ask().node


# ---- versions ----


@pytest.mark.parametrize(
    ("minimum", "offered", "taken"),
    [("1.2", "1_1", ""), ("1.2", "1_2", "TLSv1.2"), ("1.3", "1_2", ""), ("1.3", "1_3", "TLSv1.3")],
)
def test_the_oldest_version(abc, certificates, minimum, offered, taken):
    config = https(*abc, certificates=[certificates["shop.test"]], min_version=minimum)
    with proxy(config) as p:
        said = openssl(p.address(), f"-tls{offered}", "-cipher", "DEFAULT@SECLEVEL=0")
        if taken:
            assert said.nodes
            assert f", {taken}, Cipher" in said.text
        else:
            assert "alert protocol version" in said.text
            assert p.log(1)[0]["cause"] == "handshake-failed:unsupported protocol"


# ---- resumption ----


def resumptions(p, tmp_path, version, count):
    kept = Kept(tmp_path)
    options = [f"-tls{version.replace('.', '_')}", "-servername", "shop.test", *kept.options()]
    return [openssl(p.address(), *options).reused for _ in range(count)]


def visits(p, context, count, session=None):
    """(reused of each, the last session)"""
    reused = []
    for _ in range(count):
        with TlsClient(p.address(), context, session, "shop.test") as client:
            client.ask()
            session = client.session
        reused.append(client.reused)
    return reused, session


@VERSIONS
def test_workers_share_their_tickets_and_a_reload_keeps_them(abc, certificates, authority, version):
    config = https(*abc, certificates=[certificates["shop.test"]], workers=2)
    ours = context(authority, version)
    with proxy(config) as p:
        reused, session = visits(p, ours, 9)
        assert reused == [False] + [True] * 8
        served = [worker["connections"] for worker in status_of(p)["workers"]]
        assert len(served) == 2
        assert p.reload(changed(config, "pools.web.algorithm", "random-of-two")).returncode == 0
        reused, session = visits(p, ours, 3, session)
        assert reused == [True] * 3
        for index in (0, 1):
            p.wait_worker_replaced(p.kill_worker(index))
        assert visits(p, ours, 4, session)[0] == [True] * 4


@VERSIONS
def test_openssl_resumes(shop, tmp_path, version):
    kept = Kept(tmp_path)
    tls = f"-tls{version.replace('.', '_')}"
    said = [openssl(shop.address(), tls, *kept.options()) for _ in range(3)]
    assert [each.reused for each in said] == [[False], [True], [True]]


def test_without_tickets_each_handshake_of_two_workers_works(abc, certificates, authority):
    config = https(*abc, certificates=[certificates["shop.test"]], tickets=False, workers=2)
    with proxy(config) as p:
        for version in ("1.2", "1.3"):
            visits(p, context(authority, version), 6)


# ---- client certificates ----


@pytest.fixture(scope="module", params=["off", "optional", "required"])
def asking(request, abc, certificates, client_authority):
    """A proxy that asks for client certificates, or does not."""
    more = {} if request.param == "off" else {"client_ca": str(client_authority.file)}
    config = https(
        *abc, certificates=[certificates["shop.test"]], client_certificates=request.param, **more
    )
    with proxy(config) as p:
        yield request.param, p


@pytest.fixture(scope="module")
def client_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


@VERSIONS
@pytest.mark.parametrize("shown", [None, "ours", "strange"])
def test_client_certificates(asking, abc, authority, client_authority, tmp_path, version, shown):
    asked, p = asking
    ours = context(authority, version)
    if shown:
        signer = client_authority if shown == "ours" else Authority(tmp_path, "strangers")
        pair = signer.certificate("alice" if shown == "ours" else "mallory", client=True)
        ours.load_cert_chain(pair.certificate_path, pair.key_path)
    source = f"127.0.26.{next(SOURCES)}"
    if asked == "off" or shown == "ours" or (asked == "optional" and shown is None):
        with TlsClient(p.address(), ours, name="shop.test", source=source) as client:
            forged = ("X-Client-Certificate-Subject", "CN=root")
            told = client.ask("/", forged).json()["fields"]
        subjects = [v for k, v in told if k.lower() == "x-client-certificate-subject"]
        ours_only = ["CN=alice"] if shown == "ours" else []
        assert subjects == (["CN=root"] if asked == "off" else ours_only)
        return
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with TlsClient(p.address(), ours, name="shop.test", source=source) as client:
            client.ask()
    assert line_of(p, source)["cause"].startswith("handshake-failed")
    assert not [request for node in abc for request in node.requests if b"mallory" in request.head]


SOURCES = itertools.count(1)


# ---- OCSP, and new certificates ----


def test_an_ocsp_response_is_stapled(abc, authority):
    pair = authority.certificate("shop.test")
    other = authority.certificate("www.example.com")
    tables = [pair.table(ocsp=str(authority.ocsp(pair))), other.table()]
    with proxy(https(*abc, certificates=tables)) as p:
        for name, stapled in (("shop.test", True), ("www.example.com", False)):
            for tls in ("-tls1_2", "-tls1_3"):
                said = openssl(p.address(), tls, "-status", "-servername", name)
                assert ("OCSP Response Status: successful" in said.text) is stapled
                assert ("OCSP response: no response sent" in said.text) is not stapled


def test_a_reload_takes_a_new_certificate_and_keeps_connections(abc, authority):
    old = authority.certificate("shop.test", file="renewed")
    config = https(*abc, certificates=[old])
    ours = context(authority)
    with proxy(config) as p, TlsClient(p.address(), ours, name="shop.test") as running:
        home = running.ask().node
        new = authority.certificate("shop.test", file="renewed")
        assert fingerprint(p, ours) == old.fingerprint
        assert p.reload(config).returncode == 0
        assert fingerprint(p, ours) == new.fingerprint
        assert running.ask("/", ("Cookie", "none=1")).node
        new.key_path.write_bytes(b"damaged")
        failed = p.reload(config)
        assert failed.returncode == 2
        assert str(new.key_path) in failed.stderr
        assert fingerprint(p, ours) == new.fingerprint
        assert running.ask().status == 200
    assert home


def fingerprint(p, context):
    with TlsClient(p.address(), context, name="shop.test") as client:
        return hashlib.sha256(client.tls.getpeercert(True)).hexdigest()


# ---- what is no client ----


def test_plain_http_at_the_https_port_is_told_so(shop):
    with shop.client("127.0.25.1") as client:
        client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        assert client.answer_then_closed().status == 400
    assert line_of(shop, "127.0.25.1")["cause"] == "not-tls"


def line_of(p, source):
    def look():
        return [line for line in p.log_lines() if line["client"] == source]

    return until(look, f"the line of {source} in the access log")[0]


@VERSIONS
@pytest.mark.parametrize(("pieces", "framed"), [(1, 0), (40, 7)])
def test_a_handshake_in_any_pieces(shop, authority, version, pieces, framed):
    with Chopper(shop.address(), pieces, framed) as way:
        with TlsClient(way.address, context(authority, version), name="shop.test") as client:
            assert len({client.ask("/x" * 500, ("Cookie", "a=b")).status for _ in range(2)}) == 1


def test_a_handshake_that_is_not_finished_is_closed_by_time_out(abc, certificates):
    config = https(*abc, certificates=[certificates["shop.test"]])
    config["timeouts"]["handshake"] = "1s"  # the hello has to arrive in it
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lenient.check_hostname = False
    stalled = lenient.wrap_bio(to_client, to_server, server_hostname="shop.test")
    with pytest.raises(ssl.SSLWantReadError):
        stalled.do_handshake()
    with proxy(config) as p, p.client() as client:
        client.send(to_server.read())
        client.reader.rest()
        assert client.reader.received[:1] == b"\x16", "the server's flight"
        assert p.log(1)[0]["cause"] == "opening-timeout"


# ---- a scan ----

MODERN = """
ssl_certificate both.pem; ssl_certificate_key both.pem;
ssl_session_timeout 1d; ssl_session_cache shared:one:1m;
ssl_protocols TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers off;
ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384;
"""


def pem_of(pair):
    return pair.key_path.read_bytes() + pair.certificate_path.read_bytes()


def scan(address):
    host, port = address
    done = subprocess.run(
        ["sslscan", "--xml=-", "--no-colour", "--sni-name=shop.test", "--show-sigs",
         f"{host}:{port}"],
        capture_output=True, timeout=6 * TIMEOUT, env=tool_environment(), check=True,
    )  # fmt: skip
    return xml.fromstring(done.stdout).find("ssltest")


def found(scanned, tag, *names, **wanted):
    return {
        tuple(each.get(name) for name in names)
        for each in scanned.iter(tag)
        if all(each.get(name) == value for name, value in wanted.items())
    }


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_a_scan_finds_nothing_that_it_does_not_find_with_a_modern_nginx(abc, authority, key):
    pair = authority.certificate("shop.test", key=key)
    with Nginx(MODERN, {"both.pem": pem_of(pair)}, listen="ssl") as theirs:
        nginx = scan((theirs.host, theirs.port))
    with proxy(https(*abc, certificates=[pair])) as p:
        ours = scan(p.address())
    enabled = found(ours, "protocol", "type", "version", enabled="1")
    assert enabled == {("tls", "1.2"), ("tls", "1.3")}
    assert enabled <= found(nginx, "protocol", "type", "version", enabled="1")
    ciphers = found(ours, "cipher", "sslversion", "cipher")
    assert ciphers <= found(nginx, "cipher", "sslversion", "cipher")
    assert len(ciphers) >= 5
    assert found(ours, "renegotiation", "supported") == {("0",)}
    assert found(ours, "heartbleed", "vulnerable") == {("0",)}
    assert found(ours, "compression", "supported") <= {("0",)}
    weakest = min(int(bits) for (bits,) in found(nginx, "group", "bits"))
    assert min(int(bits) for (bits,) in found(ours, "group", "bits")) >= weakest
    signatures = found(ours, "connection-signature-algorithm", "sslversion", "name")
    assert signatures <= found(nginx, "connection-signature-algorithm", "sslversion", "name")
    assert found(ours, "pk", "error") == {("false",)}
    assert [each.text for each in ours.iter("expired")] == ["false"]
