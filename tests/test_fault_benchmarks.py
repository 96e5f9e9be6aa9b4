"""The fault benchmarks' own arithmetic: what is in flight, and what a mutated request came to."""

import os
import socket

import pytest

from benchmarks.fault_load import Waiting
from benchmarks.fault_mutants import judged, mutated
from benchmarks.fault_peers import Fastlb, HAProxy
from benchmarks.faults import accepted, answers
from tests.fuzz.differential import TAIL_READ
from tests.fuzz.readers import INCOMPLETE, REFUSED

FIRST = ((b"GET", b"/"), [(b"host", b"h")], b"")
OTHER = ((b"GET", b"/"), [(b"host", b"g")], b"")
HIDDEN = ((b"GET", b"/smuggled"), [(b"host", b"h")], b"")


@pytest.mark.parametrize(
    ("reading", "verdict"),
    [
        ([FIRST, TAIL_READ], "same"),
        ([FIRST], "same"),  # it ends the connection
        ([FIRST, REFUSED], "same"),
        ([REFUSED], "refused"),
        ([OTHER, TAIL_READ], "different"),
        ([FIRST, HIDDEN, TAIL_READ], "smuggled"),
        ([FIRST, INCOMPLETE], "smuggled"),
        ([OTHER, REFUSED], "smuggled"),
        ([OTHER], "smuggled"),
        ([INCOMPLETE], "smuggled"),
    ],
)
def test_what_a_reader_makes_of_a_message(reading, verdict):
    assert judged(reading, FIRST, TAIL_READ) == verdict


def test_fastlb_lets_no_mutant_through():
    row, examples = mutated(Fastlb, 300, 5, answers)
    assert (row["read differently"], row["smuggled"], row["workers crashed"]) == (0, 0, 0), examples
    assert row["forwarded"] > 50
    assert row["refused"] > 50


def test_a_log_with_hashes_is_read_as_it_was_meant(tmp_path):
    peer = HAProxy(tmp_path, 1, [2], logs=True)
    lines = [b"seen n0 #23GET /a#22b#23", b"seen <NOSRV> GET /refused", b"something else"]
    (tmp_path / "log").write_bytes(b"\n".join(lines))
    assert peer.seen() == [(b"#GET", b'/a"b#')]


def test_connections_of_a_process_that_wait_for_an_answer(tmp_path):
    waiting = Waiting(tmp_path / "waiting", 3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as one, listener.accept()[0]:
            with socket.create_connection(("127.0.0.1", port)):  # waits in the queue
                mine = one.getsockname()[1]
                waiting.set(1, mine)
                assert accepted(os.getpid(), port) == {mine}
                assert Waiting(tmp_path / "waiting").ports() == {mine}
                waiting.set(1, 0)
                assert waiting.ports() == set()
