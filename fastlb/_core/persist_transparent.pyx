# The session is in a cookie of fastlb's own, `X-Mapping-<8 hex>`: an opaque token that names
# class and node. All of it is common to the methods that insert a cookie (inserted.pyx).

from fastlb._core.inserted cimport inserted_find, inserted_take_token
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass
from fastlb._core.slice cimport slice_of


cdef void persist_transparent_find(const PersistInput* ask, const PlanClass* cls,
                                   Finding* found) noexcept nogil:
    inserted_find(ask, cls, slice_of(NULL, 0), found, inserted_take_token)
