# The Python edge of shared_table: names, keys and lives as rules write them.

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from fastlb._core cimport system
from fastlb._core.shared_table cimport (
    SHARED_ENTRIES_MAX, SHARED_NEVER, SHARED_NONE, SHARED_OVERFLOW, SharedStats, SharedTable,
    shared_table_bytes, shared_table_copy, shared_table_delete, shared_table_format,
    shared_table_get, shared_table_incr, shared_table_open, shared_table_set, shared_table_stats,
)
from fastlb._core.shm cimport REGION_BYTES, Segment
from fastlb._core.siphash cimport (
    Hash128, SipState, sip_final128, sip_init128, sip_update, sip_update_u64,
)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* count) except NULL

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** at, size_t alignment, size_t count) noexcept

cdef enum:
    LOCAL_ENTRIES = 65536            # of a process that is no worker
    LIVES_MAX = 1000                 # texts whose meaning is kept

cdef enum KeyKind:
    KEY_STR = 1
    KEY_BYTES
    KEY_INT
    KEY_BIG_INT

# A handle is never freed: one that the other thread works with is replaced by a single store, at
# a reload that changes the size. NULL: none yet.
cdef SharedTable* _current = NULL
cdef void* _memory = NULL            # that it is for
cdef void* _local = NULL             # memory of the process's own tables
cdef int64_t _ahead = 0              # milliseconds that the clock of those is ahead
cdef dict _tables = {}               # by name
cdef dict _lives = {}                # "1m": 60000


cdef bint rule_shared_use(void* memory, uint64_t count) noexcept nogil:
    global _current, _memory, _ahead
    cdef SharedTable* opened
    if memory == _memory and memory != NULL:
        return True
    opened = <SharedTable*> calloc(1, sizeof(SharedTable))
    if opened == NULL or not shared_table_open(opened, memory, count):
        free(opened)
        return False
    _current = opened
    _memory = memory
    _ahead = 0
    return True


cdef void _use_none() noexcept nogil:
    global _current, _memory, _ahead
    _current = NULL
    _memory = NULL
    _ahead = 0


cdef int _open_local(bint anew) except -1:
    """Tables of this process alone, empty; not `anew`: if there are none."""
    global _local
    cdef uint64_t count = shared_table_bytes(LOCAL_ENTRIES)
    cdef bytes secret = os.urandom(16)
    # Random bytes are had without the GIL: another thread may have come first.
    if _current != NULL and not anew:
        return 0
    _use_none()
    if _local == NULL and posix_memalign(&_local, 64, count) != 0:
        _local = NULL
        raise MemoryError("rule.shared: no memory for its tables")
    if not shared_table_format(_local, count, LOCAL_ENTRIES, <const uint8_t*> <char*> secret):
        raise MemoryError("rule.shared: no locks")
    if not rule_shared_use(_local, count):
        raise MemoryError("rule.shared: no memory for its tables")
    return 0


cdef inline uint64_t _now() noexcept nogil:
    return system.boot_ms() + <uint64_t> _ahead


# --- arguments ----------------------------------------------------------------------------

cdef uint64_t _milliseconds(double seconds, object ttl) except? 1:
    if not seconds > 0:
        raise ValueError(f"rule.shared: ttl has to be longer than nothing, not {ttl!r}")
    if seconds >= 3.0e14:            # ten million years, or for ever
        return SHARED_NEVER
    return <uint64_t> (seconds * 1000.0) or 1


cdef uint64_t _life(object ttl) except? 1:
    if ttl is None:
        return SHARED_NEVER
    if isinstance(ttl, str):
        known = _lives.get(ttl)
        if known is None:
            from fastlb.errors import Invalid
            from fastlb.units import Duration
            try:
                known = Duration("1ms", "876000h").read(ttl)
            except Invalid as error:
                raise ValueError(f"rule.shared: ttl: {error}") from None
            if len(_lives) >= LIVES_MAX:
                _lives.clear()
            _lives[ttl] = known
        return known
    if hasattr(ttl, "total_seconds"):
        return _milliseconds(ttl.total_seconds(), ttl)
    if isinstance(ttl, (int, float)) and not isinstance(ttl, bool):
        return _milliseconds(ttl, ttl)
    raise TypeError('rule.shared: ttl is a text like "1m", seconds, a timedelta or None,'
                    f" not {type(ttl).__name__}")


cdef int64_t _number(object value, str what) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"rule.shared: {what} is an int, not {type(value).__name__}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        raise OverflowError(f"rule.shared: {what} does not fit in 64 bits: {value:#x}")
    return number


@cython.final
cdef class Table:
    """A table of counters that all workers share; `rule.shared(name)` gives it.

    Keys are str, bytes or int (the key `1` is another one than `"1"`); values are ints of 64 bits
    with sign. A table is as long-lived as the running fastlb, reloads included, and is lost with
    it. All tables together have room for `[rules] shared` entries; when there are more, those
    that would end first are dropped.
    """

    cdef readonly str name
    cdef SipState begun              # hash of the name, to go on with the key
    cdef SharedTable* table          # that it is for

    def __init__(self, name):
        if not isinstance(name, str):
            raise TypeError(f"rule.shared: a table's name is a str, not {type(name).__name__}")
        if not name:
            raise ValueError("rule.shared: a table needs a name")
        self.name = name

    def __repr__(self):
        return f"rule.shared({self.name!r})"

    cdef int _begin(self) except -1:
        cdef bytes name = self.name.encode("utf-8", "surrogatepass")
        cdef Py_ssize_t count = len(name)
        if _current == NULL:
            _open_local(False)
        self.table = _current
        sip_init128(&self.begun, &self.table.key)
        sip_update_u64(&self.begun, <uint64_t> count)
        sip_update(&self.begun, PyBytes_AS_STRING(name), count)
        return 0

    cdef Hash128 _hash(self, object key) except *:
        cdef SipState state
        cdef Py_ssize_t count = 0
        cdef const char* text
        cdef int overflow = 0
        cdef int64_t number
        cdef bytes encoded
        if self.table == NULL or self.table != _current:
            self._begin()
        state = self.begun
        if isinstance(key, str):
            sip_update_u64(&state, KEY_STR)
            try:
                text = PyUnicode_AsUTF8AndSize(key, &count)
                sip_update(&state, text, count)
            except UnicodeEncodeError:
                encoded = key.encode("utf-8", "surrogatepass")
                sip_update(&state, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        elif isinstance(key, bytes):
            encoded = key
            sip_update_u64(&state, KEY_BYTES)
            sip_update(&state, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        elif isinstance(key, int) and not isinstance(key, bool):
            number = PyLong_AsLongLongAndOverflow(key, &overflow)
            if overflow:
                encoded = key.to_bytes(key.bit_length() // 8 + 1, "little", signed=True)
                sip_update_u64(&state, KEY_BIG_INT)
                sip_update(&state, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
            else:
                sip_update_u64(&state, KEY_INT)
                sip_update_u64(&state, <uint64_t> number)
        else:
            raise TypeError(
                f"{self!r}: a key is a str, bytes or an int, not {type(key).__name__}")
        return sip_final128(&state)

    def get(self, key):
        """The number of `key`, or None when there is none, or it has ended."""
        cdef int64_t value = 0
        cdef Hash128 hash = self._hash(key)
        if shared_table_get(self.table, &hash, _now(), &value) == SHARED_NONE:
            return None
        return value

    def incr(self, key, by=1, ttl="1m"):
        """Adds `by` to the number of `key` and returns the sum; a key that is new begins at 0.

        A new key ends `ttl` from now, however often it is counted then: a text like "1m",
        seconds, a timedelta, or None for never. Nobody else's count comes between. Raises
        OverflowError, and changes nothing, when the sum does not fit in 64 bits.
        """
        cdef int64_t value = 0
        cdef int64_t more = _number(by, "by")
        cdef uint64_t life = _life(ttl)
        cdef Hash128 hash = self._hash(key)
        if shared_table_incr(self.table, &hash, more, life, _now(), &value) == SHARED_OVERFLOW:
            raise OverflowError(f"{self!r}: the sum for {key!r} does not fit in 64 bits")
        return value

    def set(self, key, value, ttl=None):
        """Sets the number of `key`, which ends `ttl` from now; None: never."""
        cdef int64_t number = _number(value, "value")
        cdef uint64_t life = _life(ttl)
        cdef Hash128 hash = self._hash(key)
        shared_table_set(self.table, &hash, number, life, _now())

    def delete(self, key):
        """Removes `key`; returns whether it was there."""
        cdef Hash128 hash = self._hash(key)
        return shared_table_delete(self.table, &hash, _now()) != SHARED_NONE


def shared(name):
    """The table of this name; the same one in all workers, made at its first use.

    Everybody who uses the name has the same table: put something of your own into it.
    """
    table = _tables.get(name) if isinstance(name, str) else None
    if table is None:
        table = Table(name)
        _tables[name] = table
    return table


# --- outside of workers -------------------------------------------------------------------

def reset_local():
    """Empties the tables of this process, whose clock is the system's again. Not for workers."""
    if _current != NULL and _memory != _local:
        raise RuntimeError("rule.shared: the tables belong to a running fastlb")
    _open_local(True)


def advance_local(seconds):
    """Lets time pass for the tables of this process: what ends within `seconds` is over."""
    global _ahead
    cdef uint64_t more = _milliseconds(seconds, seconds)
    if _current == NULL:
        _open_local(False)
    if _memory != _local:
        raise RuntimeError("rule.shared: the tables belong to a running fastlb")
    _ahead += <int64_t> more


# --- the control process ------------------------------------------------------------------

@cython.final
cdef class Region:
    """The region of a segment that all tables are in."""

    cdef SharedTable table
    cdef Segment segment
    cdef readonly str name
    cdef readonly uint64_t offset
    cdef readonly uint64_t byte_count

    @staticmethod
    def bytes_for(size):
        return shared_table_bytes(size)

    @staticmethod
    def create(Segment segment, str name, size, bytes secret):
        """An empty one for `size` entries; `secret`: 16 random bytes, for all of one segment."""
        cdef Region self = Region.__new__(Region)
        cdef const uint8_t* key = <const uint8_t*> <char*> secret
        cdef uint64_t count
        cdef void* memory
        if not 0 < size <= SHARED_ENTRIES_MAX or len(secret) != 16:
            raise ValueError(f"rule.shared: no tables of {size} entries")
        self.segment = segment
        self.name = name
        count = shared_table_bytes(size)
        self.offset = segment.allocate(name, REGION_BYTES, count)
        self.byte_count = count
        memory = segment.at(self.offset)
        if not (shared_table_format(memory, count, size, key)
                and shared_table_open(&self.table, memory, count)):
            raise ValueError("rule.shared: no locks")
        return self

    @staticmethod
    def open(Segment segment, str name):
        """The tables that another process has made."""
        cdef Region self = Region.__new__(Region)
        found = segment.find(name)
        if found is None:
            raise ValueError(f"rule.shared: no region {name!r}")
        self.segment = segment
        self.name = name
        self.offset, self.byte_count = found
        if not shared_table_open(&self.table, segment.at(self.offset), self.byte_count):
            raise ValueError(f"rule.shared: no tables in {name!r}")
        return self

    @property
    def size(self):
        return self.table.size

    @property
    def place(self):
        return self.offset, self.byte_count

    def copy_to(self, Region other):
        """Puts all entries into another region; those that it has stay as they are."""
        shared_table_copy(&self.table, &other.table, system.boot_ms())

    def stats(self):
        """(entries that have not ended, entries dropped before their end)"""
        cdef SharedStats stats
        self.segment.header()
        shared_table_stats(&self.table, system.boot_ms(), &stats)
        return stats.entries, stats.evictions

    def use(self):
        """From now on, `rule.shared` of this process is in it."""
        cdef void* memory = self.segment.at(self.offset)
        return rule_shared_use(memory, self.byte_count)


def use_none():
    """`rule.shared` of this process is in its own memory, and empty."""
    global _local
    _use_none()
    free(_local)
    _local = NULL
