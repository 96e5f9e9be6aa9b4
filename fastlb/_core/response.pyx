# Editing of response heads (RFC 9110 7.6, RFC 9112 2.3).
#
#   status line     HTTP/1.0 becomes HTTP/1.1; the space that must follow the code
#   hop-by-hop      cut; ours is put in: close, keep-alive (for HTTP/1.0 clients), Upgrade (101)
#   Content-Length, Transfer-Encoding   without odd white space
#   Transfer-Encoding   cut for HTTP/1.0 clients, for whom chunks are decoded
#   Via             forwarding.pyx
#   Set-Cookie, Cache-Control   set_cookie.pyx
#   X-FastLB-Decision   for clients in `decision_header`

from libc.stdint cimport uint32_t
from libc.string cimport strlen

from fastlb._core.address cimport ADDRESS_TEXT_BYTES_MAX
from fastlb._core.connection cimport WORKER_IOVECS, Exchange, Worker
from fastlb._core.debug cimport unlikely
from fastlb._core.decision cimport decision_node_name
from fastlb._core.edit cimport (
    EDIT_FULL, edit_cut, edit_insert, edit_iovecs, edit_replace, edit_reset,
)
from fastlb._core.forwarding cimport forwarding_answer, forwarding_tidy
from fastlb._core.head cimport (
    FIELD_HOP, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, HEAD_HAS_HOP, HEAD_NO_REASON_SPACE, Head,
)
from fastlb._core.outcome cimport found_in_name, outcome_name
from fastlb._core.plan cimport Plan, PlanClass, plan_class, plan_network_has, plan_text
from fastlb._core.scratch cimport scratch_add, scratch_add_slice
from fastlb._core.set_cookie cimport set_cookie_edit


cdef int _edit_status_line(Worker* w) noexcept nogil:
    # "HTTP/1.0 200": the minor version is the eighth byte.
    cdef const Head* head = &w.response
    if head.version_minor == 0 and edit_replace(
            &w.edit, head.line_start + 7, head.line_start + 8, "1", 1) < 0:
        return EDIT_FULL
    if unlikely(head.flags & HEAD_NO_REASON_SPACE):
        return edit_insert(&w.edit, head.reason, " ", 1)
    return 0


cdef int _cut_hop_by_hop(Worker* w, bint keep_upgrade) noexcept nogil:
    cdef const Head* head = &w.response
    cdef uint32_t i
    if not head.flags & HEAD_HAS_HOP:
        return 0
    for i in range(head.field_count):
        if not head.fields[i].flags & FIELD_HOP:
            continue
        if keep_upgrade and head.fields[i].id == FIELD_UPGRADE:
            continue
        if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
    return 0


cdef bint _add_connection(Worker* w, Exchange* x) noexcept nogil:
    if w.response.status == 101:
        return scratch_add(w, "Connection: Upgrade\r\n", 21)
    if not x.client_persists:
        return scratch_add(w, "Connection: close\r\n", 19)
    if x.version_minor == 0:
        return scratch_add(w, "Connection: keep-alive\r\n", 24)
    return True


cdef bint _add_text(Worker* w, const char* text) noexcept nogil:
    return scratch_add(w, text, <uint32_t> strlen(text))


cdef bint response_add_decision(Worker* w, Exchange* x) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef const PlanClass* cls
    cdef char[ADDRESS_TEXT_BYTES_MAX] room
    if x.server.decision_count == 0 or not plan_network_has(
            plan, x.server.decision, x.server.decision_count, &x.client.peer):
        return True
    if not (_add_text(w, "X-FastLB-Decision: outcome=")
            and _add_text(w, outcome_name(x.decision.outcome))
            and _add_text(w, "; found-in=") and _add_text(w, found_in_name(x.decision.found_in))):
        return False
    if x.decision.persistence >= 0:
        cls = plan_class(plan, <uint32_t> (x.decision.found_class if x.decision.found_class >= 0
                                           else x.decision.persistence))
        if not (_add_text(w, "; class=")
                and scratch_add(w, plan_text(plan, cls.name), cls.name.bytes)):
            return False
    if x.decision.node >= 0:
        if not (_add_text(w, "; node=")
                and scratch_add_slice(w, decision_node_name(plan, x.pool, &x.decision, room))):
            return False
    return scratch_add(w, "\r\n", 2)


cdef int response_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Head* head = &w.response
    cdef int coding = head.first[FIELD_TRANSFER_ENCODING]
    cdef bint decoded = x.down.decode or x.version_minor == 0
    cdef int appended
    cdef uint32_t tail
    edit_reset(&w.edit)
    w.scratch_used = 0
    if _edit_status_line(w) < 0 or _cut_hop_by_hop(w, head.status == 101) < 0 \
            or forwarding_tidy(w, head, buf, not decoded) < 0:
        return EDIT_FULL
    if coding >= 0 and decoded:
        # Also of an answer without a body: a 1.0 client must not be told of chunks.
        if edit_cut(&w.edit, head.fields[coding].start, head.fields[coding].end) < 0:
            return EDIT_FULL
    appended = forwarding_answer(w, x)
    if appended < 0:
        return EDIT_FULL
    tail = w.scratch_used if appended else 0
    if not _add_connection(w, x) or set_cookie_edit(w, x, buf) < 0:
        return EDIT_FULL
    if not response_add_decision(w, x):
        return EDIT_FULL
    if edit_insert(&w.edit, head.bytes - 2, w.scratch + tail, w.scratch_used - tail) < 0:
        return EDIT_FULL
    return edit_iovecs(&w.edit, buf, head.bytes, w.iov, WORKER_IOVECS - 1)


cdef int response_edit_interim(Worker* w, const char* buf) noexcept nogil:
    edit_reset(&w.edit)
    w.scratch_used = 0
    if _edit_status_line(w) < 0 or _cut_hop_by_hop(w, False) < 0:
        return EDIT_FULL
    return edit_iovecs(&w.edit, buf, w.response.bytes, w.iov, WORKER_IOVECS - 1)
