# Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Schindelhauer
# and Schomaker 2005): each node draws an exponential variate from (key, node), divided
# by its weight, and the smallest wins. Removing a node moves only its own keys; adding
# one takes from each of the others its fair share. There is no table to rebuild, and a
# node that is not usable is simply not asked.
#
# All arithmetic is in integers, so that every proxy on every machine agrees.

from libc.stdint cimport uint32_t, uint64_t

# -log2(x / 2^64) in units of 2^-32, for a uniform 64-bit x.
cdef uint64_t rendezvous_log(uint64_t x) noexcept nogil


# Uniform 64 bits from a key and a node's seed (finalizer of MurmurHash3).
cdef inline uint64_t rendezvous_mix(uint64_t key, uint64_t seed) noexcept nogil:
    cdef uint64_t x = key ^ seed
    x ^= x >> 33
    x *= <uint64_t> 0xFF51AFD7ED558CCDULL
    x ^= x >> 33
    x *= <uint64_t> 0xC4CEB9FE1A85EC53ULL
    x ^= x >> 33
    return x


# Whether a node with (draw, weight) beats the best so far; both weights are at least 1.
# draw / weight < best_draw / best_weight, without the division; draws are under 2^39
# and weights at most 256, so the products fit.
cdef inline bint rendezvous_beats(uint64_t draw, uint32_t weight, uint64_t best_draw,
                                  uint32_t best_weight) noexcept nogil:
    return draw * best_weight < best_draw * weight
