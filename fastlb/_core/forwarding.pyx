# What nodes are told of the client and of the way (contract in forwarding.pxd).
#
#   X-Forwarded-For    a list: the peer is its last entry, whatever stood there before
#   X-Forwarded-Proto, X-Forwarded-Host   ours, unless a rule or a trusted proxy said something
#   Forwarded          a list (RFC 7239): appended to a trusted proxy's, else ours alone
#   Via                a list (RFC 9110 7.6.3): this hop is its last entry, in both directions
#
# A field that is not in `forwarded_fields` passes as it came. One that is can't be taken out by
# listing it in Connection, nor be doubled by a name that a CGI program takes for it ("_" is "-"
# there). The peer of a Unix socket has no address: there is none in X-Forwarded-For, and "unknown"
# in Forwarded.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport strlen

from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, address_ip_text, address_is_ipv4, address_is_unset,
)
from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.debug cimport likely, unlikely
from fastlb._core.edit cimport EDIT_FULL, edit_cut, edit_insert, edit_replace
from fastlb._core.forwarded cimport forwarded_trusts
from fastlb._core.head cimport (
    FIELD_ALIAS, FIELD_CONTENT_LENGTH, FIELD_FORWARDED, FIELD_HOP, FIELD_TRANSFER_ENCODING,
    FIELD_VIA, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO,
    HEAD_HAS_ALIAS, Field, Head, field_alias_of, head_next,
)
from fastlb._core.plan cimport (
    PROTOCOL_HTTPS, SERVER_ADDS_FOR, SERVER_ADDS_FORWARDED, SERVER_ADDS_HOST, SERVER_ADDS_PROTO,
    SERVER_ADDS_VIA,
)
from fastlb._core.rule_call cimport (
    RULE_SETS_FORWARDED, RULE_SETS_FORWARDED_HOST, RULE_SETS_PROTO,
)
from fastlb._core.scan cimport BYTE_TOKEN, byte_is
from fastlb._core.scratch cimport scratch_add, scratch_add_slice, scratch_at
from fastlb._core.slice cimport Slice, slice_of


cdef inline bint _add(Worker* w, const char* text) noexcept nogil:
    return scratch_add(w, text, <uint32_t> strlen(text))


# Whether what the request says of its way is believed: `ruled`, a rule said it.
cdef inline bint _believed(const Exchange* x, uint32_t ruled) noexcept nogil:
    if x.rules != NULL and x.rules.sets & ruled:
        return True
    return not x.client.nameless and forwarded_trusts(x.snapshot.plan, x.server, &x.client.peer)


# The last field of an id that goes on, -1: none. One that Connection lists has been cut.
cdef int _last(const Head* head, uint8_t wanted) noexcept nogil:
    cdef int i = -1
    cdef int last = -1
    if head.present >> wanted & 1:
        i = head.first[wanted]
    while i >= 0:
        if not head.fields[i].flags & FIELD_HOP:
            last = i
        i = head_next(head, i)
    return last


cdef int _cut_all(Worker* w, const Head* head, uint8_t wanted) noexcept nogil:
    cdef int i = -1
    if head.present >> wanted & 1:
        i = head.first[wanted]
    while i >= 0:
        if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
        i = head_next(head, i)
    return 0

# --- one field each -----------------------------------------------------------------------


cdef int _add_for(Worker* w, Exchange* x) noexcept nogil:
    cdef const Head* head = &w.request
    cdef const Field* field
    cdef char* text = w.peer_text
    cdef int last
    if address_is_unset(&x.client.peer):
        return 0                     # a unix socket: there is no address to tell
    last = _last(head, FIELD_X_FORWARDED_FOR)
    if last < 0:
        if (scratch_add(w, "X-Forwarded-For: ", 17)
                and scratch_add(w, text, address_ip_text(&x.client.peer, text))
                and scratch_add(w, "\r\n", 2)):
            return 0
        return EDIT_FULL
    field = &head.fields[last]
    # In an insertion of its own: the other one stands at the end of the head.
    text[0] = c','
    text[1] = c' '
    return edit_insert(&w.edit, field.value + field.value_bytes, text,
                       2 + address_ip_text(&x.client.peer, text + 2))


cdef int _set_proto(Worker* w, Exchange* x) noexcept nogil:
    cdef const Head* head = &w.request
    cdef int i = head.first[FIELD_X_FORWARDED_PROTO]
    cdef bint believed = i >= 0 and _believed(x, RULE_SETS_PROTO)
    cdef bint kept = False
    while i >= 0:
        if believed and not head.fields[i].flags & FIELD_HOP:
            kept = True
        elif edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
        i = head_next(head, i)
    if kept:
        return 0
    if x.server.protocol == PROTOCOL_HTTPS:
        return 0 if scratch_add(w, "X-Forwarded-Proto: https\r\n", 26) else EDIT_FULL
    return 0 if scratch_add(w, "X-Forwarded-Proto: http\r\n", 25) else EDIT_FULL


cdef inline Slice _host(const Exchange* x, const char* buf) noexcept nogil:
    return slice_of(buf + (x.host - x.head_start), x.host_bytes)


cdef int _set_host(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    if _last(&w.request, FIELD_X_FORWARDED_HOST) >= 0 \
            and _believed(x, RULE_SETS_FORWARDED_HOST):
        return 0
    if _cut_all(w, &w.request, FIELD_X_FORWARDED_HOST) < 0:
        return EDIT_FULL
    if x.host_bytes == 0:
        return 0                     # HTTP/1.0 without one
    if _add(w, "X-Forwarded-Host: ") and scratch_add_slice(w, _host(x, buf)) and _add(w, "\r\n"):
        return 0
    return EDIT_FULL


cdef bint _add_forwarded_host(Worker* w, Slice host) noexcept nogil:
    # value = token / quoted-string; a host has neither '"' nor '\\'.
    cdef uint32_t i
    cdef bint quoted = False
    for i in range(host.bytes):
        quoted |= not byte_is(host.at[i], BYTE_TOKEN)
    return (_add(w, ";host=\"" if quoted else ";host=") and scratch_add_slice(w, host)
            and (not quoted or _add(w, "\"")))


# forwarded-element (RFC 7239 4): for, proto, and host where there is one.
cdef bint _add_element(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef char[ADDRESS_TEXT_BYTES_MAX] text
    cdef uint32_t count
    if not _add(w, "for="):
        return False
    if address_is_unset(&x.client.peer):
        if not _add(w, "unknown"):
            return False
    else:
        count = address_ip_text(&x.client.peer, text)
        if address_is_ipv4(&x.client.peer):
            if not scratch_add(w, text, count):
                return False
        elif not (_add(w, "\"[") and scratch_add(w, text, count) and _add(w, "]\"")):
            return False
    if not _add(w, ";proto=https" if x.server.protocol == PROTOCOL_HTTPS else ";proto=http"):
        return False
    return x.host_bytes == 0 or _add_forwarded_host(w, _host(x, buf))


cdef bint _add_hop(Worker* w, unsigned version_minor) noexcept nogil:
    return _add(w, "1.1 fastlb" if version_minor else "1.0 fastlb")


# Puts the scratch from `text` on behind the value of a field.
cdef int _insert_behind(Worker* w, const Field* field, const char* text) noexcept nogil:
    # An empty value is a list without members.
    cdef uint32_t skip = 0 if field.value_bytes else 2
    return edit_insert(&w.edit, field.value + field.value_bytes, text + skip,
                       <uint32_t> (scratch_at(w) - text) - skip)

cdef inline int _tidy(Worker* w, const Field* field, const char* buf) noexcept nogil:
    cdef uint32_t colon = field.start + field.name_bytes
    cdef uint32_t end = field.value + field.value_bytes
    if field.flags & FIELD_HOP:
        return 0                     # an insertion would stay where the field was
    if unlikely(end != field.end - 2) and edit_cut(&w.edit, end, field.end - 2) < 0:
        return EDIT_FULL
    if field.value == colon + 1 or (field.value == colon + 2 and buf[colon + 1] == c' '):
        return 0
    return edit_replace(&w.edit, colon + 1, field.value, " ", 1)


cdef int forwarding_tidy(Worker* w, const Head* head, const char* buf,
                         bint coded) noexcept nogil:
    cdef int length = head.first[FIELD_CONTENT_LENGTH]
    cdef int coding = head.first[FIELD_TRANSFER_ENCODING]
    if length >= 0 and _tidy(w, &head.fields[length], buf) < 0:
        return EDIT_FULL
    return _tidy(w, &head.fields[coding], buf) if coding >= 0 and coded else 0

# --- all together -------------------------------------------------------------------------


cdef int _cut_aliases(Worker* w, uint32_t flags, const char* buf) noexcept nogil:
    cdef const Head* head = &w.request
    cdef uint8_t wanted
    cdef uint32_t i
    for i in range(head.field_count):
        if not head.fields[i].flags & FIELD_ALIAS:
            continue
        wanted = field_alias_of(buf + head.fields[i].start, head.fields[i].name_bytes)
        if (wanted == FIELD_X_FORWARDED_FOR and flags & SERVER_ADDS_FOR
                or wanted == FIELD_X_FORWARDED_PROTO and flags & SERVER_ADDS_PROTO
                or wanted == FIELD_X_FORWARDED_HOST and flags & SERVER_ADDS_HOST):
            if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
                return EDIT_FULL
    return 0


cdef int forwarding_append(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Head* head = &w.request
    cdef uint32_t flags = x.server.flags
    cdef char* text
    cdef int last
    if unlikely(head.flags & HEAD_HAS_ALIAS) and _cut_aliases(w, flags, buf) < 0:
        return EDIT_FULL
    if likely(not flags & (SERVER_ADDS_FORWARDED | SERVER_ADDS_VIA)):
        return 0
    last = _last(head, FIELD_FORWARDED)
    if flags & SERVER_ADDS_FORWARDED and last >= 0:
        if not _believed(x, RULE_SETS_FORWARDED):
            if _cut_all(w, head, FIELD_FORWARDED) < 0:
                return EDIT_FULL
        else:
            text = scratch_at(w)
            if not (_add(w, ", ") and _add_element(w, x, buf)) \
                    or _insert_behind(w, &head.fields[last], text) < 0:
                return EDIT_FULL
    last = _last(head, FIELD_VIA)
    if flags & SERVER_ADDS_VIA and last >= 0:
        text = scratch_at(w)
        if not (_add(w, ", ") and _add_hop(w, x.version_minor)) \
                or _insert_behind(w, &head.fields[last], text) < 0:
            return EDIT_FULL
    return 0


cdef int forwarding_add(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Head* head = &w.request
    cdef uint32_t flags = x.server.flags
    if flags & SERVER_ADDS_FOR and _add_for(w, x) < 0:
        return EDIT_FULL
    if flags & SERVER_ADDS_PROTO and _set_proto(w, x) < 0:
        return EDIT_FULL
    if likely(not flags & (SERVER_ADDS_HOST | SERVER_ADDS_FORWARDED | SERVER_ADDS_VIA)):
        return 0
    if flags & SERVER_ADDS_HOST and _set_host(w, x, buf) < 0:
        return EDIT_FULL
    if flags & SERVER_ADDS_FORWARDED and not (
            _last(head, FIELD_FORWARDED) >= 0 and _believed(x, RULE_SETS_FORWARDED)):
        if not (_add(w, "Forwarded: ") and _add_element(w, x, buf) and _add(w, "\r\n")):
            return EDIT_FULL
    if flags & SERVER_ADDS_VIA and _last(head, FIELD_VIA) < 0:
        if not (_add(w, "Via: ") and _add_hop(w, x.version_minor) and _add(w, "\r\n")):
            return EDIT_FULL
    return 0


cdef int forwarding_answer(Worker* w, Exchange* x) noexcept nogil:
    cdef const Head* head = &w.response
    cdef char* text = scratch_at(w)
    cdef int last
    if likely(not x.server.flags & SERVER_ADDS_VIA):
        return 0
    last = _last(head, FIELD_VIA)
    if last < 0:
        text = NULL
    if not (_add(w, "Via: " if text == NULL else ", ") and _add_hop(w, head.version_minor)):
        return EDIT_FULL
    if text == NULL:
        return 0 if _add(w, "\r\n") else EDIT_FULL
    return EDIT_FULL if _insert_behind(w, &head.fields[last], text) < 0 else 1
