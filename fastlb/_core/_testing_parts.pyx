"""def functions over address, buffer, timer, outcome, rendezvous and token; for tests only."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_cut, address_equal, address_from_sockaddr,
    address_from_text, address_ip_text, address_is_ipv4, address_is_unset, address_same_ip,
    address_text, address_to_sockaddr,
)
from fastlb._core.buffer cimport (
    Buffer, BufferPool, buffer_borrow, buffer_pending, buffer_pool_free, buffer_pool_init,
    buffer_pool_limit,
    buffer_borrow_bytes, buffer_make_room, buffer_return, buffer_room, buffer_shrink,
)
from fastlb._core.outcome cimport (
    CAUSES, FOUND_INS, OUTCOMES, cause_name, found_in_name, outcome_name,
)
from fastlb._core.rendezvous cimport rendezvous_beats, rendezvous_log, rendezvous_mix
from fastlb._core.siphash cimport SipKey, sip_key_load
from fastlb._core.timer cimport (
    Timer, TimerWheel, timer_clear, timer_next_ms, timer_run, timer_set, timer_unfile,
    timer_wheel_init,
)
from fastlb._core.token cimport TOKEN_TEXT_BYTES_MAX, Token, token_read, token_write

# ---- address -----------------------------------------------------------------------------


cdef Address _parsed(str ip, int port=0) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    text = ip.encode()
    if not address_from_text(&a, text, <uint32_t>len(text)):
        raise ValueError(ip)
    a.port = port
    return a


def parse(bytes text):
    """The 16 bytes, or None; the text is followed by memory that cannot be read."""
    cdef Address a
    cdef const char* at = arena_place(text, len(text))
    memset(&a, 0xee, sizeof(a))
    if not address_from_text(&a, at, <uint32_t>len(text)):
        return None
    if a.port != 0xeeee:
        raise AssertionError("the port was written")
    return (<char*>a.ip)[:16]


def ip_text(bytes ip):
    cdef Address a
    cdef char out[ADDRESS_TEXT_BYTES_MAX]
    memcpy(a.ip, <const char*>ip, 16)
    memset(out, c'#', sizeof(out))
    count = address_ip_text(&a, out)
    if out[count] != c'#':
        raise AssertionError("written beyond the count")
    return out[:count]


def text(bytes ip, int port):
    cdef Address a
    cdef char out[ADDRESS_TEXT_BYTES_MAX]
    memcpy(a.ip, <const char*>ip, 16)
    a.port = port
    memset(out, c'#', sizeof(out))
    count = address_text(&a, out)
    if out[count] != c'#':
        raise AssertionError("written beyond the count")
    return out[:count]


def cut(str ip, uint32_t ipv4_bits, uint32_t ipv6_bits):
    """(the 16 bytes, the port) of `ip`, port 1234, cut"""
    cdef Address a = _parsed(ip, 1234)
    address_cut(&a, ipv4_bits, ipv6_bits)
    return (<char*>a.ip)[:16], a.port


def compare(str one, int port_one, str other, int port_other):
    """(equal, same_ip)"""
    cdef Address a = _parsed(one, port_one)
    cdef Address b = _parsed(other, port_other)
    return bool(address_equal(&a, &b)), bool(address_same_ip(&a, &b))


def kind(str ip):
    """(is_ipv4, is_unset)"""
    cdef Address a = _parsed(ip)
    return bool(address_is_ipv4(&a)), bool(address_is_unset(&a))


def to_sockaddr(str ip, int port):
    cdef Address a = _parsed(ip, port)
    cdef char out[64]
    memset(out, c'#', sizeof(out))
    return out[:address_to_sockaddr(&a, out)]


def from_sockaddr(bytes sockaddr):
    """(the 16 bytes, port), or None"""
    cdef Address a
    cdef char copy[64]
    memset(copy, 0, sizeof(copy))
    memcpy(copy, <const char*>sockaddr, len(sockaddr))
    if not address_from_sockaddr(&a, copy):
        return None
    return (<char*>a.ip)[:16], a.port


# ---- buffer ------------------------------------------------------------------------------


cdef class Pool:
    """A buffer pool; borrowed buffers are known by numbers."""

    cdef BufferPool pool
    cdef dict lent
    cdef int number

    def __init__(self, uint64_t bytes_max):
        buffer_pool_init(&self.pool, bytes_max)
        self.lent = {}
        self.number = 0

    def __dealloc__(self):
        buffer_pool_free(&self.pool)

    cdef Buffer* _buffer(self, int number) except NULL:
        return <Buffer*><size_t>self.lent[number]

    cdef _keep(self, Buffer* buffer):
        self.number += 1
        self.lent[self.number] = <size_t>buffer
        return self.number

    def borrow(self, bint large):
        """Its number, or None."""
        cdef Buffer* buffer = buffer_borrow(&self.pool, large)
        if buffer == NULL:
            return None
        if buffer_pending(buffer) or buffer_room(buffer) != buffer.size:
            raise AssertionError("not empty")
        memset(buffer.data, 0xab, buffer.size)
        return self._keep(buffer)

    def give_back(self, int number):
        buffer_return(&self.pool, self._buffer(number))
        del self.lent[number]

    def fill(self, int number, bytes data):
        cdef Buffer* buffer = self._buffer(number)
        memcpy(buffer.data + buffer.end, <const char*>data, len(data))
        buffer.end += len(data)
        return buffer_pending(buffer), buffer_room(buffer)

    def borrow_bytes(self, uint32_t count):
        """The number of one that has room for this many, or None."""
        cdef Buffer* buffer = buffer_borrow_bytes(&self.pool, count)
        if buffer == NULL:
            return None
        if buffer_pending(buffer) or buffer.size < count:
            raise AssertionError("not empty, or too small")
        return self._keep(buffer)

    def limit(self, uint64_t bytes_max):
        buffer_pool_limit(&self.pool, bytes_max)

    def make_room(self, number):
        """For a client's head, in this buffer or a first one: the number of the one that has it,
        or None."""
        cdef Buffer* buffer = NULL if number is None else self._buffer(number)
        if not buffer_make_room(&self.pool, &buffer):
            return None
        if number is not None:
            del self.lent[number]
        return self._keep(buffer)

    def shrink(self, int number, uint32_t start, uint32_t count):
        """The number of the buffer that is lent now."""
        cdef Buffer* old = self._buffer(number)
        cdef Buffer* buffer = buffer_shrink(&self.pool, old, start, count)
        if buffer == old:
            return number
        del self.lent[number]
        return self._keep(buffer)

    def data(self, int number):
        cdef Buffer* buffer = self._buffer(number)
        return buffer.data[buffer.start:buffer.end]

    def size(self, int number):
        return self._buffer(number).size

    def counts(self):
        return {
            "bytes": self.pool.bytes, "borrowed": self.pool.borrowed,
            "refusals": self.pool.refusals, "free_small": self.pool.free_small_count,
            "free_large": self.pool.free_large_count,
        }

    def free_all(self):
        buffer_pool_free(&self.pool)


# ---- timer -------------------------------------------------------------------------------


cdef class Wheel:
    """A wheel with `count` timers; what fires is collected, and may set timers in turn."""

    cdef TimerWheel* wheel
    cdef Timer* timers
    cdef uint64_t* again             # deadline that a timer sets for itself when it fires
    cdef int* stops                  # timer that it unfiles, -1: none
    cdef int[4096] fired
    cdef int fired_count
    cdef int count

    def __cinit__(self, int count, uint64_t now):
        cdef int i
        self.wheel = <TimerWheel*>calloc(1, sizeof(TimerWheel))
        self.timers = <Timer*>calloc(count, sizeof(Timer))
        self.again = <uint64_t*>calloc(count, sizeof(uint64_t))
        self.stops = <int*>calloc(count, sizeof(int))
        self.count = count
        for i in range(count):
            self.stops[i] = -1
            self.timers[i].kind = i
        timer_wheel_init(self.wheel, now)

    def __dealloc__(self):
        free(self.wheel)
        free(self.timers)
        free(self.again)
        free(self.stops)

    def set(self, int timer, uint64_t deadline, uint64_t again=0, int stops=-1):
        self.again[timer] = again
        self.stops[timer] = stops
        timer_set(self.wheel, &self.timers[timer], deadline)

    def clear(self, int timer):
        timer_clear(&self.timers[timer])

    def unfile(self, int timer):
        timer_unfile(self.wheel, &self.timers[timer])

    def run(self, uint64_t now):
        """The timers that fired, in their order."""
        self.fired_count = 0
        timer_run(self.wheel, now, _fired, <void*>self)
        return [self.fired[i] for i in range(self.fired_count)]

    def next_ms(self, uint64_t now):
        return timer_next_ms(self.wheel, now)

    @property
    def filed(self):
        return self.wheel.count


cdef void _fired(void* context, Timer* timer) noexcept nogil:
    _note_fired(<Wheel>context, timer)


cdef void _note_fired(Wheel self, Timer* timer) noexcept nogil:
    cdef int number = <int>timer.kind
    cdef uint64_t again = self.again[number]
    if self.fired_count < 4096:
        self.fired[self.fired_count] = number
        self.fired_count += 1
    if self.stops[number] >= 0:
        timer_unfile(self.wheel, &self.timers[self.stops[number]])
        timer_clear(&self.timers[self.stops[number]])
    if again:
        self.again[number] = 0
        timer_set(self.wheel, timer, again)


# ---- outcome -----------------------------------------------------------------------------


def names(str which):
    """The names by number, two numbers before the first and two behind the last with them."""
    if which == "outcome":
        return [outcome_name(<int>i).decode() for i in range(-2, <int>OUTCOMES + 2)]
    if which == "found_in":
        return [found_in_name(<int>i).decode() for i in range(-2, <int>FOUND_INS + 2)]
    return [cause_name(<int>i).decode() for i in range(-2, <int>CAUSES + 2)]


# ---- rendezvous --------------------------------------------------------------------------


def log(uint64_t x):
    return rendezvous_log(x)


def mix(uint64_t key, uint64_t seed):
    return rendezvous_mix(key, seed)


def beats(uint64_t draw, uint32_t weight, uint64_t best_draw, uint32_t best_weight):
    return bool(rendezvous_beats(draw, weight, best_draw, best_weight))


# ---- token -------------------------------------------------------------------------------


cdef SipKey _key(bytes secret) except *:
    cdef SipKey key
    if len(secret) != 16:
        raise ValueError("16 bytes")
    sip_key_load(&key, <const uint8_t*><const char*>secret)
    return key


def token(bytes mac, bytes stream, str ip, int port, uint32_t class_id, uint32_t first_seen=0,
          uint32_t last_seen=0):
    """The cookie value."""
    cdef SipKey mac_key = _key(mac), stream_key = _key(stream)
    cdef Token made
    cdef char out[TOKEN_TEXT_BYTES_MAX]
    made.node = _parsed(ip, port)
    made.class_id = class_id
    made.first_seen_s = first_seen
    made.last_seen_s = last_seen
    memset(out, c'#', sizeof(out))
    count = token_write(&mac_key, &stream_key, &made, out)
    if out[count] != c'#':
        raise AssertionError("written beyond the count")
    return out[:count]


def read_token(bytes mac, bytes stream, bytes text):
    """(16 bytes of IP, port, class, first seen, last seen), or None."""
    cdef SipKey mac_key = _key(mac), stream_key = _key(stream)
    cdef Token found
    cdef const char* at = arena_place(text, len(text))
    if token_read(&mac_key, &stream_key, at, <uint32_t>len(text), &found) < 0:
        return None
    return ((<char*>found.node.ip)[:16], found.node.port, found.class_id, found.first_seen_s,
            found.last_seen_s)
