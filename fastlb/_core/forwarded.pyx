# X-Forwarded-For is a list that grows to the right (RFC 7239 section 7.4 tells how to read
# it): from the end, hops are believed as long as the one behind them is trusted. An entry
# that is no address ends the walk, and the last believed hop counts.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address, address_from_text
from fastlb._core.head cimport FIELD_X_FORWARDED_FOR, Head, head_value
from fastlb._core.plan cimport Plan, PlanVirtualServer, plan_network_has
from fastlb._core.slice cimport Slice, slice_trim


cdef bint forwarded_trusts(const Plan* plan, const PlanVirtualServer* server,
                           const Address* peer) noexcept nogil:
    return server.trusted_count != 0 and plan_network_has(
        plan, server.trusted, server.trusted_count, peer)


# What may follow an address: nothing, or ":" and digits.
cdef bint _port_or_nothing(const char* at, uint32_t count) noexcept nogil:
    cdef uint32_t i
    if count == 0:
        return True
    if count == 1 or at[0] != c':':
        return False
    for i in range(1, count):
        if not c'0' <= at[i] <= c'9':
            return False
    return True


cdef bint _entry_address(Slice entry, Address* out) noexcept nogil:
    # "192.0.2.1", "192.0.2.1:1234", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:1234"
    cdef uint32_t i, colons = 0, end
    entry = slice_trim(entry)
    end = entry.bytes
    if entry.bytes and entry.at[0] == c'[':
        for i in range(1, entry.bytes):
            if entry.at[i] == c']':
                return (_port_or_nothing(entry.at + i + 1, entry.bytes - i - 1)
                        and address_from_text(out, entry.at + 1, i - 1))
        return False
    for i in range(entry.bytes):
        if entry.at[i] == c':':
            colons += 1
            end = i
    if colons != 1:
        end = entry.bytes
    return (_port_or_nothing(entry.at + end, entry.bytes - end)
            and address_from_text(out, entry.at, end))


# One field's list from its end; False when the walk is over.
cdef bint _walk(const Plan* plan, const PlanVirtualServer* server, Slice value,
                Address* client) noexcept nogil:
    cdef uint32_t end = value.bytes, start
    cdef Address hop
    cdef Slice entry
    if end == 0:
        return True                  # no entry at all
    while True:
        start = end
        while start > 0 and value.at[start - 1] != c',':
            start -= 1
        entry.at = value.at + start
        entry.bytes = end - start
        hop.port = 0
        if not _entry_address(entry, &hop):
            return False
        client[0] = hop
        if not forwarded_trusts(plan, server, &hop):
            return False
        if start == 0:
            return True
        end = start - 1


cdef void forwarded_client(const Plan* plan, const PlanVirtualServer* server,
                           const Address* peer, const Head* head, const char* buf,
                           Address* client) noexcept nogil:
    cdef int i
    client[0] = peer[0]
    if head.first[FIELD_X_FORWARDED_FOR] < 0 or not forwarded_trusts(plan, server, peer):
        return
    for i in range(<int> head.field_count - 1, -1, -1):
        if head.fields[i].id == FIELD_X_FORWARDED_FOR:
            if not _walk(plan, server, head_value(head, buf, <uint32_t> i), client):
                return
