"""fastlb.testing: rules tested as their authors do it."""

import asyncio

import pytest

from fastlb import rule, testing

POOLS = {"web": ["10.0.0.1:80", "[2001:db8::1]:80"], "api": ["10.1.0.1:80"]}


@rule.request
def route(request: rule.Request) -> None:
    if request.path.startswith("/admin"):
        return request.respond(403, b"no", headers={"X-Why": "rule"})
    if request.path == "/old":
        return request.redirect("/new")
    if request.path == "/bye":
        return request.close()
    request.persistence_key = request.cookies.get("PHPSESSID")
    if request.path.startswith("/api/"):
        request.pool = "api"
        request.path = request.path.removeprefix("/api")
    request.log["user"] = request.headers.get("X-User", "-")
    request.data["seen"] = True


@rule.response
def tag(request: rule.Request, response: rule.Response) -> None:
    response.headers["X-Served-By"] = str(response.node)
    if "sid" in response.cookies:
        response.cookies["sid"]["Partitioned"] = True
    if response.status == 500:
        request.respond(503, "later")


@rule.connection
def by_name(connection: rule.Connection) -> None:
    if connection.sni is None:
        connection.close()
    elif connection.sni.startswith("api."):
        connection.pool = "api"
        connection.persistence_node = "10.1.0.1:80"


@rule.request
async def later(request: rule.Request) -> None:
    await asyncio.sleep(0)
    body = await request.body(limit="16B")
    request.persistence_key = body
    assert await request.body() == body


def test_what_was_decided():
    request = testing.request(
        "GET", "/api/v1?x=1", headers={"X-User": "anna"}, cookies={"PHPSESSID": "abc", "b": "c"},
        pools=POOLS, persistence=["php"],
    )  # fmt: skip
    decision = testing.run(route, request)
    assert (decision.pool, decision.persistence) == ("api", "php")
    assert decision.persistence_key == "abc"
    assert decision.persistence_node is None
    assert decision.client_address == "192.0.2.7"
    assert (decision.answer, decision.closed) == (None, False)
    assert (decision.log, decision.data) == ({"user": "anna"}, {"seen": True})
    assert decision.failures == []
    assert decision.request is not None
    assert decision.request.target == "/v1?x=1"
    assert decision.request.headers["X-User"] == "anna"
    assert decision.request.cookies["b"] == "c"
    assert decision.response is None


def test_answers():
    answer = testing.run(route, testing.request("GET", "/admin/x")).answer
    assert answer is not None
    assert (answer.status, answer.body, answer.headers["x-why"]) == (403, b"no", "rule")
    moved = testing.run(route, testing.request("GET", "/old")).answer
    assert moved is not None
    assert (moved.status, moved.headers["Location"], moved.body) == (302, "/new", b"")
    assert testing.run(route, testing.request("GET", "/bye")).closed


def test_responses():
    cookies = [("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "other=2")]
    response = testing.response(404, headers=cookies, node="10.0.0.9:81")
    decision = testing.run(tag, testing.request(), response)
    assert decision.response is not None
    assert decision.response.status == 404
    assert decision.response.reason == "Not Found"
    assert decision.response.headers["X-Served-By"] == "10.0.0.9:81"
    assert decision.response.cookies["sid"]["Partitioned"] is True
    assert decision.response.node.port == 81
    assert decision.request is not None
    failed = testing.run(tag, testing.request("HEAD"), testing.response(500)).answer
    assert failed is not None
    assert (failed.status, failed.body) == (503, b"later")


def test_connections():
    tls = testing.Tls(sni="api.example.com", alpn=["h2"])
    decision = testing.run(by_name, testing.connection(tls=tls, pools=POOLS))
    assert (decision.pool, decision.persistence_node) == ("api", "10.1.0.1:80")
    assert decision.request is None
    assert testing.run(by_name, testing.connection()).closed


def test_what_a_rule_raises_is_raised():
    @rule.request
    def broken(request: rule.Request) -> None:
        request.log["before"] = 1
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        testing.run(broken, testing.request())
    decision = testing.run([broken, route], testing.request(), raises=False)
    assert [str(one) for one in decision.failures] == ["mine"]
    assert decision.log == {"user": "-"}


def test_async_rules():
    request = testing.request("POST", body=b"content")
    assert testing.run(later, request).persistence_key == "content"
    with pytest.raises(rule.BodyTooLarge, match="longer than 16 bytes"):
        testing.run(later, testing.request("POST", body=b"x" * 17))
    chunked = testing.request("POST", body=b"x", headers={"Transfer-Encoding": "chunked"})
    assert testing.run(later, chunked).persistence_key == "x"
    assert testing.run(later, testing.request()).persistence_key is None


def test_async_rules_in_a_loop_that_runs():
    async def main() -> None:
        request = testing.request("POST", body=b"content")
        both = await asyncio.gather(*[testing.run_async(later, request) for _ in range(5)])
        assert [one.persistence_key for one in both] == ["content"] * 5
        assert (await testing.run_async(route, testing.request())).log == {"user": "-"}

    asyncio.run(main())


def test_the_time_of_an_async_rule():
    @rule.request
    async def slow(request: rule.Request) -> None:
        await asyncio.sleep(60)

    @rule.request
    async def own(request: rule.Request) -> None:
        raise TimeoutError("its own")

    with pytest.raises(rule.RuleTimeout):
        testing.run(slow, testing.request(), timeout=0.01)
    with pytest.raises(TimeoutError, match="its own"):
        testing.run(own, testing.request())


def test_rules_of_one_kind_run_in_their_order():
    @rule.request
    def second(request: rule.Request) -> None:
        assert request.log["user"] == "-"
        request.log["second"] = True

    assert testing.run([route, second], testing.request()).log == {"user": "-", "second": True}
    assert testing.run((route, second), testing.request("GET", "/admin")).log == {}


def test_data_of_connection_rules():
    @rule.request
    def reads(request: rule.Request) -> None:
        request.log["user"] = request.data["user"]

    kept = {"user": "anna"}
    decision = testing.run(reads, testing.request(data=kept))
    assert (decision.log, decision.data) == ({"user": "anna"}, kept)


def test_an_old_client_behind_a_proxy():
    found = []

    @rule.request
    def looks(request: rule.Request) -> None:
        found.append((request.http_version, request.peer_address, request.host, request.protocol))

    testing.run(looks, testing.request(
        http_version="HTTP/1.0", peer="10.0.0.1:5", tls=testing.Tls()))  # fmt: skip
    assert found == [("HTTP/1.0", "10.0.0.1", None, "https")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: testing.run(print, testing.request()), "is no rule"),
        (lambda: testing.run(tag, testing.request()), "they need one"),
        (lambda: testing.run(route, testing.request(), testing.response()), "for response rules"),
        (lambda: testing.run(route, testing.connection()), r"needs testing\.request"),
        (lambda: testing.run([route, by_name], testing.request()), "of one kind"),
        (lambda: testing.run(route, None), "expected what testing"),
    ],
)
def test_wrong_use_is_told(arguments, words):
    with pytest.raises(TypeError, match=words):
        arguments()


@pytest.mark.parametrize(
    "make",
    [
        lambda: testing.request("GET", "no path"),
        lambda: testing.request("GET", "/", headers={"A b": "x"}),
        lambda: testing.request("GET", "/", headers={"A": "x\r\nB: y\r\n\r\n"}),
        lambda: testing.request("GET", "/", headers=[("Host", "a"), ("Host", "b")]),
        lambda: testing.run([], testing.request()),
        lambda: testing.run(tag, testing.request(), testing.response(2000)),
    ],
)
def test_what_fastlb_would_refuse_is_refused(make):
    with pytest.raises(ValueError, match=r"refuse this|not the whole head|no rule to run"):
        make()


def test_shared_tables_are_those_of_the_test():
    hits = rule.shared("testing.hits")

    @rule.request
    def counts(request: rule.Request) -> None:
        assert request.client_address is not None
        if hits.incr(request.client_address) > 2:
            request.respond(429)

    answers = [testing.run(counts, testing.request()).answer for _ in range(3)]
    assert [one.status if one else None for one in answers] == [None, None, 429]
