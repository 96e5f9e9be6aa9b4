"""Rules in the tests of what runs them: calls of given facts, and what becomes of them."""

from collections.abc import Callable
from typing import Any

from fastlb import rule, testing
from fastlb._core.rule_trial import Trial

HEAD = (
    b"GET /shop/cart?id=5&x=a%20b HTTP/1.1\r\n"
    b"Host: www.example.com\r\n"
    b"User-Agent:  spaced \r\n"
    b"X-Same: one\r\n"
    b"accept: */*\r\n"
    b"x-same: two\r\n"
    b"Cookie: a=1; sid=abc; a=2\r\n"
    b"X-Raw: caf\xe9 \xc3\xbc\r\n"
    b"\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 Fine\r\n"
    b"Content-Length: 3\r\n"
    b"Set-Cookie: sid=abc; Path=/; HttpOnly\r\n"
    b"Set-Cookie: sid=def; Path=/app; secure\r\n"
    b"set-cookie: other=1\r\n"
    b"Server: nginx\r\n"
    b"\r\n"
)
POOLS = {"web": ["10.0.0.1:80", "10.0.0.2:80"], "api": ["10.1.0.1:80"]}
CLASSES = ("php", "by-ip")


def trial(kind: str = "request", head: bytes = HEAD, answer: bytes = ANSWER) -> Trial:
    """A call of this kind with these heads, on http."""
    made = testing.request(pools=POOLS, persistence=CLASSES).trial(kind, head)
    if kind == "response":
        made.set_response(answer, "10.0.0.1:80", 1500, 2500)
    return made


def run_all(
    *functions: Callable[..., Any],
    made: Trial | None = None,
    failures: list[BaseException] | None = None,
) -> Any:
    """The effects of several plain rules of one call; what they raise goes to `failures`."""
    made = made or trial()
    made.set_rules(functions)
    opened = made.open(failures if failures is not None else [])
    for index, function in enumerate(functions):
        opened.begin(index)
        try:
            result = function(*opened.arguments(index))
        except BaseException as error:
            goes_on = opened.failed(index, error)
        else:
            goes_on = opened.ended(index, result)
        if not goes_on:
            break
    opened.finish()
    return made.effects()


def run(function: Callable[..., Any], made: Trial | None = None) -> Any:
    """What a plain rule asks for; what it raises is raised."""
    failures: list[BaseException] = []
    found = run_all(function, made=made, failures=failures)
    if failures:
        raise failures[0]
    return found


def head(function: Callable[[rule.Request], Any], received: bytes = HEAD) -> bytes:
    """A request's head after a rule; b"" if it was not changed."""
    return run(function, trial(head=received)).get("head", b"")


def answer(
    function: Callable[[rule.Request, rule.Response], Any], received: bytes = ANSWER
) -> bytes:
    """Likewise a response's."""
    return run(function, trial("response", answer=received)).get("head", b"")


def seen(function: Callable[[rule.Request], Any], received: bytes = HEAD) -> Any:
    """What a function finds in a request."""
    found: list[Any] = []
    run(lambda request: found.append(function(request)), trial(head=received))
    return found[0]


def seen_in_answer(function: Callable[[rule.Response], Any], received: bytes = ANSWER) -> Any:
    found: list[Any] = []
    made = trial("response", answer=received)
    run(lambda _, response: found.append(function(response)), made)
    return found[0]
