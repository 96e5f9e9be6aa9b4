# The logarithm of rendezvous.pxd: count of leading zeros for the whole part, a table of
# 1024 steps with linear interpolation for the rest (error under 2^-21 of one step).

from libc.math cimport log2
from libc.stdint cimport uint64_t

cdef extern from * nogil:
    int __builtin_clzll(unsigned long long x) noexcept

cdef enum:
    STEPS = 1024

cdef uint64_t _table[STEPS + 1]      # log2(1 + i / STEPS) in units of 2^-32


def _fill_table():
    cdef int i
    for i in range(STEPS + 1):
        _table[i] = <uint64_t> (log2(1.0 + i / <double> STEPS) * 4294967296.0 + 0.5)


_fill_table()


cdef uint64_t rendezvous_log(uint64_t x) noexcept nogil:
    cdef int zeros
    cdef uint64_t mantissa, step, rest, fraction
    if x == 0:
        return <uint64_t> 64 << 32
    zeros = __builtin_clzll(x)
    # The leading one is dropped: mantissa is the fraction of [1, 2) in units of 2^-64.
    mantissa = (x << zeros) << 1
    step = mantissa >> 54
    rest = (mantissa >> 22) & 0xFFFFFFFFULL
    fraction = _table[step] + (((_table[step + 1] - _table[step]) * rest) >> 32)
    return (<uint64_t> (zeros + 1) << 32) - fraction
