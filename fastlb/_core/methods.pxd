# The tables of the persistence methods: what each class type is made of. One row per
# ClassType, in its order; NULL where a method has no such part.

from fastlb._core.persist cimport persist_find_t, persist_learn_t, persist_write_t
from fastlb._core.plan cimport PlanClass

cdef persist_find_t method_find(const PlanClass* cls) noexcept nogil
cdef persist_write_t method_write(const PlanClass* cls) noexcept nogil
cdef persist_learn_t method_learn(const PlanClass* cls) noexcept nogil
