# `rule.shared`: the tables of rules as Python sees them, and the one region that they are in.
# Within a worker that is the plan's; elsewhere (a user's tests) it is memory of the process.

from libc.stdint cimport uint64_t

# From now on, the tables are in `count` bytes at `memory`: the region that the plan in force names.
# Rules may run meanwhile. False: no table of this version; all stays as it was.
cdef bint rule_shared_use(void* memory, uint64_t count) noexcept nogil
