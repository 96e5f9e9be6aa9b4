# The parts of a key are read where they stand; nothing is decoded or copied.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.persist cimport LearnInput, Learned, PersistInput
from fastlb._core.plan cimport KEY_SESSION, Plan, PlanClass
from fastlb._core.siphash cimport Hash128, siphash128
from fastlb._core.slice cimport Slice


cdef Hash128 key_of_value(const Plan* plan, Slice value) noexcept nogil:
    return siphash128(&plan.keys[KEY_SESSION], value.at, value.bytes)


cdef bint key_read(const PersistInput* ask, uint32_t first_part, uint32_t part_count,
                   Hash128* key) noexcept nogil:
    return False


cdef bint key_read_public(const PersistInput* ask, uint32_t first_part, uint32_t part_count,
                          uint64_t* key) noexcept nogil:
    return False


cdef void key_learn(const LearnInput* response, const PlanClass* cls,
                    Learned* learned) noexcept nogil:
    pass
