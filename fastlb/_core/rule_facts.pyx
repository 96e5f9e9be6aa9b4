# Facts are gathered for each call anew: the one before may have changed any of them.

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from fastlb._core.arena cimport arena_slice
from fastlb._core.attempt cimport attempt_local_address
from fastlb._core.connection cimport Exchange, TlsStream, Worker
from fastlb._core.decision cimport decision_node
from fastlb._core.plan cimport plan_pool
from fastlb._core.request cimport request_head_at
from fastlb._core.rule_call cimport (
    RULE_CONNECTION, RULE_RESPONSE, RULE_SETS_KEY, RULE_SETS_NODE, RULE_SETS_PERSISTENCE, RuleCall,
    RuleFacts, RuleState,
)
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.tls_hello cimport TlsClientHello, tls_client_hello
from fastlb._core.tls_library cimport tls

cdef const char* ALPN_HTTP_1_1 = "\x08http/1.1"


cdef Slice _offered(Worker* w, Exchange* x) noexcept nogil:
    # The hello stands at the beginning of what goes to the node first.
    cdef TlsClientHello hello
    memset(&hello, 0, sizeof(hello))
    if not x.has_hello or x.up.data == NULL or tls_client_hello(
            &hello, x.up.data.data + x.up.run, x.up.run_bytes, w.scratch) <= 0:
        return slice_of(NULL, 0)
    return hello.alpn


cdef void _tls(Worker* w, Exchange* x, RuleFacts* facts) noexcept nogil:
    cdef const TlsStream* t = x.client.stream.tls
    cdef const unsigned char* agreed = NULL
    cdef unsigned int count = 0
    if t == NULL:
        facts.sni = slice_of(x.sni, x.sni_bytes)
        facts.alpn = _offered(w, x)
        return
    facts.tls_ends_here = True
    facts.tls_version = t.version
    facts.sni = slice_of(t.sni, t.sni_bytes)
    if t.subject != NULL:
        facts.subject = slice_of(t.subject, t.subject_bytes)
    if t.certificate != NULL:
        facts.certificate = slice_of(t.certificate, t.certificate_bytes)
    # fastlb agrees on one protocol only.
    tls.SSL_get0_alpn_selected(t.ssl, &agreed, &count)
    if count == 8:
        facts.alpn = slice_of(ALPN_HTTP_1_1, 9)


cdef void _asked_for(const Exchange* x, RuleFacts* facts) noexcept nogil:
    cdef const RuleState* state = x.rules
    facts.sets = state.sets
    facts.pool = <int32_t> (x.pool - plan_pool(x.snapshot.plan, 0))
    facts.persistence = (state.persistence if state.sets & RULE_SETS_PERSISTENCE
                         else x.pool.persistence)
    facts.key = slice_of(NULL, 0)
    if state.sets & RULE_SETS_KEY:
        facts.key = arena_slice(&state.arena, state.key) if state.key.bytes else slice_of("", 0)
    if state.sets & RULE_SETS_NODE:
        facts.named = state.named


cdef void _request(Worker* w, const Exchange* x, RuleFacts* facts) noexcept nogil:
    facts.request = slice_of(request_head_at(x), x.head_end - x.head_start)
    facts.request_head = &w.request if w.request_of == x else NULL
    facts.method = x.method
    if w.request_of == x:
        facts.request_body = w.request.framing
        facts.request_length = w.request.content_length


cdef void _response(Worker* w, const Exchange* x, RuleFacts* facts) noexcept nogil:
    facts.response = arena_slice(&x.rules.arena, x.rules.head)
    facts.node = decision_node(x.snapshot.plan, x.pool, &x.decision).address
    if x.connected_us > x.tried_us:
        facts.connect_us = <uint32_t> (x.connected_us - x.tried_us)
    if x.first_byte_us > x.sent_us:
        facts.response_us = <uint32_t> (x.first_byte_us - x.sent_us)


cdef void rule_facts(Worker* w, Exchange* x, RuleCall* call) noexcept nogil:
    cdef RuleFacts* facts = &call.facts
    facts.plan = x.snapshot.plan
    facts.server = x.server
    facts.client = x.client_address
    facts.peer = x.client.peer
    facts.local = attempt_local_address(x.client)[0]
    facts.started_us = w.wall_us - (w.now_us - x.started_us)
    _asked_for(x, facts)
    _tls(w, x, facts)
    if not x.passage:
        _request(w, x, facts)
    if call.kind == RULE_RESPONSE:
        _response(w, x, facts)
    if call.data == NULL and call.kind != RULE_CONNECTION and x.client.rules != NULL \
            and x.client.rules.data != NULL:
        call.inherited = x.client.rules.data
        call.connection = x.client.rules
        call.connection.holders += 1
