# Values of both kinds (formats in persist_cookie_insert.pxd and sealed.pxd). Whether a class is
# encrypted is its own affair: one that is takes no plain value, which anybody could have made.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from fastlb._core.address cimport Address, address_is_ipv4
from fastlb._core.inserted cimport inserted_accept, inserted_find, inserted_token
from fastlb._core.outcome cimport OUTCOME_TAMPERED
from fastlb._core.persist cimport COOKIE_VALUE_BYTES_MAX, Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass, plan_passphrases
from fastlb._core.sealed cimport SEALED_TEXT_BYTES_MAX, sealed_read, sealed_write
from fastlb._core.slice cimport Slice
from fastlb._core.token cimport Token

cdef enum:
    FRONT_BYTES = 4
    MIDDLE_BYTES = 12
    PORT_BYTES = 2
    FRAME_BYTES = FRONT_BYTES + MIDDLE_BYTES + PORT_BYTES
    PLAIN_BYTES_MAX = FRAME_BYTES + 16
    PORT_MASK = 0x3630

cdef const char* IP_MASK = "\x03\x08\x1e\x11"
cdef const char* FRONT = "\xff\xff\xff\xff"
cdef const char* MIDDLE = "ER]_OXE^DZJB"
cdef const char* DIGITS = "0123456789abcdef"
cdef uint8_t _digit[256]             # value of a hexadecimal digit of either case, 255: none

if max(<int> SEALED_TEXT_BYTES_MAX, 2 * PLAIN_BYTES_MAX) > <int> COOKIE_VALUE_BYTES_MAX:
    raise ImportError("fastlb._core.persist_cookie_insert: a value has no room")


def _fill_digits():
    cdef int i
    memset(_digit, 255, sizeof(_digit))
    for i in range(16):
        _digit[<uint8_t> DIGITS[i]] = <uint8_t> i
    for i in range(6):
        _digit[<uint8_t> c'A' + i] = <uint8_t> (10 + i)


_fill_digits()


cdef bint _hex_read(Slice text, uint8_t* out) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t high, low, wrong = 0
    for i in range(text.bytes // 2):
        high = _digit[<uint8_t> text.at[2 * i]]
        low = _digit[<uint8_t> text.at[2 * i + 1]]
        wrong |= high | low
        out[i] = <uint8_t> (high << 4) | low
    return wrong < 16


cdef bint _plain_read(Slice text, Address* node) noexcept nogil:
    cdef uint8_t data[PLAIN_BYTES_MAX]
    cdef uint32_t ip_bytes, i
    if text.bytes == 2 * (FRAME_BYTES + 4):
        ip_bytes = 4
    elif text.bytes == 2 * (FRAME_BYTES + 16):
        ip_bytes = 16
    else:
        return False
    if not _hex_read(text, data):
        return False
    memset(node, 0, sizeof(Address))
    if ip_bytes == 4:
        node.ip[10] = 0xFF
        node.ip[11] = 0xFF
    for i in range(ip_bytes):
        node.ip[16 - ip_bytes + i] = data[FRONT_BYTES + i] ^ <uint8_t> IP_MASK[i % 4]
    i = FRONT_BYTES + ip_bytes + MIDDLE_BYTES
    node.port = ((data[i] << 8) | data[i + 1]) ^ PORT_MASK
    return True


cdef uint32_t _plain_write(const Address* node, char* out) noexcept nogil:
    cdef uint8_t data[PLAIN_BYTES_MAX]
    cdef uint32_t ip_bytes = 4 if address_is_ipv4(node) else 16
    cdef uint32_t i, count = FRAME_BYTES + ip_bytes
    memcpy(data, FRONT, FRONT_BYTES)
    for i in range(ip_bytes):
        data[FRONT_BYTES + i] = node.ip[16 - ip_bytes + i] ^ <uint8_t> IP_MASK[i % 4]
    memcpy(data + FRONT_BYTES + ip_bytes, MIDDLE, MIDDLE_BYTES)
    data[count - 2] = <uint8_t> ((node.port ^ PORT_MASK) >> 8)
    data[count - 1] = <uint8_t> ((node.port ^ PORT_MASK) & 0xFF)
    for i in range(count):
        out[2 * i] = DIGITS[data[i] >> 4]
        out[2 * i + 1] = DIGITS[data[i] & 15]
    return 2 * count


cdef bint _take_plain(const PersistInput* ask, const PlanClass* cls, Slice value,
                      Finding* found) noexcept nogil:
    cdef Address node
    if not _plain_read(value, &node):
        found.outcome = OUTCOME_TAMPERED
        return False
    found.node = node
    found.first_seen_s = 0
    found.last_seen_s = 0
    found.rewrite = False
    return True


cdef bint _take_sealed(const PersistInput* ask, const PlanClass* cls, Slice value,
                       Finding* found) noexcept nogil:
    cdef Token token
    cdef int key = sealed_read(plan_passphrases(ask.plan, cls), cls.passphrase_count,
                               value.at, value.bytes, &token)
    if key < 0:
        found.outcome = OUTCOME_TAMPERED
        return False
    if not inserted_accept(ask, cls, &token, found):
        return False
    if key > 0:
        found.rewrite = True         # an older passphrase: before it is forgotten
    return True


cdef void persist_cookie_insert_find(const PersistInput* ask, const PlanClass* cls,
                                     Finding* found) noexcept nogil:
    inserted_find(ask, cls, found, _take_sealed if cls.passphrase_count else _take_plain)


cdef uint32_t persist_cookie_insert_write(const Plan* plan, const PlanClass* cls,
                                          const Address* node, uint32_t first_seen_s,
                                          uint32_t wall_s, char* out) noexcept nogil:
    cdef Token token
    if cls.passphrase_count == 0:
        return _plain_write(node, out)
    inserted_token(cls, node, first_seen_s, wall_s, &token)
    return sealed_write(plan_passphrases(plan, cls), &token, out)
