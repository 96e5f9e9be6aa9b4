# The parts of a key are read where they stand; nothing is decoded or copied.
#
#   header       the value of the first field of that name, without white space around it
#   cookie       the first cookie of that name that is not empty, without its double quotes
#   query        key=value *( "&" key=value ): the first one of that name, to the next "&"
#   path         "/" segment *( "/" segment ): the Nth one, RFC 3986 3.3; "." and ".." are names
#   host, sni    without port and without the dot of a rooted name; case does not count
#   source       16 bytes of the client's address
#   destination  the address and the port that the client connected to: a virtual server is both,
#                and two of them on one address are two destinations
#
# A percent-encoded byte and the byte itself are two: where both mean one session is the
# application's affair, and one that writes its ids in two ways is rarer than one whose ids
# hold a "%2F" or a "+".

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from fastlb._core.address cimport Address, address_is_unset
from fastlb._core.authority cimport authority_host
from fastlb._core.cookie cimport (
    CookieCursor, CookiePair, SetCookie, cookie_begin, cookie_next_named, set_cookie_expired,
    set_cookie_parse,
)
from fastlb._core.debug cimport BUG_ON
from fastlb._core.head cimport (
    FIELD_COOKIE, FIELD_HOST, FIELD_SET_COOKIE, Head, head_name, head_next, head_value,
)
from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput, learned_add_key
from fastlb._core.plan cimport (
    KEY_PART_COOKIE, KEY_PART_HEADER, KEY_PART_HOST, KEY_PART_KINDS, KEY_PART_SNI, KEY_SESSION,
    Plan, PlanClass, PlanKeyPart, plan_key_parts, plan_text,
)
from fastlb._core.siphash cimport (
    Hash128, SipKey, SipState, sip_final64, sip_final128, sip_init64, sip_init128, sip_update,
    sip_update_u64, siphash128,
)
from fastlb._core.slice cimport Slice, ascii_lower, slice_equal, slice_equal_fold, slice_of

cdef enum:
    FOLD_BYTES = 64                  # lower-cased at a time
    DESTINATION_BYTES = 18           # an Address without what may pad it

# Any number will do that all proxies have in common: these are the first bits of pi.
cdef SipKey PUBLIC_KEY = SipKey(<uint64_t> 0x243F6A8885A308D3, <uint64_t> 0x13198A2E03707344)

# Takes the part out of a request; no bytes: it is missing.
ctypedef Slice (*part_t)(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                         Finding* found) noexcept nogil


# --- the parts ----------------------------------------------------------------------------

# The first field called `name`, a lower-case one, from field `index` on; -1: none.
cdef int _field_named(const Head* head, const char* buf, Slice name, int index) noexcept nogil:
    cdef int i
    for i in range(index, <int> head.field_count):
        if head.fields[i].name_bytes == name.bytes and slice_equal_fold(
                head_name(head, buf, <uint32_t> i), name.at, name.bytes):
            return i
    return -1


cdef Slice _header(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                   Finding* found) noexcept nogil:
    cdef int field
    if ask.head == NULL:
        return slice_of(NULL, 0)
    field = _field_named(ask.head, ask.buf, name, 0)
    return head_value(ask.head, ask.buf, <uint32_t> field) if field >= 0 else slice_of(NULL, 0)


cdef Slice _cookie(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                   Finding* found) noexcept nogil:
    # All are looked at, since a second one betrays conflicting Path or Domain attributes.
    cdef Slice value, first = slice_of(NULL, 0)
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef bint seen = False
    cdef int field = -1
    if ask.head != NULL:
        field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, <uint32_t> field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next_named(&cursor, name, &pair):
            found.duplicates |= seen
            seen = True
            if first.bytes == 0:
                first = pair.value
        field = head_next(ask.head, field)
    return first


# Path and query as they stand; `query` is what follows the first "?", with no bytes where there
# is none.
cdef inline void _target(const PersistInput* ask, Slice* path, Slice* query) noexcept nogil:
    cdef const char* mark
    path[0] = slice_of(NULL, 0)
    query[0] = slice_of(NULL, 0)
    if ask.head == NULL or ask.head.path_bytes == 0:
        return
    path[0] = slice_of(ask.buf + ask.head.path, ask.head.path_bytes)
    mark = <const char*> memchr(path.at, c'?', path.bytes)
    if mark != NULL:
        query[0] = slice_of(mark + 1, path.bytes - <uint32_t> (mark + 1 - path.at))
        path.bytes = <uint32_t> (mark - path.at)


# What stands before the next `separator`, which is taken away too.
cdef inline Slice _next_piece(Slice* rest, char separator) noexcept nogil:
    cdef Slice piece = rest[0]
    cdef const char* stop = <const char*> memchr(rest.at, separator, rest.bytes)
    if stop == NULL:
        rest.bytes = 0
        return piece
    piece.bytes = <uint32_t> (stop - rest.at)
    rest.at = stop + 1
    rest.bytes -= piece.bytes + 1
    return piece


cdef Slice _query(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                  Finding* found) noexcept nogil:
    # A parameter without "=" has no value, and is the first of its name all the same.
    cdef Slice path, query, one
    _target(ask, &path, &query)
    while query.bytes:
        one = _next_piece(&query, c'&')
        if one.bytes < name.bytes or memcmp(one.at, name.at, name.bytes) != 0:
            continue
        if one.bytes == name.bytes:
            break
        if one.at[name.bytes] == c'=':
            return slice_of(one.at + name.bytes + 1, one.bytes - name.bytes - 1)
    return slice_of(NULL, 0)


cdef Slice _path(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                 Finding* found) noexcept nogil:
    cdef Slice path, query, one
    cdef uint32_t left = part.number
    _target(ask, &path, &query)
    if path.bytes == 0:
        return path
    path = slice_of(path.at + 1, path.bytes - 1)         # of an absolute path, so it is a "/"
    while path.bytes:
        one = _next_piece(&path, c'/')
        left -= 1
        if left == 0:
            return one
    return slice_of(NULL, 0)


cdef inline Slice _unrooted(Slice host) noexcept nogil:
    if host.bytes and host.at[host.bytes - 1] == c'.':
        host.bytes -= 1
    return host


cdef Slice _host(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                 Finding* found) noexcept nogil:
    # An authority in the target goes before Host (RFC 9112 3.2.2).
    cdef const Head* head = ask.head
    if head != NULL and head.authority_bytes:
        return _unrooted(authority_host(slice_of(ask.buf + head.authority, head.authority_bytes)))
    if head != NULL and head.first[FIELD_HOST] >= 0:
        return _unrooted(authority_host(
            head_value(head, ask.buf, <uint32_t> head.first[FIELD_HOST])))
    return slice_of(NULL, 0)


cdef Slice _sni(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                Finding* found) noexcept nogil:
    return _unrooted(ask.sni)


cdef Slice _source(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                   Finding* found) noexcept nogil:
    # Behind a unix socket all clients would be one.
    if address_is_unset(ask.client):
        return slice_of(NULL, 0)
    return slice_of(<const char*> ask.client.ip, sizeof(ask.client.ip))


cdef Slice _destination(const PersistInput* ask, Slice name, const PlanKeyPart* part,
                        Finding* found) noexcept nogil:
    if ask.local == NULL or address_is_unset(ask.local):
        return slice_of(NULL, 0)
    return slice_of(<const char*> ask.local, DESTINATION_BYTES)


cdef part_t* PARTS = [_header, _cookie, _query, _path, _host, _sni, _source, _destination]

if KEY_PART_KINDS != 8:
    raise ImportError("fastlb._core.key: a kind of key part has no function")
if sizeof(Address) < DESTINATION_BYTES:
    raise ImportError("fastlb._core.key: an address is not 16 bytes and a port")


# --- keys ---------------------------------------------------------------------------------

cdef void _feed_folded(SipState* state, Slice value) noexcept nogil:
    cdef char[FOLD_BYTES] lower
    cdef uint32_t count, i
    while value.bytes:
        count = value.bytes if value.bytes < FOLD_BYTES else FOLD_BYTES
        for i in range(count):
            lower[i] = ascii_lower(value.at[i])
        sip_update(state, lower, count)
        value = slice_of(value.at + count, value.bytes - count)


# The class's key goes into `state`; False when there is none.
cdef bint _feed(const PersistInput* ask, const PlanClass* cls, Finding* found,
                SipState* state) noexcept nogil:
    cdef const PlanKeyPart* part = plan_key_parts(ask.plan) + cls.key_parts
    cdef Slice value
    cdef uint32_t _i
    if ask.key.at != NULL:
        sip_update(state, ask.key.at, ask.key.bytes)
        return ask.key.bytes != 0
    for _i in range(cls.key_part_count):
        BUG_ON(part.kind >= KEY_PART_KINDS)
        value = PARTS[part.kind](
            ask, slice_of(plan_text(ask.plan, part.name), part.name.bytes), part, found)
        if value.bytes == 0:
            return False
        if cls.key_part_count > 1:
            sip_update_u64(state, value.bytes)
        if part.kind == KEY_PART_HOST or part.kind == KEY_PART_SNI:
            _feed_folded(state, value)
        else:
            sip_update(state, value.at, value.bytes)
        part += 1
    return cls.key_part_count != 0


cdef Hash128 key_of_value(const Plan* plan, Slice value) noexcept nogil:
    return siphash128(&plan.keys[KEY_SESSION], value.at, value.bytes)


cdef bint key_read(const PersistInput* ask, const PlanClass* cls, Finding* found,
                   Hash128* key) noexcept nogil:
    cdef SipState state
    sip_init128(&state, &ask.plan.keys[KEY_SESSION])
    if not _feed(ask, cls, found, &state):
        return False
    key[0] = sip_final128(&state)
    return True


cdef bint key_read_public(const PersistInput* ask, const PlanClass* cls, Finding* found,
                          uint64_t* key) noexcept nogil:
    cdef SipState state
    sip_init64(&state, &PUBLIC_KEY)
    if not _feed(ask, cls, found, &state):
        return False
    key[0] = sip_final64(&state)
    return True


# --- learning -----------------------------------------------------------------------------

cdef void _learn_header(const LearnInput* response, Slice name, Learned* learned) noexcept nogil:
    cdef Slice value
    cdef int field = _field_named(response.head, response.buf, name, 0)
    while field >= 0:
        value = head_value(response.head, response.buf, <uint32_t> field)
        if value.bytes:
            learned_add_key(learned, key_of_value(response.plan, value))
            return
        field = _field_named(response.head, response.buf, name, field + 1)


cdef void _learn_cookies(const LearnInput* response, Slice name, Learned* learned) noexcept nogil:
    # Each of that name: they may have different paths. An empty one is no key, and no end either.
    cdef SetCookie cookie
    cdef Slice value
    cdef int field = response.head.first[FIELD_SET_COOKIE]
    while field >= 0:
        value = head_value(response.head, response.buf, <uint32_t> field)
        if set_cookie_parse(&cookie, value.at, value.bytes) and slice_equal(cookie.name, name):
            if set_cookie_expired(&cookie, response.wall_s):
                learned.ended = True
            elif cookie.value.bytes:
                learned_add_key(learned, key_of_value(response.plan, cookie.value))
        field = head_next(response.head, field)


cdef void key_learn(const LearnInput* response, const PlanClass* cls,
                    Learned* learned) noexcept nogil:
    cdef const PlanKeyPart* part = plan_key_parts(response.plan) + cls.learn_parts
    cdef Slice name
    cdef uint32_t _i
    for _i in range(cls.learn_part_count):
        name = slice_of(plan_text(response.plan, part.name), part.name.bytes)
        if part.kind == KEY_PART_HEADER:
            _learn_header(response, name, learned)
        else:
            BUG_ON(part.kind != KEY_PART_COOKIE)
            _learn_cookies(response, name, learned)
        part += 1
