"""ClientHello and the server's plain-text flight, from real handshakes and made by hand."""

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_tls as core
from tests.core.handshakes import (
    Recorded,
    client_hello,
    extension,
    handshake,
    records,
    sni,
    vector,
)
from tests.harness.chop import reframed

NAME = b"www.example.com"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


# ---- ClientHello ----


@pytest.mark.parametrize("client", ["1.2", "1.3"])
def test_a_real_hello(client: str) -> None:
    read = core.client_hello(handshake("1.2", client).client)
    assert read["sni"] == NAME
    assert read["alpn"] == b"\x02h2\x08http/1.1"
    assert read["version"] == 0x0303
    assert read["offers_tls13"] == (client == "1.3")
    assert read["offers_ticket"]
    assert read["ticket"] == b""
    assert not read["has_psk"]
    # TLS 1.3's middlebox compatibility sends a random one (RFC 8446 appendix D.4).
    assert len(read["session_id"]) == (32 if client == "1.3" else 0)


def test_a_resumption_by_session_id() -> None:
    first = handshake(tickets=False)
    again = handshake(tickets=False, session=first.session)
    assert again.reused
    assert first.session is not None
    assert core.client_hello(again.client)["session_id"] == first.session.id


def test_a_resumption_by_ticket() -> None:
    first = handshake()
    again = handshake(session=first.session)
    assert again.reused
    read = core.client_hello(again.client)
    assert core.ticket_hash(read["ticket"]) == core.server_flight([first.server])["ticket"]


def test_a_tls13_resumption() -> None:
    first = handshake("1.3", "1.3")
    read = core.client_hello(handshake("1.3", "1.3", session=first.session).client)
    assert read["has_psk"]
    assert read["offers_tls13"]


def test_no_server_name() -> None:
    assert core.client_hello(handshake(name=None).client)["sni"] == b""


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 600), max_size=12), sizes=st.lists(st.integers(1, 200)))
def test_any_segmentation_over_any_records_reads_alike(cuts: list[int], sizes: list[int]) -> None:
    message = client_hello(b"s" * 32, sni(NAME) + extension(35, b"t" * 200) + extension(9999, b"u"))
    whole = core.client_hello(records(message))
    data = records(message, *sizes)
    read = core.client_hello(data, sorted(cut for cut in cuts if cut < len(data)))
    assert read | {"records": 0} == whole | {"records": 0}
    assert read["records"] == len(data)


def test_every_shorter_input_asks_for_more() -> None:
    data = records(client_hello(b"s" * 32, sni(NAME)), 3, 1, 40)
    for end in range(len(data)):
        assert core.client_hello(data[:end]) is None, end
    assert core.client_hello(data, list(range(1, len(data))))["sni"] == NAME


def test_what_follows_the_hello_is_left_alone() -> None:
    data = records(client_hello())
    assert core.client_hello(data + b"\x17\x03\x03\0\5early")["records"] == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2.0
        b"\x16\x02\x01\0\5",
        b"\x17\x03\x03\0\5",
        b"\x16\x03\x01\0\5\2",  # a ServerHello
        b"\x16\x03\x01\0\0",
        b"\0",
    ],
)
def test_not_tls(data: bytes) -> None:
    assert core.client_hello(data) == "not-tls"


@pytest.mark.parametrize(
    "message",
    [
        client_hello(b"s" * 33),
        client_hello(ciphers=b""),
        client_hello(ciphers=b"\xc0"),
        client_hello(compression=b""),
        client_hello(version=b"\x02\0"),
        client_hello(extensions=b"\0"),
        client_hello(extensions=b"\0\0\0\5ab"),
        client_hello(extensions=sni(NAME) + sni(NAME)),
        client_hello(extensions=sni(b"")),
        client_hello(extensions=sni(b"a\0b")),
        client_hello(extensions=sni(b"a b")),
        client_hello(extensions=sni(b"x" * 256)),
        client_hello(extensions=extension(0, b"")),
        client_hello(extensions=extension(0, b"\0\0")),
        client_hello(extensions=extension(0, vector(b"\0\0\1a\0\0\1b", 2))),
        client_hello(extensions=extension(0, vector(b"\0\0\1a", 2) + b"x")),
        client_hello(extensions=extension(16, b"\0\0")),
        client_hello(extensions=extension(16, b"\0\1\0")),
        client_hello(extensions=extension(16, b"\0\2\5h")),
        client_hello(extensions=extension(43, b"\0")),
        client_hello(extensions=extension(43, b"\1\3")),
        client_hello(extensions=extension(43, b"\4\3\4")),
        client_hello() + b"x",
        b"\x01\0\0\0",
    ],
)
def test_malformed(message: bytes) -> None:
    assert core.client_hello(records(message)) == "malformed"


def test_a_record_of_another_kind_in_the_middle_is_malformed() -> None:
    message = client_hello()
    first = records(message[:20])
    assert core.client_hello(first + b"\x15\x03\x01\0\2\1\0") == "malformed"


def test_a_hello_without_extensions() -> None:
    read = core.client_hello(records(client_hello(b"id", None, b"\x03\x01")))
    assert (read["version"], read["session_id"], read["sni"]) == (0x0301, b"id", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\xff\xff",
        records(b"\x01\xff\xff\xff"),
        records(b"\x01" + (16384 - 3).to_bytes(3, "big")),
        records(client_hello(extensions=extension(21, bytes(16370))), *[1] * 4096),
    ],
)
def test_too_long(data: bytes) -> None:
    assert core.client_hello(data) == "too-long"


def test_the_longest_hello() -> None:
    room = 16384 - len(client_hello(extensions=extension(21, b"")))
    message = client_hello(extensions=extension(21, bytes(room)))
    assert len(message) == 16384
    assert core.client_hello(records(message, 7, 500))["records"] == 16384 + 15
    longer = client_hello(extensions=extension(21, bytes(room + 1)))
    assert core.client_hello(records(longer, 7, 500)) == "too-long"


def test_alpn_names() -> None:
    names = b"\x02h2\x08http/1.1"
    assert core.alpn_has(names, b"h2")
    assert core.alpn_has(names, b"http/1.1")
    assert not core.alpn_has(names, b"http/1")
    assert not core.alpn_has(b"", b"h2")


@cache
def flights() -> list[Recorded]:
    """Full and resumed handshakes by id, by ticket, of TLS 1.3, and of both versions."""
    ids, tickets = handshake(tickets=False), handshake()
    newest = handshake("1.3", "1.3")
    return [
        ids,
        handshake(tickets=False, session=ids.session),
        tickets,
        handshake(session=tickets.session),
        handshake("1.2", "1.3"),
        newest,
        handshake("1.3", "1.3", session=newest.session),
        handshake(name=None),
    ]


def mutated(data: bytes, pick: random.Random, edits: int) -> bytes:
    changing = bytearray(data)
    for _ in range(edits):
        at = pick.randrange(len(changing) or 1)
        length = pick.randrange(1, 9)
        match pick.randrange(7):
            case 0 if changing:
                changing[at] ^= 1 << pick.randrange(8)
            case 1 if changing:
                changing[at] = pick.choice([0, 1, 2, 4, 0xFF, 0x14, 0x16, 0x7F])
            case 2:
                del changing[at : at + length]
            case 3:
                changing[at:at] = pick.randbytes(length)
            case 4:
                changing[at:at] = changing[at : at + pick.randrange(1, 200)]
            case 5:
                other = pick.choice(flights())
                changing[at:] = pick.choice([other.client, other.server])[at:]
            case _:
                del changing[max(at, 6) :]
    return bytes(changing)


@settings(max_examples=400)
@given(seed=st.integers(0, 1 << 32), edits=st.integers(0, 6), most=st.sampled_from([0, 1, 9, 300]))
def test_mutated_handshakes_in_any_pieces_and_records(seed: int, edits: int, most: int) -> None:
    """No crash, no endless loop, no byte read beyond the end (the input ends at a wall), and what
    is read does not depend on how it was cut."""
    pick = random.Random(seed)
    recorded = pick.choice(flights())
    for kind in ("client", "server"):
        data = mutated(reframed(getattr(recorded, kind), most, pick), pick, edits)
        cuts = [pick.randrange(len(data) + 1) for _ in range(pick.randrange(12))]
        if kind == "client":
            whole = core.client_hello(data)
            assert core.client_hello(data, sorted(cuts)) == whole
            if edits == 0:
                assert whole | {"records": 0} == core.client_hello(recorded.client) | {"records": 0}
        else:
            read = core.server_flight([data])
            assert core.server_flight(pieces(data, cuts)) == read
            if edits == 0:
                assert read == core.server_flight([recorded.server])


# ---- the server's flight ----


def test_a_granted_session_id() -> None:
    recorded = handshake(tickets=False)
    read = core.server_flight([recorded.server])
    assert recorded.session is not None
    assert read == {
        "over": True, "hello": True, "tls13": False, "version": 0x0303,
        "session_id": recorded.session.id, "ticket": None,
    }  # fmt: skip


def test_a_granted_ticket() -> None:
    recorded = handshake()
    read = core.server_flight([recorded.server])
    assert recorded.session is not None
    assert recorded.session.has_ticket
    assert read["session_id"] == b""
    resumed = core.client_hello(handshake(session=recorded.session).client)
    assert read["ticket"] == core.ticket_hash(resumed["ticket"])


def test_tls13_says_nothing_to_learn() -> None:
    read = core.server_flight([handshake("1.3", "1.3").server])
    assert read["hello"]
    assert read["tls13"]
    assert read["over"]
    assert read["ticket"] is None


def hello(
    session_id: bytes = b"", extensions: bytes | None = b"", version: bytes = b"\x03\x03"
) -> bytes:
    body = version + bytes(32) + vector(session_id, 1) + b"\xc0\x2b\0"
    if extensions is not None:
        body += vector(extensions, 2)
    return b"\x02" + vector(body, 3)


def ticket(data: bytes) -> bytes:
    return b"\x04" + vector(bytes(4) + vector(data, 2), 3)


CERTIFICATE = b"\x0b" + vector(bytes(5000), 3)
DONE = b"\x0e\0\0\0"


def test_a_hello_retry_request_is_tls13() -> None:
    read = core.server_flight([records(hello(b"i" * 32, extension(43, b"\x03\x04")))])
    assert read["tls13"]
    assert read["over"]


@settings(max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 7000), max_size=20),
    sizes=st.lists(st.integers(1, 900), max_size=9),
)
def test_any_segmentation_of_the_flight_reads_alike(cuts: list[int], sizes: list[int]) -> None:
    message = (
        hello(b"id" * 16, extension(23, b"") + extension(35, b"")) + CERTIFICATE + DONE
        + ticket(b"T" * 300)
    )  # fmt: skip
    data = records(message, *sizes) + b"\x14\x03\x03\0\1\1"
    read = core.server_flight(pieces(data, cuts))
    assert read["over"]
    assert read["session_id"] == b"id" * 16
    assert read["ticket"] == core.ticket_hash(b"T" * 300)


def test_byte_by_byte() -> None:
    data = handshake().server
    assert core.server_flight([bytes([b]) for b in data]) == core.server_flight([data])


def test_an_empty_ticket_is_none() -> None:
    read = core.server_flight([records(hello() + ticket(b""))])
    assert read["ticket"] is None
    assert not read["over"]


def test_of_two_tickets_the_last_counts() -> None:
    read = core.server_flight([records(hello() + ticket(b"a") + ticket(b"b"))])
    assert read["ticket"] == core.ticket_hash(b"b")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\0\2\2\x28",
        b"\x16\x03\x03\0\0",
        b"\x16\x03\x03\xff\xff",
        records(hello(b"x" * 33)),
        records(b"\x02\0\0\4abcd"),
        records(hello(extensions=b"\0")),
        records(hello(extensions=b"\0\x17\0\5ab")),
        records(b"\x02" + vector(hello()[4:] + b"x", 3)),
        records(hello(b"i", None)[:1] + vector(hello(b"i", None)[4:-1], 3)),
    ],
)
def test_no_valid_flight_grants_nothing(data: bytes) -> None:
    read = core.server_flight([data + bytes(40)])
    assert read["over"]
    assert not read["hello"]


def test_a_ticket_of_a_wrong_length_is_none() -> None:
    wrong = b"\x04" + vector(bytes(4) + b"\0\3ab", 3)
    read = core.server_flight([records(hello(b"id") + wrong)])
    assert read["session_id"] == b"id"
    assert read["ticket"] is None
    assert read["over"]


def test_a_ticket_before_the_hello_is_none() -> None:
    assert core.server_flight([records(ticket(b"early") + hello())])["ticket"] is None


def test_a_second_hello_changes_nothing() -> None:
    read = core.server_flight([records(hello(b"one") + hello(b"two"))])
    assert read["session_id"] == b"one"


def test_ids_and_tickets_have_different_hashes() -> None:
    assert core.ticket_hash(b"same") != core.session_id_hash(b"same")
    assert core.session_id_hash(b"a") != core.session_id_hash(b"b")
