# What the methods share whose session is in a cookie that fastlb inserted: looking for the
# cookie, what its token says (class, node, dates) and how old it may be, and the opaque token
# as value (persist_cookie_insert has values of its own).

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass
from fastlb._core.slice cimport Slice
from fastlb._core.token cimport Token

# Takes one value: True when it names the session's node (then `found` has node and dates),
# else `found.outcome` says why not.
ctypedef bint (*inserted_take_t)(const PersistInput* ask, const PlanClass* cls, Slice value,
                                 Finding* found) noexcept nogil

# The first valid cookie of the name that this virtual server writes; else the first valid one
# of another virtual server's name, which is then to be written under this one's. One name
# several times is counted, since that betrays conflicting Path or Domain attributes.
cdef void inserted_find(const PersistInput* ask, const PlanClass* cls, Finding* found,
                        inserted_take_t take) noexcept nogil
# Whether a session with these dates (0: none) is too old; else `found.rewrite` says whether
# they have to be written again.
cdef bint inserted_expired(const PlanClass* cls, uint32_t first_seen_s, uint32_t last_seen_s,
                           uint32_t now_s, Finding* found) noexcept nogil
# What an authentic token says: False, with an outcome, when it is another class's or too old.
cdef bint inserted_accept(const PersistInput* ask, const PlanClass* cls, const Token* token,
                          Finding* found) noexcept nogil
# What the token of a session has to say; `first_seen_s` 0: it begins now.
cdef void inserted_token(const PlanClass* cls, const Address* node, uint32_t first_seen_s,
                         uint32_t wall_s, Token* token) noexcept nogil
# inserted_take_t for token values, and their writing (persist_write_t).
cdef bint inserted_take_token(const PersistInput* ask, const PlanClass* cls, Slice value,
                              Finding* found) noexcept nogil
cdef uint32_t inserted_write_token(const Plan* plan, const PlanClass* cls, const Address* node,
                                   uint32_t first_seen_s, uint32_t wall_s, char* out) noexcept nogil
