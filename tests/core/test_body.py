"""Bodies: one literal input per line, whole and in segments; h11 as the judge."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_body as core

END = b"0\r\n\r\n"

CHUNKED = [
    # name, input, data, result; "done" must consume all but what follows "|"
    ("last chunk", END, b"", "done"),
    ("one chunk", b"5\r\nhello\r\n" + END, b"hello", "done"),
    ("two chunks", b"5\r\nhello\r\n1\r\n!\r\n" + END, b"hello!", "done"),
    ("size case", b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + END, b"0123456789" * 2, "done"),
    ("size zeros", b"0005\r\nhello\r\n000\r\n\r\n", b"hello", "done"),
    ("data crlf", b"4\r\n\r\n\r\n\r\n" + END, b"\r\n\r\n", "done"),
    ("next message", END + b"|GET / HTTP/1.1", b"", "done"),
    ("not ended", b"5\r\nhel", b"hel", "more"),
    ("end missing", b"5\r\nhello\r\n0\r\n", b"hello", "more"),
    ("size empty", b"\r\nhello", b"", "chunk-size"),
    ("size sign", b"+5\r\nhello\r\n", b"", "chunk-size"),
    ("size minus", b"-1\r\n", b"", "chunk-size"),
    ("size prefix", b"0x5\r\nhello\r\n", b"", "chunk-size"),
    ("size letters", b"5g\r\nhello\r\n", b"", "chunk-size"),
    ("size space", b" 5\r\nhello\r\n", b"", "chunk-size"),
    ("space after", b"5 \r\nhello\r\n", b"", "chunk-extension"),
    ("tab after", b"5\t\r\nhello\r\n", b"", "chunk-extension"),
    ("size lf", b"5\nhello\r\n", b"", "chunk-size"),
    ("size cr", b"5\rhello\r\n", b"", "chunk-size"),
    ("size nul", b"5\0\r\nhello", b"", "chunk-size"),
    ("size most", b"7fffffffffffffff\r\nab", b"ab", "more"),
    ("size over", b"8000000000000000\r\nab", b"", "chunk-overflow"),
    ("size wraps", b"10000000000000005\r\nhello\r\n", b"", "chunk-overflow"),
    ("size endless", b"0" * 5000, b"", "chunk-overflow"),
    ("size longest", b"0" * 15 + b"5\r\nhello\r\n" + END, b"hello", "done"),
    ("size too long", b"0" * 16 + b"5\r\nhello\r\n" + END, b"", "chunk-overflow"),
    ("size long twice", (b"0" * 15 + b"1\r\nx\r\n") * 2 + END, b"xx", "done"),
    ("data long", b"5\r\nhello!\r\n", b"hello", "chunk-end"),
    ("data lf", b"5\r\nhello\n", b"hello", "chunk-end"),
    ("data cr", b"5\r\nhello\r0", b"hello", "chunk-end"),
    # extensions
    ("ext name", b"5;a\r\nhello\r\n" + END, b"hello", "done"),
    ("ext value", b"5;a=b\r\nhello\r\n" + END, b"hello", "done"),
    ("ext white", b"5 ;\ta = b ; c\r\nhello\r\n" + END, b"hello", "done"),
    ("ext quoted", b'5;a="b;\\"\t \xe4"\r\nhello\r\n' + END, b"hello", "done"),
    ("ext last", b"0;a=b\r\n\r\n", b"", "done"),
    ("ext empty", b"5;\r\nhello\r\n", b"", "chunk-extension"),
    ("ext nameless", b"5;=b\r\n", b"", "chunk-extension"),
    ("ext valueless", b"5;a=\r\n", b"", "chunk-extension"),
    ("ext trailing", b"5;a \r\n", b"", "chunk-extension"),
    ("ext words", b"5;a b\r\n", b"", "chunk-extension"),
    ("ext lf", b"5;a\nhello", b"", "chunk-extension"),
    ("ext cr", b"5;a\rb\r\n", b"", "chunk-size"),
    ("ext nul", b"5;a\0\r\n", b"", "chunk-extension"),
    ("quoted lf", b'5;a="b\nc"\r\n', b"", "chunk-extension"),
    ("quoted cr", b'5;a="b\r\n', b"", "chunk-extension"),
    ("quoted more", b'5;a="b"c\r\n', b"", "chunk-extension"),
    ("quoted pair", b'5;a="\\\n"\r\n', b"", "chunk-extension"),
    ("ext longest", b"5;" + b"a" * 4091 + b"\r\nhello\r\n" + END, b"hello", "done"),
    ("ext long", b"5;" + b"a" * 4096 + b"\r\nhello\r\n", b"", "chunk-line"),
    ("ext endless", (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 5, b"xxxx", "overhead"),
    ("tiny chunks", b"1\r\nx\r\n" * 4000 + END, b"x" * 4000, "done"),
    # trailers
    ("one trailer", b"0\r\nX-Sum: 1\r\n\r\n", b"", "done"),
    ("two trailers", b"0\r\nA: \r\nB:b\tc\xe4\r\n\r\n|x", b"", "done"),
    ("trailer folded", b"0\r\nA: b\r\n c\r\n\r\n", b"", "trailer"),
    ("trailer space", b"0\r\nA : b\r\n\r\n", b"", "trailer"),
    ("trailer colonless", b"0\r\nA\r\n\r\n", b"", "trailer"),
    ("trailer nameless", b"0\r\n: b\r\n\r\n", b"", "trailer"),
    ("trailer lf", b"0\r\nA: b\n\r\n", b"", "trailer"),
    ("trailer cr", b"0\r\nA: b\rc\r\n\r\n", b"", "trailer"),
    ("trailer nul", b"0\r\nA: b\0\r\n\r\n", b"", "trailer"),
    ("end lf", b"0\r\n\n", b"", "trailer"),
    ("end cr", b"0\r\n\rx", b"", "trailer"),
    ("trailer length", b"0\r\nContent-Length: 5\r\n\r\n", b"", "trailer-field"),
    ("trailer coding", b"0\r\ntransfer-encoding: chunked\r\n\r\n", b"", "trailer-field"),
    ("trailer host", b"0\r\nX: y\r\nHOST: a\r\n\r\n", b"", "trailer-field"),
    ("trailer cookie", b"0\r\nSet-Cookie: a=b\r\n\r\n", b"", "trailer-field"),
    ("trailer forwarded", b"0\r\nX-Forwarded-For: 1\r\n\r\n", b"", "trailer-field"),
    ("trailer alias", b"0\r\nX: y\r\nContent_Length: 5\r\n\r\n", b"", "trailer-field"),
    ("trailer certificate", b"0\r\nX-Client-Certificate: a\r\n\r\n", b"", "trailer-field"),
    ("trailer subject", b"0\r\nx_client_certificate-subject: a\r\n\r\n", b"", "trailer-field"),
    ("trailer similar", b"0\r\nContent-Lengthy: 5\r\nX-Host: a\r\n\r\n", b"", "done"),
    ("trailer longname", b"0\r\n" + b"a" * 300 + b": b\r\n\r\n", b"", "done"),
    ("trailers long", b"0\r\n" + b"A: b\r\n" * 1400 + b"\r\n", b"", "trailer-too-long"),
    ("trailer endless", b"0\r\nA: " + b"b" * 9000, b"", "trailer-too-long"),
]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def identifiers(cases: list[tuple]) -> list[str]:
    names = [case[0].replace(" ", "-") for case in cases]
    assert len(set(names)) == len(names)
    return names


@pytest.mark.parametrize(
    ("text", "data", "result"), [c[1:] for c in CHUNKED], ids=identifiers(CHUNKED)
)
def test_chunked(text: bytes, data: bytes, result: str) -> None:
    message, _, after = text.partition(b"|")
    text = message + after
    for size in (len(text), 1, 3, 17):
        read, consumed, state = core.read("chunked", cut(text, size))
        assert (read, state) == (data, result)
        if result == "done":
            assert consumed == len(message)
        passed, state = core.passed("chunked", cut(text, size))
        assert state == result
        assert passed == consumed


def test_every_error_is_shown_above() -> None:
    assert set(core.error_names()) <= {c[3] for c in CHUNKED}


def test_length() -> None:
    for size in (1, 2, 100):
        assert core.read("length", cut(b"hello, more", size), 5) == (b"hello", 5, "done")
        assert core.read("length", cut(b"hell", size), 5) == (b"hell", 4, "more")
    assert core.read("length", [b"next"], 0) == (b"", 0, "done")


def test_none() -> None:
    assert core.read("none", [b"next"]) == (b"", 0, "done")
    assert core.passed("none", [b"next"]) == (0, "done")


def test_until_close() -> None:
    assert core.read("until-close", [b"a", b"\r\n0"]) == (b"a\r\n0", 4, "more")


@pytest.mark.parametrize(
    ("kind", "data", "length", "complete"),
    [
        ("none", b"", 0, True),
        ("until-close", b"", 0, True),
        ("until-close", b"abc", 0, True),
        ("length", b"abc", 3, True),
        ("length", b"ab", 3, False),
        ("chunked", b"0\r\n\r\n", 0, True),
        ("chunked", b"0\r\n", 0, False),
        ("chunked", b"3\r\nabc\r\n", 0, False),
        ("chunked", b"", 0, False),
    ],
)
def test_closed_by_the_peer(kind: str, data: bytes, length: int, complete: bool) -> None:
    assert core.closed(kind, data, length) is complete


def test_splice() -> None:
    # What is expected, what the rest consumes, data bytes, state.
    assert core.skipped("length", b"ab", 98, b"next", 100) == (98, 0, 100, "done")
    assert core.skipped("length", b"ab", 8, b"x" * 91, 100) == (98, 90, 100, "done")
    assert core.skipped("chunked", b"10\r\nabc", 13, b"\r\n0\r\n\r\nx") == (13, 7, 16, "done")
    assert core.skipped("chunked", b"10\r\nabc", 3, b"x" * 10 + b"\r\n") == (13, 12, 16, "more")
    assert core.skipped("chunked", b"10", 0, b"\r\n") == (0, 2, 0, "more")
    assert core.skipped("until-close", b"ab", 5, b"") == (2**63 - 1, 0, 7, "more")


tokens = st.text("abcXYZ09-", min_size=1, max_size=8).map(str.encode)
extensions = st.lists(
    st.tuples(
        tokens,
        st.one_of(
            st.just(b""),
            tokens.map(lambda t: b"=" + t),
            tokens.map(lambda t: b'="' + t + b' ;"'),
        ),
    ),
    max_size=2,
).map(lambda pairs: b"".join(b";" + a + b for a, b in pairs))
chunks = st.lists(st.tuples(st.binary(min_size=1, max_size=60), extensions), max_size=6)
trailers = st.lists(st.tuples(tokens.map(lambda t: b"X-" + t), tokens), max_size=3)
sizes = st.lists(st.integers(1, 40), max_size=30)


def segments(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    for size in cuts:
        found.append(data[at : at + size])
        at += size
    return [segment for segment in [*found, data[at:]] if segment]


def encoded(parts: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(data), ext, data) for data, ext in parts)
    return body + b"0\r\n" + b"".join(b"%s: %s\r\n" % field for field in after) + b"\r\n"


@given(chunks, trailers, sizes)
@settings(max_examples=200)
def test_chunked_as_h11_reads_it(
    parts: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    text = encoded(parts, after)
    data = b"".join(part for part, _ in parts)
    assert core.read("chunked", segments(text + b"GET", cuts)) == (data, len(text), "done")
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text)
    judge.next_event()
    read = b""
    while not isinstance(event := judge.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        read += bytes(event.data)
    assert read == data
    assert [(n, v) for n, v in event.headers] == [(n.lower(), v) for n, v in after]


@given(
    chunks,
    trailers,
    sizes,
    st.integers(0, 400),
    st.sampled_from([b"", b"\r", b"\n", b" ", b";", b'"', b"0", b"g", b"\0", b":"]),
)
@settings(max_examples=300)
def test_segments_change_nothing(
    parts: list[tuple[bytes, bytes]],
    after: list[tuple[bytes, bytes]],
    cuts: list[int],
    at: int,
    wrong: bytes,
) -> None:
    text = encoded(parts, after)
    at = min(at, len(text))
    text = text[:at] + wrong + text[at + 1 :]
    whole = core.read("chunked", [text] if text else [])
    pieces = core.read("chunked", segments(text, cuts))
    assert pieces[0] == whole[0]
    assert pieces[2] == whole[2]
    assert core.passed("chunked", segments(text, cuts))[1] == whole[2]


# ---- limits of the configuration ----


@pytest.mark.parametrize("size", [1, 1000])
def test_limit_of_a_chunk_line(size: int) -> None:
    line = b"5;" + b"a" * 100 + b"\r\n"
    text = line + b"hello\r\n" + END
    assert core.read("chunked", cut(text, size), limits=(len(line), 8192))[2] == "done"
    # Its LF is looked at without counting.
    assert core.read("chunked", cut(text, size), limits=(len(line) - 2, 8192))[2] == "chunk-line"


@pytest.mark.parametrize("size", [1, 1000])
def test_limit_of_the_trailers(size: int) -> None:
    section = b"A: " + b"b" * 100 + b"\r\n\r\n"
    text = b"0\r\n" + section
    assert core.read("chunked", cut(text, size), limits=(4096, len(section)))[2] == "done"
    assert core.read("chunked", cut(text, size), limits=(4096, len(section) - 1))[2] == (
        "trailer-too-long"
    )
    assert core.read("chunked", cut(b"0\r\n\r\n", size), limits=(4096, 2))[2] == "done"


def test_a_long_chunk_line_that_is_allowed() -> None:
    text = b"1;" + b"a" * 30000 + b"\r\nx\r\n" + END
    assert core.read("chunked", [text], limits=(60000, 8192))[2] == "done"
