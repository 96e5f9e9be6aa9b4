"""Rule by rule: failures, undo, answers, the body, and who is told."""

import asyncio

import pytest

from fastlb import rule, rule_log, testing
from fastlb._core.plan import PlanBuilder
from fastlb._core.rule_trial import Trial

from .rule_words import HEAD, run_all, trial


@pytest.fixture
def reports(monkeypatch):
    """What is reported, as (name, exception)."""
    found = []
    monkeypatch.setattr(rule_log, "report", lambda name, error: found.append((name, error)))
    return found


def plain(*functions, made=None):
    made = made or trial()
    made.set_rules(functions)
    made.run_plain()
    return made.effects()


def with_500():
    builder = PlanBuilder()
    builder.set_global(
        generation=1, workers=1, log_format="off", node_table_offset=0, epoch_ms=0,
        keys=[bytes(16)] * 4,
    )  # fmt: skip
    builder.set_limits(
        max_connections=1, request_line_bytes=8192, head_bytes=40000, field_count=100,
        body_bytes=0, buffer_bytes=1,
    )  # fmt: skip
    builder.set_rules(
        directory="", on_error="500", timeout=1500, watchdog=100, parked_max=1, shared=(0, 0)
    )
    builder.add_rule(name="shop_rules:route", slot=0)
    builder.add_pool(
        name="web", slot=0, algorithm="round-robin", first_node=0, node_count=0, persistence=-1,
        retries=0, refuse_last_draining=False, schedule=[],
    )  # fmt: skip
    builder.add_virtual_server(
        name="shop", slot=0, protocol="http", pool=0, routes=(0, 0), trusted=(0, 0),
        decision=(0, 0),
    )  # fmt: skip
    made = Trial("request", builder.finish())
    made.set_request(HEAD)
    return made


def everything(request):
    request.pool = "api"
    request.persistence = "by-ip"
    request.persistence_key = "bad"
    request.persistence_node = "10.9.9.9:9"
    request.client_address = "9.9.9.9"
    request.headers["X-Bad"] = "1"
    request.path = "/bad"
    request.method = "PUT"
    request.log["bad"] = 1
    request.respond(200, b"bad")


def fails(request):
    everything(request)
    raise LookupError("on purpose")


def good(request):
    request.pool = "api"
    request.persistence_key = "k"
    request.headers["X-Good"] = "1"
    request.log["good"] = 1


# --- one after the other ---


def test_a_later_rule_sees_what_an_earlier_one_changed():
    def second(request):
        assert request.headers["X-Good"] == "1"
        assert (request.pool, request.persistence_key) == ("api", "k")
        assert request.log["good"] == 1
        request.headers.add("X-Good", "2")

    found = run_all(good, second)
    assert found["head"].endswith(b"X-Good: 1\r\nX-Good: 2\r\n\r\n")
    assert found["log"] == b'"good":1'


@pytest.mark.parametrize("how", [run_all, plain])
def test_a_rule_that_answers_is_the_last_one(how):
    def answers(request):
        request.respond(403)

    def never(request):
        raise AssertionError("not run")

    found = how(good, answers, never)
    assert (found["action"], found["decided_by"], found["status"]) == ("answers", 1, 403)
    assert found["pool"] == "api"


# --- failures ---


def test_a_rule_that_fails_is_undone_and_the_next_one_runs():
    failures = []
    found = run_all(fails, failures=failures)
    assert found == {}
    assert [type(one) for one in failures] == [LookupError]
    alone = run_all(good)
    assert run_all(fails, good) == alone
    assert run_all(good, fails) == alone
    assert run_all(good, fails, fails) == alone


def test_undoing_edits_leaves_those_before():
    def edits(request):
        request.headers.add("X", "1")
        del request.headers["accept"]
        request.cookies["sid"] = "new"
        request.query["id"] = "6"

    def spoils(request):
        del request.headers["X"]
        request.headers.add("Y", "2")
        del request.cookies["sid"]
        request.raw_query = ""
        raise LookupError

    def looks(request):
        assert request.headers["X"] == "1"
        assert "Y" not in request.headers
        assert (request.cookies["sid"], request.query["id"]) == ("new", "6")
        request.headers.add("Z", "3")

    expected = run_all(edits)["head"]
    assert run_all(edits, spoils)["head"] == expected
    assert run_all(edits, spoils, looks)["head"] == expected[:-2] + b"Z: 3\r\n\r\n"


def test_a_response_is_undone_too():
    def edits(_, response):
        response.status = 404
        response.cookies["sid"]["Secure"] = True

    def spoils(_, response):
        response.status = 500
        response.reason = "x"
        response.headers.add("A", "b")
        raise LookupError

    before = run_all(edits, made=trial("response"))
    assert run_all(edits, spoils, made=trial("response")) == before
    assert run_all(spoils, edits, made=trial("response")) == before


@pytest.mark.parametrize("error", [
    SystemExit, KeyboardInterrupt, RecursionError, MemoryError, GeneratorExit, StopIteration,
    asyncio.CancelledError, BaseException,
])  # fmt: skip
def test_no_exception_gets_out(reports, error):
    def raises(request):
        raise error

    found = plain(raises, good)
    assert found["pool"] == "api"
    assert [type(one) for _, one in reports] == [error]


def test_endless_recursion_is_a_failure():
    def recurses(request):
        recurses(request)

    failures = []
    assert run_all(recurses, good, failures=failures)["pool"] == "api"
    assert type(failures[0]) is RecursionError


@pytest.mark.parametrize("result", [True, "web", 0, b"", [], object()])
def test_a_rule_returns_nothing(result):
    failures = []
    assert run_all(lambda request: result, failures=failures) == {}
    assert "a rule returns None, found" in str(failures[0])


def test_a_forgotten_async_is_seen():
    async def later(request):
        request.pool = "api"

    failures = []
    assert run_all(lambda request: later(request), failures=failures) == {}
    assert str(failures[0]) == "a rule returns None, found coroutine"


def test_a_head_that_is_none_is_the_failure_of_its_rule():
    def spoils(request):
        request.headers["X"] = "x" * 45_000

    failures = []
    assert run_all(good, spoils, failures=failures) == run_all(good)
    assert "head-too-long" in str(failures[0])


def test_on_error_500_ends_the_chain():
    def never(request):
        raise AssertionError("not run")

    failures = []
    found = run_all(fails, never, made=with_500(), failures=failures)
    assert found == {"action": "fails", "decided_by": 0}
    assert len(failures) == 1


def test_a_rule_knows_its_name_and_time():
    made = with_500()
    made.set_rules([good, fails])
    opened = made.open()
    assert [name for _, name in opened.steps] == ["shop_rules:route", f"{__name__}:fails"]
    assert opened.timeout == 1.5
    opened.finish()


def test_what_fails_is_reported_by_name(reports):
    def raises(request):
        raise LookupError("on purpose")

    made = with_500()
    made.set_rules([raises])
    made.run_plain()
    assert made.effects()["action"] == "fails"
    assert [(name, str(error)) for name, error in reports] == [("shop_rules:route", "on purpose")]


def test_a_report_that_fails_hurts_nobody(monkeypatch):
    def broken(name, error):
        raise OSError("no space")

    monkeypatch.setattr(rule_log, "report", broken)
    assert plain(fails, good) == plain(good)


def test_one_that_is_stopped_is_undone():
    made = trial()
    made.set_rules([everything])
    opened = made.open()
    opened.begin(0)
    everything(*opened.arguments(0))
    opened.cancelled(0)
    opened.finish()
    opened.finish()
    assert made.effects() == {}


# --- nested, kept, and in the way ---


def test_a_rule_may_test_a_rule():
    outer_seen = []

    @rule.request
    def inner(request):
        request.pool = "api"
        request.headers["X-Inner"] = "1"

    def outer(request):
        request.headers["X-Outer"] = "1"
        pools = {"web": ["10.0.0.1:80"], "api": ["10.0.0.2:80"]}
        decision = testing.run(inner, testing.request(target="/inner", pools=pools))
        outer_seen.append((decision.pool, request.path, "X-Inner" in request.headers))

    found = run_all(outer)
    assert outer_seen == [("api", "/shop/cart", False)]
    assert b"X-Outer" in found["head"]
    assert b"X-Inner" not in found["head"]


def test_an_exception_that_is_kept_does_not_keep_memory_in_use():
    kept = []

    def raises(request):
        headers = request.headers  # noqa: F841
        raise LookupError

    run_all(raises, failures=kept)
    frame = kept[0].__traceback__.tb_next.tb_frame
    with pytest.raises(rule.RuleEnded):
        frame.f_locals["request"].path  # noqa: B018
    with pytest.raises(rule.RuleEnded):
        frame.f_locals["headers"].get("Host")


BODY = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"


def test_nobody_waits_for_a_body_in_a_plain_rule():
    made = with_500()
    made.set_request(BODY)
    failures = []
    run_all(lambda request: request.body().send(None), made=made, failures=failures)
    assert str(failures[0]) == "request.body: a plain rule cannot wait for it; write async def"


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        ("1", ValueError), ("", ValueError), ("1 MB", ValueError), ("1XB", ValueError),
        (None, TypeError), (1.5, TypeError), (True, TypeError), (b"1", TypeError),
    ],
)  # fmt: skip
def test_a_limit_is_a_size(limit, error):
    failures = []
    run_all(lambda request: request.body(limit), failures=failures)
    assert type(failures[0]) is error
    assert 'expected a size like "1MiB"' in str(failures[0])


@pytest.mark.parametrize("limit", [0, -1, "0B", "65MiB", 1 << 80])
def test_a_limit_has_its_bounds(limit):
    failures = []
    run_all(lambda request: request.body(limit), failures=failures)
    assert "expected 1 to 67108864 bytes" in str(failures[0])
