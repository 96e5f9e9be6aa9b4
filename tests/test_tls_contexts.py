"""TLS contexts in a worker: what they accept, what they refuse, and how long they live."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from fastlb import tls_addresses, tls_contexts, tls_tickets
from fastlb.certificates import der_of, der_of_key
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_contexts import Built, build
from fastlb.tls_material import (
    CertificateMaterial,
    Material,
    PoolMaterial,
    ServerMaterial,
    encode,
)
from tests.harness.certificates import Authority, Pair
from tests.harness.tls_meeting import client, meet

tls_addresses.load()


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    tls_contexts._known.clear()
    tls_contexts._retired.clear()
    yield
    tls_contexts._known.clear()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def of(pair: Pair, server: int = 0, **more: Any) -> CertificateMaterial:
    chain = tuple(map(der_of, (pair.made, *pair.chain)))
    return CertificateMaterial(server, chain, der_of_key(pair.key), **more)


def material(pair: Pair, ocsp: bytes = b"", **more: Any) -> Material:
    server = ServerMaterial("shop", **more)
    return Material(servers=(server,), certificates=(of(pair, ocsp=ocsp),))


def built(material: Material, keys: TicketKeys | None = None) -> Built:
    return build(encode(material, (keys or TicketKeys()).keys))


def server(pair: Pair, **more: Any) -> SSL.Context:
    return built(material(pair, **more)).ones[0].context


# --- the order, and what is kept ---


def test_one_context_for_each_certificate_and_ticket_key_then_the_pools(
    authority: Authority,
) -> None:
    a, b = authority.certificate("a.test"), authority.certificate("b.test", intermediate=True)
    keys = TicketKeys()
    keys.rotate()
    made = Material(
        (ServerMaterial("shop"),), (of(a), of(b)), (PoolMaterial(False), PoolMaterial())
    )
    found = built(made, keys)
    assert len(set(found.addresses)) == 2 * 3 + 2
    shown = [meet(one.context, client()).certificate() for one in found.ones[:6]]
    assert shown == [der_of(a.made)] * 3 + [der_of(b.made)] * 3
    layout = tls_tickets.shared_layout()
    assert layout is not None
    for index, one in enumerate(found.ones[:6]):
        name = tls_tickets._heap().read(one.address + layout.name_at, 16)
        assert name == keys.names()[index % 3]


def test_what_did_not_change_is_kept_over_a_reload(authority: Authority) -> None:
    a, b, c = (authority.certificate(f"{name}.test") for name in "abc")
    keys = TicketKeys()
    shop, other = ServerMaterial("shop"), ServerMaterial("other")
    before = built(Material((shop,), (of(a), of(b)), (PoolMaterial(),)), keys)
    # Another certificate, another order, another virtual server in front.
    after = built(Material((other, shop), (of(c, 0), of(b, 1), of(a, 1)), (PoolMaterial(),)), keys)
    assert after.addresses[2:4] == before.addresses[2:4]
    assert after.addresses[4:6] == before.addresses[0:2]
    assert after.addresses[6] == before.addresses[4]
    assert not set(after.addresses[0:2]) & set(before.addresses)
    before.release()
    again = built(Material((shop,), (of(a), of(b)), (PoolMaterial(),)), keys)
    assert again.addresses == before.addresses
    after.release()
    again.release()
    assert not tls_contexts._known


@pytest.mark.parametrize(
    "change",
    [
        {"min_version": "1.3"}, {"ciphers": "ECDHE+AESGCM"}, {"tickets": False}, {"name": "b"},
        {"ciphersuites": "TLS_AES_128_GCM_SHA256"},
    ],
)  # fmt: skip
def test_what_did_change_is_made_anew(authority: Authority, change: dict[str, Any]) -> None:
    pair, keys = authority.certificate("shop.test"), TicketKeys()
    before = built(Material((ServerMaterial("a"),), (of(pair),)), keys)
    more = {"name": "a"} | change
    after = built(Material((ServerMaterial(**more),), (of(pair),)), keys)
    assert not set(before.addresses) & set(after.addresses)
    ocsp = built(Material((ServerMaterial("a"),), (of(pair, ocsp=b"x"),)), keys)
    assert not set(before.addresses) & set(ocsp.addresses)


def test_contexts_live_while_a_plan_has_them(authority: Authority) -> None:
    keys = TicketKeys()
    one = material(authority.certificate("shop.test"))
    first, second = built(one, keys), built(one, keys)
    first.release()
    assert built(one, keys).addresses == second.addresses
    assert not tls_contexts._retired


def test_contexts_that_are_over_stay_for_running_handshakes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(material(authority.certificate("shop.test"))).release()
    assert len(tls_contexts._retired) == 2
    built(Material())
    assert len(tls_contexts._retired) == 2
    monkeypatch.setattr(tls_contexts, "RETIRED_S", -1.0)
    built(Material())
    assert not tls_contexts._retired


def test_keys_of_contexts_that_are_over_are_wiped(authority: Authority) -> None:
    keys = TicketKeys()
    found = built(material(authority.certificate("shop.test")), keys)
    context, theirs = found.ones[0].context, client()
    session = meet(context, theirs).session
    assert meet(context, theirs, session=session).reused
    found.release()
    assert not meet(context, theirs, session=session).reused


def test_material_that_is_no_material(authority: Authority) -> None:
    good = encode(material(authority.certificate("shop.test")), TicketKeys().keys)
    for data in (b"", b"\xc1", good[:-1], good[: len(good) // 2]):
        with pytest.raises(Exception, match=r".+"):
            build(data)
    assert not tls_contexts._known


def test_one_certificate_that_is_none_undoes_all(authority: Authority) -> None:
    a, b = authority.certificate("a.test"), authority.certificate("b.test")
    keys = TicketKeys()
    kept = built(material(a), keys)
    broken = CertificateMaterial(0, (der_of(a.made),), der_of_key(b.key))
    servers = (ServerMaterial("shop"),)
    with pytest.raises(SSL.Error):
        built(Material(servers, (of(a), of(b), broken)), keys)
    assert sorted(one.address for one in tls_contexts._known.values()) == sorted(kept.addresses)


# --- tickets and sessions ---


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_tickets_outlive_a_worker_a_reload_and_a_rotation(
    authority: Authority, version: str
) -> None:
    pair, keys = authority.certificate("shop.test"), TicketKeys()
    one, theirs = material(pair), client(version)
    session = meet(built(one, keys).ones[0].context, theirs).session
    tls_contexts._known.clear()  # as a worker that has just started
    assert meet(built(one, keys).ones[0].context, theirs, session=session).reused
    keys.rotate()
    after = built(one, keys)
    assert [meet(each.context, theirs, session=session).reused for each in after.ones] == [
        False, False, True,
    ]  # fmt: skip
    keys.rotate()
    for each in built(one, keys).ones:
        assert not meet(each.context, theirs, session=session).reused


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_ticket_of_a_worker_that_rotated_a_moment_earlier(
    authority: Authority, version: str
) -> None:
    pair, keys = authority.certificate("shop.test"), TicketKeys()
    late = built(material(pair), keys)
    keys.rotate()
    tls_contexts._known.clear()
    session = meet(built(material(pair), keys).ones[0].context, theirs := client(version)).session
    assert meet(late.ones[1].context, theirs, session=session).reused


def test_a_session_is_not_resumed_where_more_is_demanded(authority: Authority) -> None:
    """Another virtual server, another certificate, another demand on clients: a full handshake."""
    pair, other = authority.certificate("shop.test"), authority.certificate("shop.test")
    ca = (der_of(authority.made),)
    theirs, keys = client(pair=authority.certificate("alice", client=True)), TicketKeys()
    servers = (
        ServerMaterial("a"), ServerMaterial("b"),
        ServerMaterial("a", client_certificates="optional", client_ca=ca),
    )  # fmt: skip
    several = (of(pair), of(pair, 1), of(pair, 2), of(other))
    contexts = [one.context for one in built(Material(servers, several), keys).ones[::2]]
    session = meet(contexts[0], theirs).session
    assert [meet(each, theirs, session=session).reused for each in contexts] == [
        True, False, False, False,
    ]  # fmt: skip


def test_without_tickets_none_are_granted_and_ids_still_resume(authority: Authority) -> None:
    pair, theirs = authority.certificate("shop.test"), client("1.2")
    found = built(material(pair, tickets=False))
    assert len(set(found.addresses)) == 1
    context = found.ones[0].context
    session = meet(context, theirs).session
    assert session is not None
    assert not session.has_ticket
    assert meet(context, theirs, session=session).reused


def test_clients_without_tickets_resume_by_id(authority: Authority) -> None:
    context, theirs = server(authority.certificate("shop.test")), client("1.2", tickets=False)
    session = meet(context, theirs).session
    assert meet(context, theirs, session=session).reused


def test_where_there_are_many_certificates_no_sessions_are_kept(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_contexts, "SESSION_IDS_MAX", 0)
    pair = authority.certificate("shop.test")
    context, theirs = server(pair), client("1.2", tickets=False)
    session = meet(context, theirs).session
    assert not meet(context, theirs, session=session).reused


def test_an_unknown_layout_leaves_each_worker_its_own_keys(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_contexts, "shared_layout", lambda: None)
    one, keys, theirs = material(authority.certificate("shop.test")), TicketKeys(), client()
    found = built(one, keys)
    assert len(found.addresses) == 2
    assert len(set(found.addresses)) == 1
    session = meet(found.ones[0].context, theirs).session
    assert meet(found.ones[0].context, theirs, session=session).reused


def test_a_context_whose_key_cannot_be_written_keeps_its_own(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_contexts, "share_key", lambda *given: False)
    found = built(material(authority.certificate("shop.test")))
    theirs = client()
    session = meet(found.ones[0].context, theirs).session
    assert meet(found.ones[0].context, theirs, session=session).reused
    found.release()


# --- what is spoken ---


def test_versions(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    assert meet(server(pair), client("1.2")).version == "TLSv1.2"
    assert meet(server(pair), client()).version == "TLSv1.3"
    assert meet(server(pair, min_version="1.3"), client()).version == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        meet(server(pair, min_version="1.3"), client("1.2"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_that_are_too_old(authority: Authority, version: ssl.TLSVersion) -> None:
    old = client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        meet(server(authority.certificate("shop.test")), old)


def test_the_server_chooses_the_cipher(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    context = server(pair, ciphers="ECDHE+AESGCM:ECDHE+CHACHA20")
    offered = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    met = meet(context, client("1.2", ciphers=offered))
    assert met.theirs.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"  # type: ignore[index]
    mobile = "ECDHE-ECDSA-CHACHA20-POLY1305:" + offered
    met = meet(context, client("1.2", ciphers=mobile))
    assert met.theirs.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"  # type: ignore[index]
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.handshake.failure"):
        meet(context, client("1.2", ciphers="ECDHE-ECDSA-AES128-SHA"))


def test_suites_of_tls_13(authority: Authority) -> None:
    context = server(
        authority.certificate("shop.test"), ciphersuites="TLS_CHACHA20_POLY1305_SHA256"
    )
    met = meet(context, client("1.3"))
    assert met.theirs.cipher()[0] == "TLS_CHACHA20_POLY1305_SHA256"  # type: ignore[index]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"),
        (["http/1.0"], "http/1.0"), (["x" * 255, "http/1.1"], "http/1.1"),
    ],
)  # fmt: skip
def test_protocols(authority: Authority, offered: list[str] | None, chosen: str | None) -> None:
    theirs = client(alpn=offered) if offered else client()
    assert meet(server(authority.certificate("shop.test")), theirs).alpn == chosen


@pytest.mark.parametrize("offered", [["h2"], ["h2", "http/1.10"], ["HTTP/1.1"], ["acme-tls/1"]])
def test_a_client_that_speaks_none_of_our_protocols(
    authority: Authority, offered: list[str]
) -> None:
    with pytest.raises(ssl.SSLError, match="alert no application protocol"):
        meet(server(authority.certificate("shop.test")), client(alpn=offered))


def test_what_no_client_may_do(authority: Authority) -> None:
    options = server(authority.certificate("shop.test")).set_options(0)
    assert options & SSL.OP_NO_COMPRESSION
    assert options & tls_contexts.lib.SSL_OP_NO_RENEGOTIATION
    context = server(authority.certificate("shop.test"))
    assert context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS


def test_groups_that_the_library_has_not(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_contexts, "GROUPS", (b"NOTHING:X25519", b"P-256"))
    assert meet(server(authority.certificate("shop.test")), client()).version == "TLSv1.3"
    monkeypatch.setattr(tls_contexts, "GROUPS", (b"NOTHING",))
    with pytest.raises(ValueError, match="none of the usual groups"):
        server(authority.certificate("other.test"))


def test_the_whole_chain_is_sent_and_nothing_else(authority: Authority) -> None:
    pair = authority.certificate("shop.test", intermediate=True)
    theirs = ssl.create_default_context(cafile=authority.file)
    assert meet(server(pair), theirs).certificate() == der_of(pair.made)
    ca = (der_of(pair.chain[0]),)  # which must not be used to complete what the file lacks
    alone = Pair(pair.certificate_path, pair.key_path, pair.made, pair.key, [])
    context = server(alone, client_certificates="optional", client_ca=ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(context, theirs)


# --- OCSP ---


def asked(context: SSL.Context) -> bytes:
    """What a client that asks for a status is given."""
    seen: list[bytes] = []

    def note(connection: SSL.Connection, data: bytes, unused: object) -> bool:
        seen.append(data)
        return True

    theirs = SSL.Context(SSL.TLS_CLIENT_METHOD)
    theirs.set_ocsp_client_callback(note)
    end = SSL.Connection(theirs, None)
    end.request_ocsp()
    end.set_connect_state()
    ours = SSL.Connection(context, None)
    ours.set_accept_state()
    for _ in range(3):
        for one, other in ((end, ours), (ours, end)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 16))
    return b"".join(seen)


def test_a_response_is_stapled_until_it_is_old(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    response = authority.ocsp(pair).read_bytes()
    servers = (ServerMaterial("shop"),)
    for until, shown in ((0, response), (1 << 40, response), (1, b"")):
        one = of(pair, ocsp=response, ocsp_until_s=until)
        found = built(Material(servers, (one,)))
        for _ in range(3):
            assert asked(found.ones[0].context) == shown
    assert asked(server(pair)) == b""


# --- client certificates ---


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_certificates(authority: Authority, version: str, tmp_path: Path) -> None:
    pair, alice = authority.certificate("shop.test"), authority.certificate("alice", client=True)
    stranger = Authority(tmp_path, "a stranger").certificate("mallory", client=True)
    ca = (der_of(authority.made),)
    subject = b"CN=alice"
    for mode, without, known, unknown in (
        ("off", b"", b"", b""),
        ("optional", b"", subject, None),
        ("required", None, subject, None),
    ):
        context = server(pair, client_certificates=mode, client_ca=ca)
        for who, expected in ((None, without), (alice, known), (stranger, unknown)):
            theirs = client(version, pair=who) if who else client(version)
            if expected is None:
                with pytest.raises((SSL.Error, ssl.SSLError)):
                    meet(context, theirs)
            else:
                met = meet(context, theirs)
                assert tls_contexts.peer_subject(met.address) == expected


def test_a_server_certificate_is_no_client_certificate(authority: Authority) -> None:
    ca = (der_of(authority.made),)
    context = server(
        authority.certificate("shop.test"), client_certificates="optional", client_ca=ca
    )
    with pytest.raises((SSL.Error, ssl.SSLError)):
        meet(context, client(pair=authority.certificate("web.test")))


# --- towards nodes ---


def node_met(context: SSL.Context, pair: Pair) -> str:
    """ "verified", or why the node at the other end is not."""
    node = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    node.load_cert_chain(pair.certificate_path, pair.key_path)
    to_node, to_us = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = node.wrap_bio(to_node, to_us, server_side=True)
    ours = SSL.Connection(context, None)
    ours.set_connect_state()
    for _ in range(4):
        try:
            ours.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            return str(error)
        with suppress(SSL.WantReadError):
            to_node.write(ours.bio_read(1 << 16))
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        data = to_us.read()
        if data:
            ours.bio_write(data)
    return "verified"


def test_nodes_are_verified(authority: Authority, tmp_path: Path) -> None:
    pair = authority.certificate("web.internal", "*.nodes.test")
    stranger = Authority(tmp_path, "a stranger").certificate("web.internal")
    trusted = ((der_of(authority.made),),)

    def context(**more: Any) -> SSL.Context:
        pool = PoolMaterial(authorities=0, **more)
        return built(Material(pools=(pool,), authorities=trusted)).ones[-1].context

    assert node_met(context(), pair) == "verified"
    assert node_met(context(server_name="web.internal"), pair) == "verified"
    assert node_met(context(server_name="a.nodes.test"), pair) == "verified"
    assert "certificate verify failed" in node_met(context(server_name="other.test"), pair)
    assert "certificate verify failed" in node_met(context(server_name="a.b.nodes.test"), pair)
    assert "certificate verify failed" in node_met(context(server_name="web.internal"), stranger)
    assert node_met(context(verify=False), stranger) == "verified"
    nobody = built(Material(pools=(PoolMaterial(),))).ones[0].context
    assert "certificate verify failed" in node_met(nobody, pair)
