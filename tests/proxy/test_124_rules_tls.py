"""Rules and TLS: sni_routing for handshakes that nobody opens, with openssl, curl and TLS nodes;
partitioned and hardening where TLS ends here, with curl and Chromium."""

import json

import pytest

from tests.core.handshakes import certificate
from tests.harness import HttpNode, curl, proxy, until
from tests.harness.browser import Chromium, trusting
from tests.harness.certificates import Authority
from tests.harness.https import https
from tests.harness.rules import example, taken
from tests.harness.tls_client import TlsClient, client_context, openssl
from tests.harness.tls_node import TlsNode

PEM = certificate()
NAMES = {"shop.example.com": "shop", "*.api.example.com": "api"}


# ---- passed through ----


@pytest.fixture(scope="module")
def by_name():
    acme = TlsNode("acme", PEM, alpn=("acme-tls/1",))
    with TlsNode("shop", PEM) as shop, TlsNode("api", PEM) as api, acme:
        config = example("sni_routing", shop=[shop.address], api=[api.address], acme=[acme.address])
        with proxy(config, taken("sni_routing", POOLS=NAMES)) as p:
            yield p


def fetched(p, name: str, *options: str):
    host, port = p.address()
    return curl("-k", "--resolve", f"{name}:{port}:{host}", *options, f"https://{name}:{port}/")


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("shop.example.com", "shop"),
        ("SHOP.Example.com", "shop"),
        ("v1.api.example.com", "api"),
        ("a.b.api.example.com", "api"),
    ],
)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_reaches_the_servers_of_its_name(by_name, name, node, version):
    done = fetched(by_name, name, f"--tlsv{version}", "--tls-max", version)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["node"], answer["sni"].lower()) == (node, name.lower())


@pytest.mark.parametrize("name", ["api.example.com", "example.com", "shop.example.com.evil.test"])
def test_a_name_that_is_not_ours_is_closed(by_name, name):
    assert fetched(by_name, name).returncode in (35, 56)  # in the handshake

    def lines():
        return [line for line in by_name.log_lines() if line.get("sni") == name]

    (line,) = until(lines, "the line of the connection")
    assert line["log"] == {"unknown": name}
    assert line["rule"] == "sni_routing:by_name"


def test_a_client_without_a_name_is_closed(by_name):
    assert "BEGIN CERTIFICATE" not in openssl(by_name.address(), "-noservername").text


def test_a_challenge_reaches_the_machine_that_answers_them(by_name):
    said = openssl(
        by_name.address(), "-servername", "shop.example.com", "-alpn", "http/1.1,acme-tls/1"
    )
    assert said.nodes == ["acme"]
    assert said.field("ALPN protocol") == "acme-tls/1"


# ---- ended here ----


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates")).certificate("shop.test")


@pytest.fixture(scope="module")
def embedded(pair):
    """Two virtual servers, each with a class that inserts a cookie of its own kind."""
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        rules = ["partitioned:partitioned", "hardening:harden"]
        config = https({"shop.test": pair}, a, b, c, server={"rules": rules}, workers=2)
        server = config["virtual_servers"]["shop"]
        config["virtual_servers"]["netscaler"] = {**server, "pool": "inserted"}
        config["pools"]["web"]["persistence"] = "shop"
        config["pools"]["inserted"] = {**config["pools"]["web"], "persistence": "inserted"}
        config["persistence"] = {
            "shop": {"type": "transparent"},
            "inserted": {"type": "cookie-insert"},
        }
        with proxy(config, taken("partitioned")) as p:
            yield p


@pytest.mark.parametrize(("server", "prefix"), [("shop", "X-Mapping-"), ("netscaler", "NSC_")])
def test_the_inserted_cookie_is_partitioned_and_still_counts(embedded, server, prefix):
    homes = []
    for number in range(6):
        browser = ("User-Agent", f"browser {number}")
        address = embedded.address(server)
        with TlsClient(address, client_context(), name="shop.test") as client:
            first = client.ask("/", browser)
            (line,) = first.all("Set-Cookie")
            pair, *attributes = [part.strip() for part in line.decode().split(";")]
            assert pair.startswith(prefix)
            assert sorted(each.lower() for each in attributes) == [
                "httponly", "partitioned", "path=/", "samesite=none", "secure",
            ]  # fmt: skip
            again = [client.ask("/", browser, ("Cookie", pair)) for _ in range(3)]
        assert {answer.node for answer in again} == {first.node}
        assert [answer.all("Set-Cookie") for answer in again] == [[], [], []]
        homes.append(first.node)
        assert first.get("Strict-Transport-Security") == b"max-age=31536000; includeSubDomains"
    assert len(set(homes)) > 1


def test_chromium_takes_the_partitioned_cookie(embedded, pair):
    parallel = "Promise.all([...Array(8)].map((_, n) => fetch('/n' + n).then(r => r.json())))"
    with Chromium(*trusting("shop.test", pair.made)) as browser:
        answers = []
        for server, prefix in (("shop", "X-Mapping-"), ("netscaler", "NSC_")):
            browser.open(f"https://shop.test:{embedded.address(server)[1]}/")
            mine = [one for one in browser.cookies() if one["name"].startswith(prefix)]
            (cookie,) = mine
            assert (cookie["secure"], cookie["sameSite"]) == (True, "None")
            assert cookie["partitionKey"]["topLevelSite"] == "https://shop.test"
            answers = browser.run(parallel)
            assert len({answer["node"] for answer in answers}) == 1
