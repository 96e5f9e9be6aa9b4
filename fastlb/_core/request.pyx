# Editing of request heads (RFC 9110 7.6, RFC 9112 3).
#
#   request line    HTTP/1.0 becomes HTTP/1.1: the version is ours, hop by hop
#   Content-Length, Transfer-Encoding   without odd white space
#   Host            that of an absolute-form target; put in where a 1.0 request has none
#   hop-by-hop      cut; an upgrade's Connection is put in again
#   Expect          cut where the client was told to go on already
#   Max-Forwards    of OPTIONS and TRACE: one less (RFC 9110 7.6.2)
#   Cookie          fastlb's own cookies are cut (hide_cookie)
#   X-Forwarded-*, Forwarded, Via   forwarding.pyx
#   X-Client-Certificate, X-Client-Certificate-Subject   ours, where clients are asked for one
#
# Everything else goes through byte for byte.

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport ADDRESS_TEXT_BYTES_MAX
from fastlb._core.bounds cimport bounds_again
from fastlb._core.connection cimport WORKER_IOVECS, Exchange, TlsStream, Worker
from fastlb._core.cookie cimport cookie_cut
from fastlb._core.debug cimport BUG_ON, unlikely
from fastlb._core.decision cimport decision_node_name
from fastlb._core.edit cimport (
    EDIT_FULL, edit_cut, edit_insert, edit_iovecs, edit_replace, edit_reset,
)
from fastlb._core.forwarding cimport forwarding_add, forwarding_append, forwarding_tidy
from fastlb._core.head cimport (
    FIELD_EXPECT, FIELD_HOP, FIELD_HOST, FIELD_REFERER, FIELD_UPGRADE, FIELD_USER_AGENT,
    HEAD_EXPECT_CONTINUE, HEAD_HAS_COOKIE, HEAD_HAS_HOP, HEAD_UPGRADE, METHOD_OPTIONS, METHOD_TRACE,
    TARGET_ABSOLUTE, Field, Head, HeadLimits, head_name, head_reset, head_value, request_head_parse,
)
from fastlb._core.limits cimport COOKIE_NAMES_MAX, FALLBACK_DEPTH_MAX, HEAD_FIELDS_MAX
from fastlb._core.plan cimport (
    CLASS_HIDE_COOKIE, SERVER_CLIENT_SUBJECT, SERVER_NO_SUBJECT_OF_CLIENTS, Plan, PlanClass,
    PlanCookieName, plan_class, plan_cookie_names, plan_pool, plan_text,
)
from fastlb._core.route cimport route_host, route_pool
from fastlb._core.scratch cimport (
    scratch_add, scratch_add_number, scratch_add_slice, scratch_at,
)
from fastlb._core.slice cimport Slice, ascii_lower, slice_equal_fold, slice_of


cdef enum:
    HIDDEN_NAMES_MAX = FALLBACK_DEPTH_MAX * COOKIE_NAMES_MAX
    HOPS_MAX = 1000000               # nobody needs more


cdef void request_reload(Worker* w, Exchange* x) noexcept nogil:
    cdef HeadLimits limits
    cdef int parsed
    if w.request_of == x:
        return
    limits = bounds_again(x.head_end - x.head_start, HEAD_FIELDS_MAX)
    head_reset(&w.request)
    parsed = request_head_parse(&w.request, request_head_at(x), x.head_end - x.head_start, &limits)
    BUG_ON(parsed != <int> (x.head_end - x.head_start))
    w.request_of = x


cdef void request_note(Exchange* x, const Head* head, uint32_t start) noexcept nogil:
    # Also of a head that took another one's place, and may lack what that one had.
    x.head_start = start
    x.head_end = start + head.bytes
    x.method_at = start + head.line_start
    x.method_bytes = head.method_bytes
    x.target = start + head.target
    x.target_bytes = head.target_bytes
    x.method = head.method
    x.version_minor = head.version_minor
    x.upgrade = head.flags & HEAD_UPGRADE != 0
    x.expect_continue = head.flags & HEAD_EXPECT_CONTINUE != 0
    x.referer_bytes = x.user_agent_bytes = x.host_bytes = 0
    if head.first[FIELD_REFERER] >= 0:
        x.referer = start + head.fields[head.first[FIELD_REFERER]].value
        x.referer_bytes = head.fields[head.first[FIELD_REFERER]].value_bytes
    if head.first[FIELD_USER_AGENT] >= 0:
        x.user_agent = start + head.fields[head.first[FIELD_USER_AGENT]].value
        x.user_agent_bytes = head.fields[head.first[FIELD_USER_AGENT]].value_bytes
    if head.authority_bytes:
        x.host = start + head.authority
        x.host_bytes = head.authority_bytes
    elif head.first[FIELD_HOST] >= 0:
        x.host = start + head.fields[head.first[FIELD_HOST]].value
        x.host_bytes = head.fields[head.first[FIELD_HOST]].value_bytes


cdef void request_choose_pool(Worker* w, Exchange* x) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef const char* data = x.up.data.data
    cdef Slice path
    if x.server.route_count == 0:
        x.pool = plan_pool(plan, x.server.pool)
        return
    path = slice_of(data + x.head_start + w.request.path, w.request.path_bytes)
    x.pool = plan_pool(plan, route_pool(
        plan, x.server, route_host(slice_of(data + x.host, x.host_bytes)), path))


# What a Max-Forwards says; -1: the field is another one, or says no number.
cdef int32_t _hops_left(const Head* head, const char* buf, uint32_t index) noexcept nogil:
    cdef Slice value = head_value(head, buf, index)
    cdef int32_t left = 0
    cdef uint32_t i
    if not slice_equal_fold(head_name(head, buf, index), "max-forwards", 12) or value.bytes == 0:
        return -1
    for i in range(value.bytes):
        if not c'0' <= value.at[i] <= c'9':
            return -1
        left = left * 10 + (value.at[i] - c'0') if left < HOPS_MAX else HOPS_MAX
    return left


cdef inline bint _counts_hops(const Head* head) noexcept nogil:
    return unlikely(head.method == METHOD_OPTIONS or head.method == METHOD_TRACE)


cdef bint request_ends_here(const Head* head, const char* buf) noexcept nogil:
    cdef uint32_t i
    if _counts_hops(head):
        for i in range(head.field_count):
            if _hops_left(head, buf, i) == 0:
                return True
    return False


cdef int _count_hop(Worker* w, const char* buf) noexcept nogil:
    cdef const Field* field
    cdef char* text
    cdef int32_t left
    cdef uint32_t i
    if not _counts_hops(&w.request):
        return 0
    for i in range(w.request.field_count):
        left = _hops_left(&w.request, buf, i)
        if left <= 0:
            continue
        field = &w.request.fields[i]
        text = scratch_at(w)
        if not scratch_add_number(w, <uint32_t> left - 1) or edit_replace(
                &w.edit, field.value, field.value + field.value_bytes, text,
                <uint32_t> (scratch_at(w) - text)) < 0:
            return EDIT_FULL
    return 0


cdef int _edit_request_line(Worker* w, const Head* head) noexcept nogil:
    if head.line_start and edit_cut(&w.edit, 0, head.line_start) < 0:
        return EDIT_FULL
    if head.version_minor == 0:
        return edit_replace(&w.edit, head.line_end - 3, head.line_end - 2, "1", 1)
    return 0


cdef int _edit_host(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Head* head = &w.request
    cdef char[ADDRESS_TEXT_BYTES_MAX] room
    cdef const Field* field
    cdef Slice host
    cdef char* text
    if head.target_form == TARGET_ABSOLUTE:
        host = slice_of(buf + head.authority, head.authority_bytes)
    elif head.first[FIELD_HOST] >= 0:
        return 0
    else:
        host = decision_node_name(x.snapshot.plan, x.pool, &x.decision, room)
    if head.first[FIELD_HOST] >= 0:
        field = &head.fields[head.first[FIELD_HOST]]
        return edit_replace(&w.edit, field.value, field.value + field.value_bytes, host.at,
                            host.bytes)
    text = scratch_at(w)
    if not (scratch_add(w, "Host: ", 6) and scratch_add_slice(w, host)
            and scratch_add(w, "\r\n", 2)):
        return EDIT_FULL
    return edit_insert(&w.edit, head.line_end, text, <uint32_t> (scratch_at(w) - text))


cdef int _cut_hop_by_hop(Worker* w) noexcept nogil:
    cdef const Head* head = &w.request
    cdef bint upgrade = head.flags & HEAD_UPGRADE != 0
    cdef uint32_t i
    if not head.flags & HEAD_HAS_HOP:
        return 0
    for i in range(head.field_count):
        if not head.fields[i].flags & FIELD_HOP:
            continue
        if upgrade and head.fields[i].id == FIELD_UPGRADE:
            continue
        if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
    if upgrade and not scratch_add(w, "Connection: Upgrade\r\n", 21):
        return EDIT_FULL
    return 0


cdef int _cut_expect(Worker* w, const Exchange* x) noexcept nogil:
    # The client was told to go on, for a rule: the node gets the body with the head.
    cdef const Head* head = &w.request
    cdef uint32_t i
    if not x.continued:
        return 0
    for i in range(head.field_count):
        if head.fields[i].id == FIELD_EXPECT and edit_cut(
                &w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
    return 0


cdef bint _known_absent(const Exchange* x, int32_t index) noexcept nogil:
    # A class that was asked and saw no cookie of its own: nothing to look for.
    cdef uint32_t i
    for i in range(x.decision.cookie_count):
        if x.decision.cookies[i].index == index:
            return not x.decision.cookies[i].seen
    return False


cdef int _hide_cookies(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef const PlanClass* cls
    cdef const PlanCookieName* own
    cdef Slice[HIDDEN_NAMES_MAX] names
    cdef uint32_t i, count = 0
    cdef int32_t index = x.decision.persistence
    if not w.request.flags & HEAD_HAS_COOKIE:
        return 0
    while index >= 0:
        cls = plan_class(plan, <uint32_t> index)
        own = plan_cookie_names(plan, cls)
        if cls.flags & CLASS_HIDE_COOKIE and not _known_absent(x, index):
            for i in range(cls.cookie_name_count):
                BUG_ON(count >= HIDDEN_NAMES_MAX)
                names[count] = slice_of(plan_text(plan, own[i].name), own[i].name.bytes)
                count += 1
        index = cls.fallback
    if count == 0:
        return 0
    return EDIT_FULL if cookie_cut(&w.request, buf, names, count, &w.edit) < 0 else 0


# Whether a field's name is that of one of ours, however a node may fold it (CGI makes "_" of "-").
cdef bint _is_client_certificate(Slice name) noexcept nogil:
    cdef const char* OURS = "x-client-certificate-subject"
    cdef uint32_t i
    if name.bytes != 20 and name.bytes != 28:
        return False
    for i in range(name.bytes):
        if ascii_lower(name.at[i]) != OURS[i] and not (name.at[i] == c'_' and OURS[i] == c'-'):
            return False
    return True


cdef int _set_client_certificate(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    # What a client says of itself there goes, wherever the nodes believe it; what its handshake
    # has shown comes.
    cdef const Head* head = &w.request
    cdef const TlsStream* t = x.client.stream.tls
    cdef uint32_t i
    if not x.server.flags & SERVER_NO_SUBJECT_OF_CLIENTS:
        return 0
    for i in range(head.field_count):
        if _is_client_certificate(slice_of(buf + head.fields[i].start, head.fields[i].name_bytes)) \
                and edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
    if not x.server.flags & SERVER_CLIENT_SUBJECT or t == NULL:
        return 0
    if t.subject == NULL:
        return 0 if scratch_add(w, "X-Client-Certificate: none\r\n", 28) else EDIT_FULL
    if (scratch_add(w, "X-Client-Certificate: verified\r\nX-Client-Certificate-Subject: ", 62)
            and scratch_add(w, t.subject, t.subject_bytes) and scratch_add(w, "\r\n", 2)):
        return 0
    return EDIT_FULL


cdef int request_edit(Worker* w, Exchange* x) noexcept nogil:
    cdef const char* buf = request_head_at(x)
    cdef char* tail
    request_reload(w, x)
    edit_reset(&w.edit)
    w.scratch_used = 0
    if _edit_request_line(w, &w.request) < 0 or _edit_host(w, x, buf) < 0 or _count_hop(w, buf) < 0:
        return EDIT_FULL
    if forwarding_tidy(w, &w.request, buf, True) < 0 or forwarding_append(w, x, buf) < 0:
        return EDIT_FULL
    # From here on, what is put in stands together, before the empty line.
    tail = scratch_at(w)
    if _cut_hop_by_hop(w) < 0 or _cut_expect(w, x) < 0 or _hide_cookies(w, x, buf) < 0:
        return EDIT_FULL
    if forwarding_add(w, x, buf) < 0 or _set_client_certificate(w, x, buf) < 0:
        return EDIT_FULL
    if edit_insert(&w.edit, w.request.bytes - 2, tail, <uint32_t> (scratch_at(w) - tail)) < 0:
        return EDIT_FULL
    return edit_iovecs(&w.edit, buf, w.request.bytes, w.iov, WORKER_IOVECS - 1)
