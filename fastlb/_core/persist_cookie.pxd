# Persistence by the application's cookie (`type = "cookie"`).

from libc.stdint cimport uint32_t

from fastlb._core.cookie cimport SetCookie
from fastlb._core.followed cimport Followed
from fastlb._core.head cimport Head
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass

cdef enum AppCookie:                 # what a response says about the application's cookie
    APP_COOKIE_ABSENT = 0
    APP_COOKIE_SET
    APP_COOKIE_ENDED                 # deleted, or left without a value

cdef void persist_cookie_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil
# An AppCookie; `theirs` is the Set-Cookie that counts, unless there is none.
cdef int persist_cookie_response(const Plan* plan, const PlanClass* cls, const Head* response,
                                 const char* buf, uint32_t wall_s,
                                 SetCookie* theirs) noexcept nogil
# The attributes that the first authentic cookie of ours in a request was written with; False,
# and nothing in `followed`, when there is no such cookie.
cdef bint persist_cookie_carried(const Plan* plan, const PlanClass* cls, const Head* request,
                                 const char* buf, Followed* followed) noexcept nogil
