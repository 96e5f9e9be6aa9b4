# A session is known by the ticket or the session id that the client offers, and that a node
# granted before (CLASS_KEYS_GRANTED): what a client offers never makes a map by itself.
#
#   find   the ticket, then the id: beside a ticket the id is one that the client made up
#   learn  a NewSessionTicket, and the id of the ServerHello, once the node has changed to the
#          keys that were agreed on: before that anybody may have sent the ClientHello
#
# An id that echoes the one beside a ticket says that the ticket was taken (RFC 5077 3.4), and
# will never be offered again. One that echoes the id of a client without a ticket is a session
# resumed (RFC 5246 7.4.1.3). TLS 1.3 shows nothing: its ids are made up and echoed for the sake
# of old middleboxes (RFC 8446 D.4), its tickets are encrypted and used once.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport (
    FIND_KEY, Finding, LearnInput, Learned, PersistInput, finding_add_key, learned_add_key,
)
from fastlb._core.plan cimport KEY_SESSION, PlanClass
from fastlb._core.siphash cimport Hash128, SipKey, hash128_equal
from fastlb._core.slice cimport slice_of
from fastlb._core.tls_hello cimport (
    TlsServerFlight, tls_flight_granted, tls_session_id_hash, tls_ticket_hash,
)


cdef void persist_ssl_find(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil:
    cdef const SipKey* key = &ask.plan.keys[KEY_SESSION]
    if ask.hello != NULL and ask.hello.ticket.bytes:
        finding_add_key(found, tls_ticket_hash(key, ask.hello.ticket))
    if ask.hello != NULL and ask.hello.session_id.bytes:
        finding_add_key(found, tls_session_id_hash(key, ask.hello.session_id))
    if found.kind != FIND_KEY:
        found.outcome = OUTCOME_NO_KEY


cdef void persist_ssl_learn(const LearnInput* response, const PlanClass* cls,
                            Learned* learned) noexcept nogil:
    cdef const TlsServerFlight* flight = response.flight
    cdef Hash128 id
    if flight == NULL or not tls_flight_granted(flight):
        return
    if flight.ticket_seen:
        learned_add_key(learned, flight.ticket)
    if flight.session_id_bytes:
        id = tls_session_id_hash(&response.plan.keys[KEY_SESSION],
                                 slice_of(flight.session_id, flight.session_id_bytes))
        if not (response.offers_ticket and hash128_equal(&id, &response.session_id)):
            learned_add_key(learned, id)
