"""What fastlb forwards has one meaning for all parsers; `differential` says how that is seen."""

import pytest

from tests.fuzz import differential, readers
from tests.fuzz.differential import TAIL, Result, compare_requests
from tests.harness.wire import Message

REQUESTS = 1500
RESPONSES = 1000
MOST_REFUSED = 0.1  # above it the comparison would say too little


def judged(result: Result, who: str) -> None:
    same, refused = (result.counts[f"{who}: {what}"] for what in ("read the same", "refused"))
    assert same > 100
    assert refused < MOST_REFUSED * same


def demand(result: Result, kinds: tuple[str, ...]) -> None:
    print(result.report())
    assert not result.wrong, "\n".join(result.wrong[:5])
    for who in kinds:
        judged(result, who)


@pytest.mark.parametrize("seed", [1])
def test_requests(seed: int) -> None:
    demand(differential.run_requests(REQUESTS, seed), ("h11", "llhttp", "nginx"))


@pytest.mark.parametrize("seed", [1])
def test_responses(seed: int) -> None:
    demand(differential.run_responses(RESPONSES, seed), ("http.client", "llhttp"))


@pytest.mark.deep
def test_a_hundred_thousand_requests() -> None:
    demand(differential.run_requests(100_000, 2), ("h11", "llhttp", "nginx"))


@pytest.mark.deep
def test_thirty_thousand_responses() -> None:
    demand(differential.run_responses(30_000, 2), ("http.client", "llhttp"))


# --- that the comparison would see it ---

HOST = (b"host", b"h")
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CLASHING = [
    (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
    ),
    (POST + b"X: y\nX-B: c\r\n\r\n", [HOST, (b"x", b"y\nX-B: c")]),
    (POST + b"Content-Length: 34\r\n\r\n", [HOST, (b"content-length", b"34")]),
]


@pytest.mark.parametrize(("data", "fields"), CLASHING)
def test_a_message_with_two_meanings_is_found(data: bytes, fields: list) -> None:
    """As if fastlb had let it through: not all of the three read it as we did, or refuse it."""
    start = data.partition(b"\r\n")[0]
    message = Message(start, fields, data)
    result = Result()
    with readers.NginxReader() as nginx:
        compare_requests([(message, data)], nginx, result)
    assert (
        len(result.wrong)
        + sum(result.counts[f"{who}: refused"] for who in ("h11", "llhttp", "nginx"))
        >= 1
    )
    assert not all(result.counts[f"{who}: read the same"] for who in ("h11", "llhttp", "nginx"))


def test_a_request_that_is_not_in_the_log_is_found(tmp_path) -> None:
    class Logged:
        log_file = tmp_path / "log"

    Logged.log_file.write_text('{"node": "a", "method": "GET", "target": "/1"}\n')
    account = differential.Account(Logged)  # type: ignore[arg-type]
    result = Result()
    account.check([(Message(b"GET /1 HTTP/1.1", [], b""), b"")], result)
    assert not result.wrong
    assert TAIL.startswith(b"GET")
