# The application names the node, in a cookie that is nobody's secret:
#
#   value = IPv4 [ ":" port ] / "[" IPv6 "]" [ ":" port ] / IPv6
#
# in double quotes or not. The first cookie that names a node of the pool is obeyed, and none else
# (CLASS_LISTED_ONLY): anybody can write it. Without a port it means the only node of that
# address. The cookie passes through to the node; fastlb never sets it.

from libc.stdint cimport uint32_t
from libc.string cimport memchr

from fastlb._core.address cimport Address, address_from_text
from fastlb._core.cookie cimport CookieCursor, CookiePair, cookie_begin, cookie_next
from fastlb._core.head cimport FIELD_COOKIE, head_next, head_value
from fastlb._core.outcome cimport OUTCOME_NO_KEY, OUTCOME_UNKNOWN_NODE
from fastlb._core.persist cimport FIND_NODE, Finding, PersistInput
from fastlb._core.plan cimport PlanClass
from fastlb._core.resolve cimport resolve_may_name
from fastlb._core.slice cimport Slice, slice_equal, slice_of


cdef bint _port(Slice digits, Address* node) noexcept nogil:
    cdef uint32_t i, port = 0
    if digits.bytes == 0 or digits.bytes > 5 or digits.at[0] == c'0':
        return False
    for i in range(digits.bytes):
        if not c'0' <= digits.at[i] <= c'9':
            return False
        port = port * 10 + <uint32_t> (digits.at[i] - c'0')
    if port > 65535:
        return False
    node.port = <unsigned short> port
    return True


cdef bint _node(Slice value, Address* node) noexcept nogil:
    cdef const char* end = value.at + value.bytes
    cdef const char* stop            # past the IP address
    cdef Slice ip = value
    node.port = 0
    if value.bytes == 0:
        return False
    if value.at[0] == c'[':
        stop = <const char*> memchr(value.at, c']', value.bytes)
        if stop == NULL:
            return False
        ip = slice_of(value.at + 1, <uint32_t> (stop - value.at - 1))
        stop += 1
        if memchr(ip.at, c':', ip.bytes) == NULL:
            return False             # an IPv4 address in brackets
    else:
        stop = <const char*> memchr(value.at, c':', value.bytes)
        if stop == NULL or memchr(stop + 1, c':', <size_t> (end - stop - 1)) != NULL:
            stop = end               # no colon, or those of an IPv6 address
        ip.bytes = <uint32_t> (stop - value.at)
    if stop < end and (stop[0] != c':'
                       or not _port(slice_of(stop + 1, <uint32_t> (end - stop - 1)), node)):
        return False
    return address_from_text(node, ip.at, ip.bytes)


cdef void persist_x_zeus_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil:
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Slice value
    cdef int field
    found.outcome = OUTCOME_NO_KEY
    if ask.head == NULL:
        return
    field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, <uint32_t> field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next(&cursor, &pair):
            if not slice_equal(pair.name, slice_of("X-Zeus-Backend", 14)):
                continue
            found.duplicates |= found.cookie_seen
            found.cookie_seen = True
            if found.kind == FIND_NODE:
                continue
            if _node(pair.value, &found.node) and resolve_may_name(ask, cls, found):
                found.kind = FIND_NODE
            else:
                # No secret is in it that it could be forged with: it just names no node.
                found.outcome = OUTCOME_UNKNOWN_NODE
        field = head_next(ask.head, field)
